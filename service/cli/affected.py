"""What a change can affect: of a project's suites those whose verdict may be another than at the merge base.

The verdict on a suite depends on its own file and the files that it reads, on its prompt and whatever that includes, on
the rubrics of its judges, and on the models of turnout.yaml that are asked. Nothing else is looked at, and a file that
changed in any byte has changed: to gate a suite too many costs minutes, to gate one too few lets a regression through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.errors import BadFile, BadInput
from prompts.formats.prompt_yml import SUFFIXES
from prompts.yaml_source import load_yaml
from service.cli.baselines import commit_of, merge_base, searched
from service.cli.forges import change_of
from service.cli.project import SUITE_SUFFIXES, Project
from service.cli.revisions import changed_since, git
from service.settings import FILE_NAME

if TYPE_CHECKING:
    from service.cli.testing import Plan

WITHOUT_EFFECT = frozenset({"server", "storage", "retention", "recording", "registry"})  # sections of turnout.yaml
_ALL_MODELS = "*"
MOST_NAMED = 5


@dataclass(frozen=True)
class Affected:
    """What changed since the merge base with `against`, and what that can affect.

    `changed` are paths below the project; `suites` hold, by name, why each is gated. `untested` are prompts that changed,
    or include one that did, and that no suite tests, neither themselves nor by what includes them.
    """

    against: str
    commit: str
    changed: tuple[str, ...]
    suites: Mapping[str, tuple[str, ...]]
    prompts: tuple[str, ...]
    untested: tuple[str, ...]
    all_suites: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON of it."""
        lists = {"changed": list(self.changed), "prompts": list(self.prompts), "untested": list(self.untested)}
        reasons = {name: list(causes) for name, causes in self.suites.items()}
        return {"against": self.against, "commit": self.commit, **lists, "suites": reasons}

    @property
    def since(self) -> str:
        short = self.commit[:7]
        return self.against if self.commit.startswith(self.against) else f"{self.against} ({short})"

    def in_words(self) -> str:
        """What is gated and why, in a line."""
        if not self.suites:
            return nothing_in_words(self)
        named = [f"{name} ({_first(causes)})" for name, causes in self.suites.items()]
        head = (
            f"gated: {len(self.suites)} of {self.all_suites} suites, those that a change since {self.since} can affect"
        )
        return f"{head}: {_first(named)}"


def _first(texts: Sequence[str]) -> str:
    """The first of several, and how many more there are."""
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more


def nothing_in_words(found: Affected) -> str:
    """Why there is nothing to gate."""
    if not found.changed:
        return f"nothing to gate: no file of the project changed since {found.since}"
    files = f"{len(found.changed)} file" + ("s" if len(found.changed) > 1 else "")
    return f"nothing to gate: {files} changed since {found.since}, and none of the {found.all_suites} suites depends on them"


def base_of_change(project: Project, against: str | None) -> str:
    """The git revision to compare with: `against`, else what the CI job's change is compared with.

    Raises BadInput where neither names one.
    """
    if against:
        return against
    change = change_of()
    if change is None or not change.bases:
        told = "--affected compares with a git revision, and this is no CI job that names one"
        raise BadInput(f"{told}: add --against REF, such as origin/main", param="against")
    is_there = (base for base in change.bases if _knows(project, base))
    return next(is_there, change.bases[-1])


