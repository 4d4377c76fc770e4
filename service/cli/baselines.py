"""Baselines of a git revision: its prompts as drafts, and what became of its suites since."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prompts.errors import BadInput, TurnoutError
from prompts.formats.prompt_yml import SUFFIXES, load_prompt
from service.cli.project import SUITE_SUFFIXES, Project, brings_suite
from service.cli.revisions import AUTHORED, changed_since, digest_at, git, git_bytes

if TYPE_CHECKING:
    from service.cli.testing import Plan
    from service.cli.work import Work
    from suites.files import ResolvedSuite

GIT = "git:"
_PATTERN = re.compile(r"""file://([^*?\[\]{}\s"',]*)[*?\[]""")  # up to its first wildcard
_SHORT_SHA = 7


@dataclass(frozen=True)
class Baselines:
    """Baselines as the registry knows them, notes on them, and where each that is a draft comes from, by `NAME@N`."""

    selectors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()


def merge_base(project: Project, ref: str) -> str:
    """The commit that HEAD and `ref` have in common. Raises BadInput where git finds none."""
    found = git(project.root, "merge-base", ref, "HEAD", check=False)
    if found is None:
        commit_of(project, ref, f"--against {ref}")
        raise BadInput(
            f"--against {ref}: it has no commit in common with HEAD: fetch its history (git fetch --unshallow)",
            param="against",
        )
    return found.strip()


