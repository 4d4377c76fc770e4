"""Every fault of every file in one go: what one file gets wrong never hides what another does."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.errors import BadFile, BadInput, Fault, RenderError, TurnoutError, shown_faults
from prompts.formats.prompt_yml import PromptSource, readable_part, suite_part
from prompts.lint import lint_prompt
from prompts.prompt import Entry, MessageTemplate, PromptContent, compile_prompt
from prompts.registry import resolve
from prompts.template import includes, replace_includes
from prompts.variables import VariableCheck, checked_placeholder
from prompts.yaml_source import load_yaml
from service.cli.linting import Linter, file_secrets, suite_secrets
from service.suite_rules import fallback_faults, rule_faults
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

    @property
    def data(self) -> dict[str, Any]:
        """What `check --json` tells of it."""
        return check_data(self.faults, len(self.prompts), len(self.suites))


def check_data(faults: Sequence[Fault], prompts: int = 0, suites: int = 0) -> dict[str, Any]:
    """Faults as JSON, and of how many prompts and suites that could be read."""
    is_ok = not any(fault.level == "error" for fault in faults)
    return {"ok": is_ok, "prompts": prompts, "suites": suites, "faults": [asdict(fault) for fault in faults]}


def examine(project: Project, paths: list[Path]) -> Checked:
    """Read and lint all that `paths` name; prompts beside them are read for what is included, not for their faults."""
    files = project.prompt_files(paths)
    asked = project.read_prompts(files) if paths else project.tree
    tree = _beside(asked, project.tree) if paths else asked
    examined = _Examined(project, tree)
    examined.faults += [*asked.faults, *asked.secrets]
    for name in asked.sources:
        examined.prompt(name)
    for file in files if asked.broken else ():
        examined.part(file)
    for file in project.suite_files(paths):
        examined.suite(file)
    return Checked(asked.sources, examined.suites, shown_faults(examined.faults))


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


@dataclass(frozen=True)
class _Resolved:
    """A prompt with its includes but those that are `unread`, and what is wrong with them; no content where even that fails."""

    content: PromptContent | None
    unread: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


# the keys of a prompt that must have been read whole for a finding to be certain, by its rule
_NEEDED: Mapping[str, frozenset[str]] = {
    "unused-variable": frozenset({"messages"}),
    "empty-message": frozenset({"messages", "variables"}),
    "example": frozenset({"messages", "variables", "examples"}),
    "unknown-model": frozenset({"model"}),
}


@dataclass
class _Examined:
    """What has been found so far."""

    project: Project
    tree: Tree
    suites: list[ResolvedSuite] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._linter = Linter(self.project.settings)
        self._resolved: dict[str, _Resolved] = {}

    def prompt(self, name: str) -> None:
        """Resolve and lint one prompt."""
        source = self.tree.sources[name]
        self.faults += self._findings(source, self._with_includes(name))
        self._brought_suite(source)

    def part(self, file: Path) -> None:
        """Resolve and lint what can be read of a prompt with faults, so that those hide no others."""
        settings = self.project.settings
        try:
            name = self.project.prompt_name(file)
            if name not in self.tree.broken or not _is_within(file, settings.registry.max_prompt_bytes):
                return
            source, lost = readable_part(load_yaml(file.read_text("utf-8"), self.project.shown(file), []), name)
        except (BadInput, OSError, UnicodeDecodeError):
            return  # told with the file
        found = self._findings(source, self._resolve(source))
        self.faults += (fault for fault in found if not lost & _NEEDED.get(fault.rule, frozenset()))

    def _findings(self, source: PromptSource, resolved: _Resolved) -> Iterator[Fault]:
        """What is wrong with its includes and examples, and what is likely wrong with the rest."""
        yield from resolved.faults
        if resolved.content is None:
            return
        if not resolved.unread:  # an example gives what the includes use, too
            yield from _example_faults(source, resolved.content)
        yield from lint_prompt(source, resolved.content, resolved.unread)
        yield from self._linter.prompt(source, resolved.content)

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
        content = self._content(name)
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
        if found.is_whole:
            self.faults += fallback_faults(found.suite, source.model, settings, found.document)

    def _content(self, name: str) -> PromptContent | None:
        """The prompt with its includes; None where one of them cannot be read, which is told with the prompt."""
        resolved = self._with_includes(name) if name in self.tree.sources else _Resolved(None)
        return None if resolved.unread else resolved.content

    def _with_includes(self, name: str) -> _Resolved:
        """A prompt of the working tree that can be read, resolved once."""
        if name not in self._resolved:
            self._resolved[name] = self._resolve(self.tree.sources[name])
        return self._resolved[name]

    def _resolve(self, source: PromptSource) -> _Resolved:
        """Every include in place, or every fault of those that cannot be: `resolve` tells of one alone."""
        try:
            return self._resolve_without(source, {})
        except BadFile:
            refused = {name: why for name in source.includes if (why := self._refusal(source, name))}
        try:
            return self._resolve_without(source, refused)
        except BadFile as error:  # the file alone is fine: what is wrong came with an include
            return _Resolved(None, faults=tuple(replace(fault, rule="include") for fault in error.faults))

    def _refusal(self, source: PromptSource, name: str) -> str:
        """Why `source` cannot include another prompt; "" where it can, or where that is not there."""
        alone = (MessageTemplate(role="user", content=_include(name)),)
        try:
            self._resolve_without(_changed(source, messages=alone), {})
        except BadFile as error:
            return error.faults[0].message
        return ""

    def _resolve_without(self, source: PromptSource, refused: Mapping[str, str]) -> _Resolved:
        """`source` without the includes that were `refused` and those that are nowhere; raises BadFile as `resolve` does."""
        absent: dict[str, str] = {}

        def stand_in(included: str) -> PromptContent:
            absent[included] = "" if included in self.tree.broken else f"include {included!r}: no such prompt"
            return PromptContent(messages=(MessageTemplate(role="user", content=""),), model="none")

        messages = [_without(message, refused) for message in source.messages] if refused else source.messages
        bare = _changed(source, messages=tuple(messages), examples=())
        content = resolve(bare, self.tree.sources, stand_in)
        whole = content.model_copy(update={"examples": source.content.examples})
        unread = {**refused, **absent}
        return _Resolved(whole, tuple(unread), tuple(_include_faults(source, unread)))

    def _absent_prompt(self, found: ResolvedSuite) -> Iterator[Fault]:
        name = found.suite.prompt
        if name not in self.tree.broken:
            message = f"its prompt {name!r} is not below prompts/"
            fix = "name one that is, or run the suite against the registry by its name"
            yield found.document.fault(message, "prompt", fix=fix, level="warning", rule="unknown-prompt")

    def _given_faults(self, found: ResolvedSuite, source: PromptSource) -> Iterator[Fault]:
        """Every case gives the variables and the placeholders that its prompt needs, and no others."""
        content = self._content(source.name)
        if content is None:
            return
        checks = _checks(content)
        optional = {name: {"default": 0} if p.default is not None else {} for name, p in content.placeholders.items()}
        for case, place in zip(found.suite.tests, found.places, strict=True):
            yield from _given_fault("variable", content.variables, case.vars, place, source.name)
            yield from _given_fault("placeholder", optional, case.placeholders, place, source.name)
            yield from _message_faults(content, case.placeholders, place)
            yield from _value_faults(checks, case.vars, place)
        yield from _training_faults(found, content)

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
        message = f"its cases have more than {MAX_CASE_FAULTS:,} faults: those from there on are not looked for"
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


def _training_faults(found: ResolvedSuite, content: PromptContent) -> Iterator[Fault]:
    """What the report of a fine-tune would say of training examples that the prompt itself refuses, each message once."""
    given = found.suite.training.examples
    if not given:
        return
    from finetune.data import Example, malformed

    try:
        prompt = compile_prompt(content)
    except TurnoutError:
        return  # told with the prompt
    numbers: dict[str, list[int]] = {}
    for one in malformed([Example(example.vars, example.expected) for example in given], prompt):
        numbers.setdefault(one.message, []).append(one.index + 1)
    for message, those in numbers.items():
        more = f" and {len(those) - 1:,} more" if len(those) > 1 else ""
        told = f"training example {those[0]:,}{more}: {message}"
        fix = "mend the example, or take it out"
        yield found.document.fault(told, "training", "examples", fix=fix, level="warning", rule="training-example")


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


def _include_faults(source: PromptSource, reasons: Mapping[str, str]) -> Iterator[Fault]:
    """Each include that cannot be taken, at every message that has it; one without a reason is told with its own file."""
    for index, message in enumerate(source.messages):
        texts = message.texts if isinstance(message, MessageTemplate) else ()
        for name in dict.fromkeys(name for text in texts for name in includes(text)):
            if reasons.get(name):
                yield source.document.fault(
                    reasons[name], "messages", index, "content", fix="mend the include", rule="include"
                )


def _changed(source: PromptSource, **fields: Any) -> PromptSource:
    return replace(source, content=source.content.model_copy(update=fields))


def _without(message: Entry, names: Collection[str]) -> Entry:
    """A message without its includes of these prompts."""

    def kept(name: str) -> str:
        return "" if name in names else _include(name)

    return (
        message.with_texts(lambda text: replace_includes(text, kept))
        if isinstance(message, MessageTemplate)
        else message
    )


def _include(name: str) -> str:
    return f"{{% include {name!r} %}}"


def _is_within(file: Path, most_bytes: int) -> bool:
    return file.is_file() and file.stat().st_size <= most_bytes
