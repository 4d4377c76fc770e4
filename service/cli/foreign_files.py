"""Files of other tools as files of this project: found, read, fitted, checked, and only then written, all or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.imported import Foreign, LeftOut, Partial, fit_name, front_matter
from prompts.formats.prompt_yml import SUFFIX, PromptSource, load_prompt
from prompts.formats.reading import AUTO, AUTO_SUFFIXES, FORMATS, read
from prompts.formats.writing import prompt_text, suite_text
from prompts.prompt import MessageTemplate, PromptContent
from prompts.registry import resolve
from prompts.secrets import secret_faults
from prompts.yaml_source import load_yaml
from service.cli.foreign_runs import wanted
from service.cli.foreign_texts import beside, fitting
from service.cli.options import ForeignOptions
from service.cli.project import Project, read_text
from service.cli.rewriting import rewrite
from suites.case import Suite
from suites.files import SUFFIX as SUITE
from suites.foreign.converted import Converted, ForeignSuite, Wanted
from suites.foreign.openai_evals import convert_evals, is_registry
from suites.foreign.promptfoo import convert, is_config
from suites.foreign.providers import EMBEDDER, GRADER

EVALS = "openai-evals"
MOST_INLINE = 500  # cases in a suite's own file
_REGISTRY = (".yaml", ".yml")
_SKIPPED = {"node_modules", ".git", ".venv", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Planned:
    """One prompt file that is to be written: `state` is new, replaced, or same where nothing changes."""

    name: str
    path: Path
    text: str
    source: str
    state: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would write, what it leaves out, and why it cannot be done where there are faults."""

    files: tuple[Planned, ...]
    left_out: tuple[LeftOut, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Import:
    """One import: the format, where its prompts go, and what becomes of models and of files that are there already."""

    project: Project
    format: str
    into: Path
    model: str | None = None
    force: bool = False
    providers: tuple[str, ...] = ()  # PROVIDER=ALIAS, for files that name their models as another tool does

    @property
    def prefix(self) -> str:
        """What names of prompts begin with: the folders between `prompts/` and where the files go. Raises BadInput."""
        folder, prompts = self.into.resolve(), (self.project.root / "prompts").resolve()
        below = folder.relative_to(prompts).as_posix() if folder.is_relative_to(prompts) else "."
        name = "" if below == "." else below.replace("/", ".")
        if name != fit_name(name):
            raise BadInput(
                f"--into {self.into}: {name!r} is no name: lower-case letters, digits, _ and -", param="--into"
            )
        return f"{name}." if name else ""

    def plan(self, paths: Iterable[Path]) -> Plan:
        """Read all that `paths` name. Raises BadInput where one is not there or the model is unknown."""
        if self.model is not None and self.model not in self.project.settings.models:
            known = ", ".join(sorted(self.project.settings.models))
            raise BadInput(f"--model {self.model}: turnout.yaml has {known}; add it under `models`", param="--model")
        return _Planning(self).plan(list(_found(self.format, paths)))


def without_broken(plan: Plan) -> Plan:
    """`plan` with only the files that none of its faults is about."""
    broken = {fault.path for fault in plan.faults}
    return replace(plan, files=tuple(planned for planned in plan.files if planned.source not in broken))


def write(plan: Plan) -> None:
    """Write the files of a plan without faults; each is there whole or not at all."""
    for planned in plan.files:
        if planned.state != "same":
            rewrite(planned.path, planned.text)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, and the folder that was named: the file itself, or one above it."""

    file: Path
    folder: Path

    @property
    def stem(self) -> str:
        """The path below the folder without the format's suffix."""
        below = self.file.relative_to(self.folder).as_posix()
        suffix = next(
            (end for end in (".prompt.yml", ".prompt.yaml") if below.endswith(end)), PurePosixPath(below).suffix
        )
        return below.removesuffix(suffix)


def _found(format_name: str, paths: Iterable[Path]) -> Iterator[_Found]:
    suffixes = (
        AUTO_SUFFIXES if format_name == AUTO else _REGISTRY if format_name == EVALS else FORMATS[format_name].suffixes
    )
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: there is no such file or folder", param="PATH")
        if not path.is_dir():
            yield _Found(path, path.parent)
            continue
        below = sorted(file for file in path.rglob("*") if file.name.lower().endswith(suffixes) and file.is_file())
        kept = [file for file in below if not _SKIPPED & set(file.relative_to(path).parts)]
        kept = [file for file in kept if file.name.startswith("promptfooconfig")] or kept  # it names its prompts itself
        if not kept:
            raise BadInput(f"{path}: no file ends in {' or '.join(suffixes)}", param="PATH")
        yield from (_Found(file, path) for file in kept)


@dataclass
class _Planning:
    """The work of one plan, and what was found on the way."""

    asked: Import
    files: dict[str, Planned] = field(default_factory=dict)
    sources: dict[str, PromptSource] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def plan(self, found: list[_Found]) -> Plan:
        for each in found:
            try:
                self._file(each, found)
            except BadFile as error:
                self.faults += error.faults
        self._check_includes()
        files = tuple(self.files[name] for name in sorted(self.files))
        return Plan(files, tuple(dict.fromkeys(self.left_out)), tuple(sorted(set(self.faults))))

    def _file(self, found: _Found, others: list[_Found]) -> None:
        shown = self.asked.project.shown(found.file)
        text = read_text(found.file, shown)
        convert = self._converter(text, shown)
        folders = self._folders(found, is_registry=convert is convert_evals) if convert else (found.folder.resolve(),)
        foreign = Foreign(
            text, shown, self._name(found, shown), self.asked.prefix, self._partials(found, others),
            beside(found.file, folders), fitting(found.file, folders),
        )  # fmt: skip
        if convert is not None:
            self._suites(convert(foreign, wanted(self.asked.project, found.file, self._options)), text, shown)
            return
        imported = read(self.asked.format, foreign)
        self.left_out += imported.left_out
        for name, keys in imported.prompts.items():
            self._prompt(name, self._with_model(keys, name, shown), text, shown)

    @property
    def _options(self) -> ForeignOptions:
        return ForeignOptions(self.asked.providers)

    def _folders(self, found: _Found, *, is_registry: bool) -> tuple[Path, ...]:
        """Where files beside a configuration may lie: below what was named, and in the registry or project that it is of."""
        root = self.asked.project.root.resolve()
        inside = (root,) if found.file.resolve().is_relative_to(root) else ()
        registry = (found.file.resolve().parent.parent,) if is_registry else ()
        return (found.folder.resolve(), *inside, *registry)

    def _converter(self, text: str, shown: str) -> Callable[[Foreign, Wanted], Converted] | None:
        """What makes suites of a file, where it holds any."""
        if self.asked.format == EVALS or (self.asked.format == AUTO and is_registry(text, shown)):
            return convert_evals
        return convert if self.asked.format in ("promptfoo", AUTO) and is_config(text, shown) else None

    def _suites(self, converted: Converted, original: str, shown: str) -> None:
        """Plan the prompts and suites of a file that holds both."""
        self.left_out += converted.left_out
        for provider in converted.missing:
            if provider in (GRADER, EMBEDDER):
                why = f"no model of turnout.yaml judges: add {provider!r} there, or give --provider {provider}=ALIAS"
                self.left_out.append(LeftOut(shown, provider, why))
        for each in converted.suites:
            self._prompt(each.name, self._with_model(dict(each.prompt), each.name, shown), original, shown)
            self._suite(each, shown)
            if len(each.models) > 1:
                others = " ".join(f"--model {alias}" for alias in each.models)
                why = f"a prompt names one model: compare by `turnout run suites/{each.name.replace('.', '/')}{SUITE} {others}`"
                lacking = [alias for alias in each.models if alias not in self.asked.project.settings.models]
                if lacking:
                    why += f", once turnout.yaml has {', '.join(lacking)}"
                self.left_out.append(LeftOut(shown, f"{len(each.models) - 1} more providers", why))

    def _suite(self, each: ForeignSuite, shown: str) -> None:
        """Plan a suite's file, and where it has many cases one for these."""
        path = self.asked.project.root / "suites" / each.name.replace(".", "/")
        data, cases = dict(each.suite), list(each.suite["tests"])
        if len(cases) > MOST_INLINE:
            data["tests"] = [f"file://{path.name}.cases.jsonl"]
            lines = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
            self._plan(f"{each.name} (cases)", path.with_name(f"{path.name}.cases.jsonl"), lines, shown)
        try:
            Suite.from_data(each.suite, shown)
        except BadFile as error:
            self.faults += [Fault(shown, 0, f"{each.name}: {fault.message}", fault.fix) for fault in error.faults]
        self._plan(f"{each.name} (suite)", path.with_name(path.name + SUITE), suite_text(data), shown)

    def _plan(self, name: str, path: Path, text: str, shown: str) -> None:
        self.files[name] = Planned(name, path, text, shown, self._state(path, text, shown))

    def _name(self, found: _Found, shown: str) -> str:
        name = self.asked.prefix + (fit_name(found.stem) or "prompt")
        if name != self.asked.prefix + found.stem.replace("/", "."):
            self.left_out.append(LeftOut(shown, found.stem, f"its prompt is called {name!r}, by the grammar of names"))
        return name

    def _partials(self, found: _Found, others: list[_Found]) -> dict[str, Partial]:
        """Dotprompt's partials, by their path below the folder and, beside the file, by their own name."""
        result: dict[str, Partial] = {}
        for other in [*_neighbours(found), *others]:
            if other.file.suffix == ".prompt" and other.file.name.startswith("_"):
                folder, _, own = other.stem.rpartition("/")
                called = f"{folder}/{own[1:]}" if folder else own[1:]
                source = other.file.read_text("utf-8", "replace")
                partial = Partial(_body(source), self.asked.prefix + fit_name(called))
                result[called] = partial
                if other.file.parent == found.file.parent:
                    result[own[1:]] = partial
        return result

    def _with_model(self, keys: dict[str, Any], name: str, shown: str) -> dict[str, Any]:
        """`keys` with a model that turnout.yaml has, where one is known; what changed is said."""
        models, named = self.asked.project.settings.models, keys.get("model")
        alias = _alias(str(named), models) if named else None
        if alias is None and self.asked.model is not None:
            alias = self.asked.model
        if alias is None and named:
            why = "turnout.yaml has no such model: add it there, or give --model ALIAS"
            self.left_out.append(LeftOut(f"{shown}: model", str(named), why))
            return keys
        if alias is None:
            self.faults.append(Fault(shown, 0, f"{name}: no model is named", "give --model ALIAS"))
            return {**keys, "model": "none"}
        if not named:  # once, however many there are
            self.left_out.append(LeftOut("model", "none", f"prompts that name no model have {alias!r}, by --model"))
        elif alias != named:
            self.left_out.append(LeftOut(f"{shown}: model", str(named), f"the model is {alias!r} here"))
        return {**keys, "model": alias}

    def _prompt(self, name: str, keys: dict[str, Any], original: str, shown: str) -> None:
        path = self.asked.into / (name.removeprefix(self.asked.prefix).replace(".", "/") + SUFFIX)
        if name in self.files:
            other = self.files[name].source
            self.faults.append(
                Fault(shown, 0, f"{other} makes the prompt {name!r} as well", "rename one, or import it apart")
            )
            return
        text = original if _is_same(original, keys) else prompt_text(keys)
        self._check(name, text, shown, str(path))
        self.files[name] = Planned(name, path, text, shown, self._state(path, text, shown))

    def _state(self, path: Path, text: str, shown: str) -> str:
        if not path.exists():
            return "new"
        if path.is_file() and path.read_bytes() == text.encode("utf-8"):
            return "same"
        if not self.asked.force:
            there = self.asked.project.shown(path)
            self.faults.append(
                Fault(shown, 0, f"{there} is there already", "give --force to write over it, or --into FOLDER")
            )
        return "replaced"

    def _check(self, name: str, text: str, shown: str, path: str) -> None:
        """What `turnout check` would say of the file that is to be written, told with the file that it comes from."""
        faults = [fault for fault in secret_faults(text, path) if fault.level == "error"]
        try:
            self.sources[name] = load_prompt(text, path, name)
        except BadFile as error:
            faults += error.faults
        self.faults += [Fault(shown, 0, f"{name}: {fault.message}", fault.fix) for fault in faults]

    def _check_includes(self) -> None:
        siblings = {**self.asked.project.tree.sources, **self.sources}
        for name, source in self.sources.items():
            try:
                resolve(source, siblings, lambda missing, name=name: self._stand_in(missing, name))  # type: ignore[misc]
            except BadFile as error:
                shown = self.files[name].source
                self.faults += [Fault(shown, 0, f"{name}: {fault.message}", fault.fix) for fault in error.faults]

    def _stand_in(self, missing: str, name: str) -> PromptContent:
        why = "no prompt of this name is below prompts/: import or write it"
        self.left_out.append(LeftOut(self.files[name].source, f"include {missing}", why))
        return PromptContent(messages=(MessageTemplate(role="user", content=""),), model="none")


def _alias(named: str, models: Mapping[str, Any]) -> str | None:
    """The alias for a model's name elsewhere: the same, its last part, or the one that stands for it upstream."""
    last = named.rpartition("/")[2].lower()
    upstream = {getattr(spec, "model", None): alias for alias, spec in models.items()}
    return (
        next((alias for alias in (named, last) if alias in models), None) or upstream.get(named) or upstream.get(last)
    )


def _is_same(text: str, keys: dict[str, Any]) -> bool:
    """Whether a file holds exactly these keys already: then its author's layout and comments stay."""
    try:
        return bool(load_yaml(text, "").data == keys)
    except BadFile:
        return False


def _body(source: str) -> str:
    """A partial's template: its source without front matter."""
    try:
        document, body, _ = front_matter(Foreign(source, "", ""))
    except BadFile:
        return source
    return body.strip() if document.data else source


def _neighbours(found: _Found) -> list[_Found]:
    """The partials beside a file that was named by itself."""
    return [_Found(file, found.folder) for file in sorted(found.file.parent.glob("_*.prompt"))]
