"""What a CI job was started for, as GitHub and GitLab tell it: the change, its base, and whether it comes from a fork."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prompts.errors import BadInput

Kind = Literal["pull_request", "merge_group", "push", "other"]
_NO_COMMIT = re.compile(r"0+")
_PULL_REQUESTS = ("pull_request", "pull_request_target")


@dataclass(frozen=True, slots=True)
class Change:
    """The change that a job was started for.

    `bases` are git revisions that it may be compared with, the best first: a branch of the clone is newer than the commit
    that an event names. `repository` is `owner/name` with GitHub and the number of the target project with GitLab;
    `number` that of the pull or merge request, None where there is none.
    """

    forge: Literal["github", "gitlab"]
    kind: Kind
    repository: str
    bases: tuple[str, ...] = ()
    head: str = ""
    number: int | None = None
    is_fork: bool = False
    run_url: str = ""


def change_of(environ: Mapping[str, str] | None = None) -> Change | None:
    """The change by the variables of GitHub Actions or GitLab CI; None outside of both.

    Raises BadInput where GitHub's event file cannot be read.
    """
    environ = os.environ if environ is None else environ
    if environ.get("GITHUB_EVENT_PATH") and environ.get("GITHUB_REPOSITORY"):
        return _of_github(environ, _event(Path(environ["GITHUB_EVENT_PATH"])))
    if environ.get("GITLAB_CI"):
        return _of_gitlab(environ)
    return None


@dataclass(frozen=True, slots=True)
class Branch:
    """The branch that a job is of, "" where it is of none (a tag, a pull request), and the repository's default one."""

    name: str
    default: str


def branch_of(commit: str, environ: Mapping[str, str] | None = None) -> Branch | None:
    """The branch of the CI job, where the job is of this commit; None outside of CI, or in another repository.

    CI systems check out a commit and no branch (GitLab), or do not say which branch of the clone is the default one
    (GitHub). A job of another commit says nothing: `pull_request_target` names the branch that a stranger's files are for.
    """
    environ = os.environ if environ is None else environ
    if environ.get("GITHUB_EVENT_PATH") and environ.get("GITHUB_SHA") == commit:
        try:
            event = _event(Path(environ["GITHUB_EVENT_PATH"]))
        except BadInput:
            return None
        default, ref = _part(event, "repository").get("default_branch"), environ.get("GITHUB_REF", "")
        name = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
        return Branch(name, default) if isinstance(default, str) else None
    if environ.get("GITLAB_CI") and environ.get("CI_COMMIT_SHA") == commit and environ.get("CI_DEFAULT_BRANCH"):
        return Branch(environ.get("CI_COMMIT_BRANCH", ""), environ["CI_DEFAULT_BRANCH"])
    return None


def _event(path: Path) -> dict[str, Any]:
    try:
        event = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"GITHUB_EVENT_PATH={path}: no event can be read there: {error}") from error
    if not isinstance(event, dict):
        raise BadInput(f"GITHUB_EVENT_PATH={path}: holds no event: it is to be an object of JSON")
    return event


def _of_github(environ: Mapping[str, str], event: Mapping[str, Any]) -> Change:
    repository = environ["GITHUB_REPOSITORY"]
    run_url = ""
    if environ.get("GITHUB_RUN_ID"):
        server = environ.get("GITHUB_SERVER_URL", "https://github.com")
        run_url = f"{server}/{repository}/actions/runs/{environ['GITHUB_RUN_ID']}"
    name = environ.get("GITHUB_EVENT_NAME", "")
    if name in _PULL_REQUESTS:
        return _pull_request(repository, _part(event, "pull_request"), run_url)
    if name == "merge_group":
        group = _part(event, "merge_group")
        bases = _known(group.get("base_sha"))
        return Change("github", "merge_group", repository, bases, str(group.get("head_sha") or ""), run_url=run_url)
    if name == "push":
        head = str(event.get("after") or environ.get("GITHUB_SHA", ""))
        return Change("github", "push", repository, _bases_of_push(event), head, run_url=run_url)
    return Change("github", "other", repository, head=environ.get("GITHUB_SHA", ""), run_url=run_url)


def _pull_request(repository: str, pull: Mapping[str, Any], run_url: str) -> Change:
    base, head = _part(pull, "base"), _part(pull, "head")
    home = _part(head, "repo").get("full_name")  # none where the fork was deleted
    branch = base.get("ref")
    bases = (*((f"origin/{branch}",) if branch else ()), *_known(base.get("sha")))
    number = pull.get("number")
    return Change(
        "github",
        "pull_request",
        repository,
        bases,
        str(head.get("sha") or ""),
        number if isinstance(number, int) else None,
        is_fork=home != repository,
        run_url=run_url,
    )


def _bases_of_push(event: Mapping[str, Any]) -> tuple[str, ...]:
    """The commit that the branch was at; of a new or rewritten branch where it left the default one."""
    default = _part(event, "repository").get("default_branch")
    before = _known(event.get("before"))
    if default and event.get("ref") != f"refs/heads/{default}" and (event.get("forced") or not before):
        return (f"origin/{default}",)
    return before


def _of_gitlab(environ: Mapping[str, str]) -> Change:
    target, source = (environ.get(f"CI_MERGE_REQUEST_{name}PROJECT_ID", "") for name in ("", "SOURCE_"))
    head, run_url = environ.get("CI_COMMIT_SHA", ""), environ.get("CI_JOB_URL", "")
    iid = environ.get("CI_MERGE_REQUEST_IID", "")
    if iid.isdecimal():
        bases = _known(environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA"))
        head = environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or head  # else that of the merged result
        return Change("gitlab", "pull_request", target, bases, head, int(iid), source != target, run_url)
    before = _known(environ.get("CI_COMMIT_BEFORE_SHA"))
    return Change("gitlab", "push", environ.get("CI_PROJECT_ID", ""), before, head, run_url=run_url)


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}


def _known(sha: Any) -> tuple[str, ...]:
    """A commit, unless there is none: forges write zeros where a branch is new."""
    return (sha,) if isinstance(sha, str) and sha and not _NO_COMMIT.fullmatch(sha) else ()