def commit_of(project: Project, ref: str, shown: str) -> str:
    """The full id of the commit that `ref` names. Raises BadInput, with what to do, where git knows none."""
    found = git(project.root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", check=False)
    if found is not None:
        return found.strip()
    if git(project.root, "rev-parse", "--git-dir", check=False) is None:
        git(project.root, "rev-parse", "--git-dir")  # no repository, or no git: it says so itself
    told = f"{shown}: git knows no commit {ref!r} here"
    shallow = (git(project.root, "rev-parse", "--is-shallow-repository", check=False) or "").strip() == "true"
    fix = "`git branch --all` lists what is there, `git fetch origin` brings what is not"
    ci = "this clone is shallow: fetch its history (git fetch --unshallow; `fetch-depth: 0` of actions/checkout)"
    raise BadInput(f"{told}: {ci if shallow else fix}", param="baseline")


def read_baselines(work: Work, project: Project, given: Sequence[str], plans: Sequence[Plan]) -> Baselines:
    """What `--baseline` and `--against` mean: a git revision is pushed first, as a draft.

    Raises BadInput for a revision that git does not know. A prompt that was not there then has no baseline, and a suite
    that was another then is not used: both sides are asked what the candidate's suite asks.
    """
    found: list[str] = []
    notes: list[str] = []
    origins: list[tuple[str, str]] = []
    for text in given:
        if not text.startswith(GIT):
            found.append(text)
            continue
        commit = commit_of(project, text.removeprefix(GIT), text)
        named = text if not commit.startswith(text.removeprefix(GIT)) else f"{GIT}{commit[:_SHORT_SHA]}"
        for name in dict.fromkeys(plan.prompt for plan in plans):
            pushed = push_revision(work, project, name, commit, text)
            found.append(pushed or f"{name}@none")
            origin = named if commit.startswith(named.removeprefix(GIT)) else f"{named}, {commit[:_SHORT_SHA]}"
            origins += [(pushed, origin)] if pushed else []
            notes += [] if pushed else [f"{name} was not there at {named}: it has no baseline"]
        notes += suite_notes(project, plans, commit, named)
    return Baselines(tuple(found), tuple(notes), tuple(origins))


def push_revision(work: Work, project: Project, name: str, commit: str, shown: str) -> str | None:
    """A prompt as it was at a commit, as `NAME@N`; None where it was not there."""
    files = project.at(commit, name)
    if files is None:
        return None
    origin = {"moves_labels": False, "draft": True, "git_sha": commit, "message": f"as of {shown}"}
    written = work.push(files, {}, origin)
    return next(f"{name}@{entry['version']}" for entry in written if (entry["kind"], entry["name"]) == ("prompt", name))


# ------------------------------------------------------------------ what became of the suites


def suite_notes(project: Project, plans: Sequence[Plan], commit: str, shown: str) -> Iterator[str]:
    """A line for each suite of this gate that was another at a commit, and for each that was there and is gone."""
    removed = _removed_since(project, plans, commit)
    for plan in plans:
        if not _is_as_at(project, plan.sources, commit) or _lost_cases(project, plan, commit, removed):
            yield f"suite {plan.suite} {_became(project, plan, commit, shown)}"
    gone = _suites_at(project, commit) - {_name(project, path) for path in project.suite_files()}
    for name in sorted(gone - _brought(project) if gone else ()):
        yield f"suite {name} was there at {shown} and is gone: nothing is tested by it any more"


def _name(project: Project, path: Path) -> str:
    from suites.files import suite_name

    return suite_name(path, project.root)


def _brought(project: Project) -> set[str]:
    """Names of the suites that prompt files bring with them now."""
    return {name for name, source in project.tree.sources.items() if brings_suite(source)} | project.tree.broken


def _suites_at(project: Project, commit: str) -> set[str]:
    """Names of the suite files below `suites/` at a commit, and of the suites that prompt files brought then."""
    listed = git(project.root, "ls-tree", "-r", "-z", "--name-only", commit, "--", "suites", check=False) or ""
    names = set()
    for path in listed.split("\0"):
        if path.endswith(SUITE_SUFFIXES):
            with contextlib.suppress(BadInput):  # no name now is no name then: it was never a suite
                names.add(_name(project, project.root / path))
    return names | _brought_at(project, commit)


def _brought_at(project: Project, commit: str) -> set[str]:
    """Names of the prompts whose files brought a suite (`testData`) at a commit; one with faults then brought none."""
    names = set()
    found = git(project.root, "grep", "-l", "-z", "testData", commit, "--", "prompts", check=False) or ""
    for path in (text.partition(":")[2] for text in found.split("\0") if text.endswith(SUFFIXES)):
        with contextlib.suppress(BadInput):
            name = project.prompt_name(project.root / path)
            text = git(project.root, "show", f"{commit}:./{path}", check=False) or ""
            if brings_suite(load_prompt(text, path, name)):
                names.add(name)
    return names


def _became(project: Project, plan: Plan, commit: str, shown: str) -> str:
    """What is another about a suite, after its name."""
    from suites.suite_changes import suite_changes

    if not plan.sources[0].resolve().is_relative_to(project.root.resolve()):
        return f"stands outside the project, so what it was at {shown} is not known: both sides are tested by it as it is now"
    if not _is_there(project, commit, _below(project, plan.sources[0]).as_posix()):
        return f"was not there at {shown}: both sides are tested by it as it is now"
    told = f"was another at {shown}: both sides are tested by it as it is now"
    before = _suite_at(project, plan, commit)
    if before is None or plan.data is None:
        return f"{told}; what it was then cannot be read, so what changed is not told"
    changes = suite_changes(before.suite, plan.data)
    return f"{told}; {', '.join(changes) or 'its cases, thresholds and settings are the same'}"


def _removed_since(project: Project, plans: Sequence[Plan], commit: str) -> frozenset[Path]:
    """The files that are gone since then, of the folders in which these suites look by patterns."""
    root = project.root.resolve()
    folders = {folder for plan in plans for folder in searched(plan.sources)}
    inside = [folder.relative_to(root).parts[:1] for folder in folders if folder.is_relative_to(root)]
    among = {*AUTHORED, *(parts[0] if parts else "." for parts in inside)}
    paths = (project.root / path for path in (changed_since(project.root, commit, among) if folders else ()))
    return frozenset(path.resolve() for path in paths if not path.exists())


def _lost_cases(project: Project, plan: Plan, commit: str, removed: frozenset[Path]) -> bool:
    """Whether a suite whose files are as they were has lost cases: with a file that a pattern of it found then."""
    from suites.suite_changes import suite_changes

    folders = searched(plan.sources) if removed and plan.data is not None else set()
    if not any(folders & {*path.parents} for path in removed):
        return False
    before = _suite_at(project, plan, commit)
    return before is None or plan.data is None or bool(suite_changes(before.suite, plan.data))


def searched(sources: Sequence[Path]) -> set[Path]:
    """The folders in which a suite looks for files by a pattern: what is no more there it would have read."""
    folders = {source.resolve().parent for source in sources}
    texts = (source.read_text("utf-8-sig", errors="replace") for source in sources)
    starts = {found[1] for text in texts for found in _PATTERN.finditer(text)}
    return {(folder / start.rpartition("/")[0]).resolve() for folder in folders for start in starts}


def _suite_at(project: Project, plan: Plan, commit: str) -> ResolvedSuite | None:
    """The suite as it was, read with the prompts of that time; None where it has faults by the rules of today."""
    with tempfile.TemporaryDirectory(prefix="turnout-base-") as folder:
        root = Path(folder).resolve()
        _unpack(project, commit, _folders(project, plan.sources), root)
        then = Project(project.settings.model_copy(update={"project": root}), project.asked)
        try:
            found = then.suites_of([root / _below(project, plan.sources[0])])
        except (TurnoutError, OSError):
            return None  # told by the caller
        return next((suite for suite in found if suite.name == plan.suite), None)


def _folders(project: Project, sources: Sequence[Path]) -> list[str]:
    """The folders that hold the prompts, the suites and what this suite reads now."""
    inside = (source for source in sources if source.resolve().is_relative_to(project.root.resolve()))
    return sorted({"prompts", "suites", *(_below(project, source).parent.as_posix() for source in inside)})


def _below(project: Project, path: Path) -> Path:
    return path.resolve().relative_to(project.root.resolve())


def _is_there(project: Project, commit: str, below: str) -> bool:
    return digest_at(project.root, commit, below) is not None


def _unpack(project: Project, commit: str, folders: Sequence[str], root: Path) -> None:
    """Write what these folders held at a commit below `root`: regular files alone."""
    there = [name for name in folders if _is_there(project, commit, name)]
    packed = git_bytes(project.root, "archive", "--format=tar", commit, "--", *there) if there else None
    if packed is not None:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    (root / member.name).parent.mkdir(parents=True, exist_ok=True)
                    (root / member.name).write_bytes(content.read())


def _is_as_at(project: Project, files: Sequence[Path], commit: str) -> bool:
    """Whether these files of the working tree are what they were at a commit, by git's own digests."""
    root = project.root.resolve()
    for file in files:
        if not file.resolve().is_relative_to(root):
            return False
        real = file.resolve()
        before = digest_at(project.root, commit, real.relative_to(root).as_posix())
        now = git(real.parent, "hash-object", "--", real.name)
        if before is None or now is None or before != now.strip():
            return False
    return True