def _knows(project: Project, ref: str) -> bool:
    return git(project.root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", check=False) is not None


def find_affected(project: Project, plans: Sequence[Plan], against: str, model: str | None = None) -> Affected:
    """What changed since the merge base with `against` and can affect these suites, asked of `model` where it is given.

    Raises BadInput for a revision that git does not know, and for a suite that is none of the working tree.
    """
    by_name = [plan.suite for plan in plans if plan.data is None]
    if by_name:
        raise BadInput(f"--affected looks at files, and {by_name[0]!r} is a name of the registry: name its file")
    commit = commit_of(project, merge_base(project, against), against)
    tree = _Tree(project, commit)
    suites = {plan.suite: causes for plan in plans if (causes := tuple(tree.causes(plan, model)))}
    known = sorted({*project.tree.sources, *project.tree.broken} - {""})
    prompts = tuple(name for name in known if tree.has_changed(name))
    tested = tree.tested({name for plan in plans for name in (plan.prompt, *plan.rubric_names)})
    untested = tuple(name for name in prompts if name not in tested)
    return Affected(against, commit, tree.changed, suites, prompts, untested, len(plans))


@dataclass(frozen=True)
class _Tree:
    """The working tree beside a commit."""

    project: Project
    commit: str

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """Paths below the project that are not as the commit has them, new files among them; sorted."""
        return tuple(sorted(changed_since(self.project.root, self.commit)))

    @cached_property
    def _files(self) -> Mapping[Path, str]:
        return {(self.project.root / path).resolve(): path for path in self.changed}

    @cached_property
    def _gone(self) -> tuple[Path, ...]:
        """Files that are no more, prompts and suites aside: a suite may have read them by a pattern."""
        own = (*SUFFIXES, *SUITE_SUFFIXES)
        return tuple(file for file, path in self._files.items() if not path.endswith(own) and not file.exists())

    @cached_property
    def _changed_prompts(self) -> Mapping[str, str]:
        """The paths of prompts that changed, by name: also of those that are no more, or have faults now."""
        paths = (path for path in self.changed if path.startswith("prompts/") and path.endswith(SUFFIXES))
        return {path.removeprefix("prompts/").partition(".prompt.")[0].replace("/", "."): path for path in paths}

    @cached_property
    def _models(self) -> frozenset[str]:
        """Aliases that mean another model than at the commit, those that are gone among them; all where that cannot be said."""
        path = next((path for path in self.changed if path == FILE_NAME), None)
        if path is None:
            return frozenset()
        before, after = self._config_then(), _keys((self.project.root / path).read_text("utf-8"), path)
        if before is None or after is None or _others(before) != _others(after):
            return frozenset({_ALL_MODELS})
        old, new = (_part(data.get("models")) for data in (before, after))
        return frozenset(alias for alias in old.keys() | new.keys() if old.get(alias) != new.get(alias))

    def _config_then(self) -> Mapping[str, Any] | None:
        text = git(self.project.root, "show", f"{self.commit}:./{FILE_NAME}", check=False)
        return None if text is None else _keys(text, FILE_NAME)

    def causes(self, plan: Plan, model: str | None) -> Iterator[str]:
        """What changed of all that the verdict on a suite depends on, in words."""
        if plan.prompt_data is not None:  # another tool's file: what it reads is for its reader to know
            yield from self.changed
            return
        names = self._with_includes((plan.prompt, *plan.rubric_names))
        files = {self._files[path] for path in self._files_of(plan, names) if path in self._files}
        yield from sorted(files | {self._changed_prompts[name] for name in names if name in self._changed_prompts})
        folders = searched(plan.sources) if self._gone else set()
        yield from sorted(self._files[path] for path in self._gone if folders & {*path.parents})
        if _ALL_MODELS in self._models:
            yield FILE_NAME
        else:
            yield from (f"model {alias}" for alias in sorted(self._models & self._aliases(plan, names, model)))

    def _files_of(self, plan: Plan, names: Iterable[str]) -> set[Path]:
        sources = (self.project.tree.sources[name] for name in names if name in self.project.tree.sources)
        return {path.resolve() for path in (*plan.sources, *(Path(source.document.path) for source in sources))}

    def _aliases(self, plan: Plan, names: Iterable[str], model: str | None) -> set[str]:
        from suites.judging import Needs

        sources = self.project.tree.sources
        own = {sources[name].model for name in names if name in sources}
        asked = Needs.of_suite(plan.data).aliases if plan.data is not None else frozenset()
        return {*own, *asked, *plan.models, *((model,) if model else ())}

    def _with_includes(self, names: Iterable[str]) -> set[str]:
        """These prompts and whatever they include."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                source = self.project.tree.sources.get(name)
                waiting += source.includes if source is not None else ()
        return found

    def has_changed(self, name: str) -> bool:
        """Whether a prompt, or something that it includes, is not as it was."""
        names = self._with_includes([name])
        sources = (self.project.tree.sources[each] for each in names if each in self.project.tree.sources)
        is_other = any(each in self._changed_prompts for each in names)
        return is_other or any(Path(source.document.path).resolve() in self._files for source in sources)

    def tested(self, names: Iterable[str]) -> set[str]:
        """Prompts that a suite tests, or that what it tests includes."""
        return self._with_includes(names)


def _keys(text: str, path: str) -> Mapping[str, Any] | None:
    """The keys of a turnout.yaml; None where it has faults."""
    try:
        data = load_yaml(text, path, []).data
    except BadFile:
        return None
    return data if isinstance(data, dict) else None


def _others(data: Mapping[str, Any]) -> dict[str, Any]:
    """What may change a verdict beside models."""
    return {name: value for name, value in data.items() if name not in WITHOUT_EFFECT and name != "models"}


def _part(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
