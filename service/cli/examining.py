"""Every fault of every file in one go: what one file gets wrong never hides what another does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.errors import BadFile, BadInput, Fault, RenderError
from prompts.formats.prompt_yml import PromptSource, suite_part
from prompts.lint import lint_prompt
from prompts.prompt import MessageTemplate, PromptContent, compile_prompt
from prompts.registry import resolve
from prompts.template import includes
from prompts.variables import VariableCheck, checked_placeholder
from prompts.yaml_source import load_yaml
from service.cli.linting import Linter, file_secrets, suite_secrets
from service.suite_rules import rule_faults
from suites.case import Place
from suites.checks import undecided
from suites.files import ResolvedSuite, brought_suite, read_suite

if TYPE_CHECKING:
    from service.cli.project import Project

MAX_CASE_FAULTS = 50_000  # of one suite's cases, which may be millions: all of these take some 30 MB
_NO_MATRIX = "a list that is no matrix is one value: leave `disableVarExpansion` out, or mend its items"


@dataclass(frozen=True)
class Tree:
    """Prompts as they were read: the good ones, the names of those that have faults, all faults, and secrets in them."""

    sources: dict[str, PromptSource]
    broken: frozenset[str]
    faults: tuple[Fault, ...] = ()
    secrets: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Checked:
    """What a check found: what can be read, and every fault of every file, sorted by place."""

    prompts: dict[str, PromptSource]
    suites: list[ResolvedSuite]
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.level == "error")


def examine(project: Project, paths: list[Path]) -> Checked:
    """Read and lint all that `paths` name; prompts beside them are read for what is included, not for their faults."""
    asked = project.read_prompts(project.prompt_files(paths)) if paths else project.tree
    tree = _beside(asked, project.tree) if paths else asked
    examined = _Examined(project, tree)
    examined.faults += [*asked.faults, *asked.secrets]
    for name in asked.sources:
        examined.prompt(name)
    for file in project.suite_files(paths):
        examined.suite(file)
    return Checked(asked.sources, examined.suites, tuple(sorted(set(examined.faults))))


def _beside(asked: Tree, others: Tree) -> Tree:
    return Tree({**others.sources, **asked.sources}, others.broken | asked.broken)


def faults_of_suite(text: str, path: str, name: str) -> tuple[Fault, ...]:
    """What is wrong with the suite that a prompt file brings, where the file has faults besides."""
    try:
        source = suite_part(load_yaml(text, path, []), name)
        if source is not None:
            brought_suite(source)
    except BadFile as error:
        return error.faults
    return ()


@dataclass
class _Examined:
    """What has been found so far."""

    project: Project
    tree: Tree
    suites: list[ResolvedSuite] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._linter = Linter(self.project.settings)
        self._contents: dict[str, PromptContent | None] = {}

    def prompt(self, name: str) -> None:
        """Resolve and lint one prompt."""
        source = self.tree.sources[name]
        self.faults += _missing_includes(source, self.tree)
        try:
            content = self._content(name)
            if content is not None:
                self.faults += _example_faults(source, content)
                self.faults += [*lint_prompt(source, content), *self._linter.prompt(source, content)]
        except BadFile as error:  # the file alone is fine: what is wrong came with an include
            self.faults += (replace(fault, rule="include") for fault in error.faults)
        self._brought_suite(source)

    def _brought_suite(self, source: PromptSource) -> None:
        """The suite that a prompt file brings with it, as GitHub's do."""
        try:
            found, left_out = brought_suite(source)
        except BadFile as error:
            self.faults += error.faults
            return
        self.faults += left_out
        if found is not None:
            self._hold(found)

    def suite(self, file: Path) -> None:
        """Read one suite, lint it and hold it against its prompt."""
        shown = self.project.shown(file)
        found: ResolvedSuite | None = None
        try:
            found, faults = read_suite(file, self.project.root, self._declared)
        except BadFile as error:
            faults = error.faults
        except BadInput as error:
            faults = (Fault(shown, 0, str(error), "rename the file", rule="name"),)
        self.faults += faults
        if found is None or not found.is_whole:
            self.faults += file_secrets(file, shown, self.project.root)
        else:
            self.faults += suite_secrets(found, self.project.root)
        if found is not None:
            self._hold(found)

    def _declared(self, name: str) -> Mapping[str, Mapping[str, Any]] | None:
        """The variables of a prompt of the working tree, as its suites are read by; None where it is not known."""
        if name not in self.tree.sources:
            return None
        try:
            content = self._content(name)
        except BadFile:
            return None  # told with the prompt
        return content.variables if content is not None else None

    def _hold(self, found: ResolvedSuite) -> None:
        """Hold a suite against its prompt, and against the others; of one with faults, what is left of it."""
        twin = next((other for other in self.suites if other.name == found.name), None)
        if twin is not None:
            fix = "rename one of them: `testData` makes a suite of its prompt's name"
            message = f"two suites are called {found.name!r}; the other is {self.project.shown(twin.path)}"
            self.faults.append(found.document.fault(message, fix=fix, rule="name"))
        settings = self.project.settings
        self.faults += rule_faults(found.suite, settings, found.document, found.places, is_whole=found.is_whole)
        if found.is_whole:
            self.suites.append(found)
            self.faults += _first(undecided(found.suite, found.places), found)
        elif not found.suite.prompt:
            return  # its name is a fault
        source = self.tree.sources.get(found.suite.prompt)
        if source is None:
            self.faults += self._absent_prompt(found)
            return
        self.faults += _first(self._given_faults(found, source), found)
        self.faults += self._price_faults(found, source)

    def _content(self, name: str) -> PromptContent | None:
        """The prompt with its includes; None where one of them cannot be read. Raises BadFile as `resolve` does."""
        if name not in self._contents:
            absent: list[str] = []

            def stand_in(included: str) -> PromptContent:
                absent.append(included)
                return PromptContent(messages=(MessageTemplate(role="user", content=""),), model="none")

            self._contents[name] = None
            source = self.tree.sources[name]
            bare = replace(source, content=source.content.model_copy(update={"examples": ()}))
            content = resolve(bare, self.tree.sources, stand_in)
            whole = content.model_copy(update={"examples": source.content.examples})
            self._contents[name] = None if absent else whole
        return self._contents[name]

    def _absent_prompt(self, found: ResolvedSuite) -> Iterator[Fault]:
        name = found.suite.prompt
        if name not in self.tree.broken:
            message = f"its prompt {name!r} is not below prompts/"
            fix = "name one that is, or run the suite against the registry by its name"
            yield found.document.fault(message, "prompt", fix=fix, level="warning", rule="unknown-prompt")

    def _given_faults(self, found: ResolvedSuite, source: PromptSource) -> Iterator[Fault]:
        """Every case gives the variables and the placeholders that its prompt needs, and no others."""
        try:
            content = self._content(source.name)
        except BadFile:
            return  # told with the prompt
        if content is None:
            return
        checks = _checks(content)
        optional = {name: {"default": 0} if p.default is not None else {} for name, p in content.placeholders.items()}
        for case, place in zip(found.suite.tests, found.places, strict=True):
            yield from _given_fault("variable", content.variables, case.vars, place, source.name)
            yield from _given_fault("placeholder", optional, case.placeholders, place, source.name)
            yield from _message_faults(content, case.placeholders, place)
            yield from _value_faults(checks, case.vars, place)

    def _price_faults(self, found: ResolvedSuite, source: PromptSource) -> Iterator[Fault]:
        """Bounds on costs where nobody knows what a model costs that will be asked: the prompt's, or those asked in its place."""
        for alias in self.project.asked or (source.model,):
            spec = self.project.settings.models.get(alias)
            try:
                if spec is not None:
                    found.check_prices(alias, spec.price is not None)
            except BadFile as error:
                yield from error.faults


