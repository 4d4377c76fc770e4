"""Children: our own modules in our own interpreter, without our secrets."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping

from service.errors import CannotRun

LOCAL_PACKAGES = ("torch", "transformers", "peft", "gguf", "llguidance")
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|DSN|DATABASE_URL|STORAGE_URL|JOBS_URL)$", re.IGNORECASE)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that needs no secret: without the variables whose names say that they hold one.

    Threads that wait do not spin (a busy neighbour would slow them several times), and nothing asks a model hub.
    """
    kept = {name: value for name, value in environment.items() if not _SECRET.search(name)}
    kept.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONUNBUFFERED="1")
    return kept


def missing_local_packages() -> list[str]:
    """Which packages of the extra `local` are not installed; finding out imports none of them."""
    return [name for name in LOCAL_PACKAGES if importlib.util.find_spec(name) is None]


def require_local_packages(what: str) -> None:
    """Raise CannotRun, saying what to install, where `what` cannot run here."""
    missing = missing_local_packages()
    if missing:
        raise CannotRun(f"{what} needs {', '.join(missing)}: pip install 'turnout[local]'")
