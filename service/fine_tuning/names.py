"""Names of OpenAI's fine-tuning API: `ftjob-…`, `file-…`, and `ft:base:organization:suffix:id`, under which adapters are served."""

from __future__ import annotations

import re

from prompts.errors import BadInput
from service.store import tuned
from service.store.session import Session

PREFIX = "ft:"
JOB_PREFIX = "ftjob-"
OWN_JOB_PREFIX = "job_"
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


def check_suffix(suffix: str | None) -> str:
    """A suffix as names hold it: lower case, spaces as dashes; "" for none. Raises BadInput."""
    if not suffix:
        return ""
    if _SUFFIX.fullmatch(suffix) is None:
        raise BadInput(
            f"suffix: {suffix[:80]!r} has other characters than letters, digits, spaces, '.', '_' and '-', or more than 64",
            param="suffix",
        )
    return suffix.strip().lower().replace(" ", "-")


def model_name(base: str, organization: str, suffix: str, short_id: str, step: int | None = None) -> str:
    """The name that a job's adapter is served under; a checkpoint's has its step behind it."""
    name = f"{PREFIX}{base}:{organization}:{suffix}:{short_id}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def adapter_name(short_id: str, step: int | None = None) -> str:
    """The folder that holds the adapter."""
    return f"ft-{short_id}" if step is None else f"ft-{short_id}-step-{step}"


def own_job_id(job_id: str) -> str:
    """The id of a job as `/api/jobs` has it, from either form."""
    return OWN_JOB_PREFIX + job_id.removeprefix(JOB_PREFIX) if job_id.startswith(JOB_PREFIX) else job_id


def public_job_id(job_id: str) -> str:
    """The id of a job as OpenAI's API has it."""
    return JOB_PREFIX + job_id.removeprefix(OWN_JOB_PREFIX)


def named_adapters(session: Session) -> frozenset[str]:
    """The adapters that an `ft:` name is served by: none of these may be deleted."""
    return frozenset(record["adapter"] for record in tuned.listing(session))