def _given_fault(
    kind: str, declared: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], place: Place, prompt: str
) -> Iterator[Fault]:
    if given.keys() == declared.keys():
        return
    needed = {name for name, schema in declared.items() if "default" not in schema}
    fix = f"{prompt} declares {', '.join(sorted(declared)) or 'none'}"
    for what, names in (("missing", needed - given.keys()), ("unexpected", given.keys() - declared.keys())):
        if names:
            message = f"{what} {kind} {', '.join(sorted(names))}"
            yield Fault(place.path, place.line, message, fix, rule=f"{what}-{kind}")


def _first(faults: Iterator[Fault], found: ResolvedSuite) -> Iterator[Fault]:
    """The faults of a suite's cases, as many as there is room for; that there are more is one, too."""
    yield from islice(faults, MAX_CASE_FAULTS)
    if next(faults, None) is not None:
        message = f"more is wrong with its cases: the first {MAX_CASE_FAULTS:,} faults are told"
        yield found.document.fault(message, "tests", fix="mend these, and check again", rule="cases")


def _checks(content: PromptContent) -> dict[str, VariableCheck]:
    """The checks of the variables whose schemas are good: what is wrong with one is told with the prompt."""
    checks = {}
    for name, schema in content.variables.items():
        with contextlib.suppress(BadInput):
            checks[name] = VariableCheck(name, schema)
    return checks


def _value_faults(checks: Mapping[str, VariableCheck], given: Mapping[str, Any], place: Place) -> Iterator[Fault]:
    """Each variable that a case gives a value that its prompt's schema refuses, as a run would."""
    for name, value in given.items():
        check = checks.get(name)
        if check is None:
            continue
        try:
            check(value)
        except BadInput as error:
            fix = (
                _NO_MATRIX if isinstance(value, list) else "give a value that the prompt's schema allows, or change it"
            )
            yield Fault(place.path, place.line, str(error), fix, rule="variable")


def _message_faults(content: PromptContent, given: Mapping[str, Any], place: Place) -> Iterator[Fault]:
    """What is wrong with the messages that a case gives for each of its placeholders."""
    for name in sorted(given.keys() & content.placeholders.keys()):
        try:
            checked_placeholder(name, content.placeholders[name], given)
        except BadInput as error:
            yield Fault(place.path, place.line, str(error), "mend the message", rule="placeholder")


def _example_faults(source: PromptSource, content: PromptContent) -> Iterator[Fault]:
    """What is wrong with each few-shot example, where `resolve` stops at the first."""
    for index, example in enumerate(content.examples):
        try:
            compile_prompt(content.model_copy(update={"examples": (example,)}), digest="")
        except RenderError as error:
            message = str(error).replace("examples.0", f"examples.{index}", 1)
            yield source.document.fault(message, "examples", index, fix="mend the example", rule="example")
            if error.param == "examples":
                return  # there is nothing that any of them could fill


def _missing_includes(source: PromptSource, tree: Tree) -> Iterator[Fault]:
    """Every include of a prompt that is nowhere, each at its message."""
    for index, message in enumerate(source.messages):
        texts = message.texts if isinstance(message, MessageTemplate) else ()
        for name in dict.fromkeys(name for text in texts for name in includes(text)):
            if name not in tree.sources and name not in tree.broken:
                reason = f"include {name!r}: no such prompt"
                yield source.document.fault(
                    reason, "messages", index, "content", fix="mend the include", rule="include"
                )
