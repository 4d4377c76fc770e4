"""A `promptfooconfig.yaml` as prompts and suites: prompts × providers × tests, as promptfoo 0.121 runs them.

Each prompt is tested by a suite of its own name. Providers are models: those with the same settings are asked the same prompt,
those with others one of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.imported import Foreign, LeftOut, Notes, fit_name, free_name, shortened
from prompts.formats.nunjucks import with_environment
from prompts.formats.promptfoo_prompts import ConfiguredPrompts, RawPrompt, model_settings, prompt_keys
from prompts.template import Template
from prompts.yaml_source import load_yaml
from suites.assertions.judged import NEED_CONTEXT
from suites.foreign.converted import Converted, ForeignSuite, Wanted
from suites.foreign.promptfoo_asserts import NotHere, kinds_of
from suites.foreign.promptfoo_cases import Group, cases_of
from suites.foreign.promptfoo_tests import Files, read_tests
from suites.foreign.providers import NONE, Aliases, provider_entries
from suites.values import FILE, walk_texts

_READ = {"prompts", "providers", "targets", "tests", "defaultTest", "scenarios", "description", "env", "evaluateOptions",
         "assertionTemplates", "$schema"}  # fmt: skip
_TOLD = {
    "redteam": "attacks are made by a service of theirs; the tests beside it are kept",
    "extensions": "hooks are code: what they change is not changed here",
    "nunjucksFilters": "filters are code: write the values that they make",
    "derivedMetrics": "write a `metric` for each assertion, and thresholds for these",
    "tracing": "a trace is no part of an answer",
    "outputPath": "give --json, --junit or --markdown",
}
_TAG = re.compile(r"\{%.*?%\}", re.S)
_WORD = re.compile(r"\w+")
_UNASKED = ("prompts.", "tests.", "scenarios.")  # places of what is a part of the run
_CONFIG_KEYS = {"prompts", "providers", "targets", "tests", "redteam", "scenarios"}


@dataclass(frozen=True, slots=True)
class _Target:
    """A provider that is asked: its alias, and what its entry says of settings, transform and prompts."""

    provider: str
    label: str
    alias: str
    settings: Mapping[str, Any]
    transform: str | None
    prompts: tuple[str, ...]

    @property
    def shared(self) -> str:
        """What is the same for two providers that can be asked the same prompt."""
        return repr((self.settings, self.transform, self.prompts))


def is_config(text: str, path: str) -> bool:
    """Whether a file is a configuration of promptfoo: by its name, or by its keys."""
    name = PurePosixPath(path).name.lower()
    if not name.endswith((".yaml", ".yml", ".json")) or name.endswith((".suite.yml", ".suite.yaml", ".prompt.yml")):
        return False
    if name.startswith("promptfooconfig"):
        return True
    try:
        data = load_yaml(text, path).data
    except BadFile:
        return False
    return isinstance(data, dict) and "prompts" in data and len(_CONFIG_KEYS & data.keys()) > 1 and "prompt" not in data


def convert(foreign: Foreign, wanted: Wanted) -> Converted:
    """Everything that a configuration runs; raises BadFile where it is none, or has nothing that can be run."""
    return _Conversion(foreign, wanted).done()


class _Conversion:
    """The work on one configuration, and what was found on the way."""

    def __init__(self, foreign: Foreign, wanted: Wanted) -> None:
        self._foreign = foreign
        self._wanted = wanted
        self._notes = Notes(foreign.path)
        self._aside: list[LeftOut] = []
        self._unread: list[str] = []  # prompts that no suite tests
        self._files = Files(foreign, self._notes, wanted.find_script)
        self._aliases = Aliases(wanted.known, wanted.given)
        self._config = self._read()

    def done(self) -> Converted:
        self._note_keys()
        prompts = self._prompts()
        groups = self._groups()
        tests = list(enumerate(read_tests(self._config, self._files, self._notes)))
        suites: dict[str, ForeignSuite] = {}
        for raw in prompts:
            for group in groups:
                if not _is_for(raw, group[0].prompts):
                    continue
                name = free_name(self._name(raw, group, len(groups)), suites)
                made = self._suite(name, raw, group, tests, can_compare=len(prompts) == len(groups) == 1)
                suites |= {name: made} if made else {}
        if not suites:
            why = "; ".join(dict.fromkeys(f"{each.what}: {each.why}" for each in self._notes.found)) or "it names none"
            raise BadFile(
                [Fault(self._foreign.path, 0, f"nothing of it can be run: {why}"[:1000], "write prompts as text")]
            )
        found = self._notes.found
        unasked = sum(note.place.partition(": ")[2].startswith(_UNASKED) for note in found) + len(self._unread)
        return Converted(tuple(suites.values()), (*found, *self._aside), tuple(self._aliases.missing), unasked)

    def _read(self) -> dict[str, Any]:
        """The configuration with its environment put in and its references followed."""
        document = load_yaml(self._foreign.text, self._foreign.path)
        if not isinstance(document.data, dict):
            raise BadFile([document.fault("a configuration is keys and values", fix="write `prompts:` and `tests:`")])
        own = document.data.get("env") or {}
        environment = {**self._wanted.environment, **{str(name): str(value) for name, value in own.items()}}
        found = _referred(with_environment(document.data, environment), document.data)
        return found if isinstance(found, dict) else {}

    def _note_keys(self) -> None:
        for key in (key for key in self._config if key not in _READ):
            self._notes.leave(key, f"`{key}`", _TOLD.get(key, "nothing here holds this"))

    # ------------------------------------------------------------------------ prompts and providers

    def _prompts(self) -> list[RawPrompt]:
        given = self._config.get("prompts") or ["{{prompt}}"]
        return ConfiguredPrompts({"prompts": given}, self._foreign, self._notes).raws()

    def _groups(self) -> list[list[_Target]]:
        """Providers that can be asked the same prompts, together; each by itself where that is wanted."""
        found: dict[str, list[_Target]] = {}
        for index, target in enumerate(self._targets()):
            found.setdefault(f"{index}" if self._wanted.apart else target.shared, []).append(target)
        return list(found.values())

    def _targets(self) -> Iterator[_Target]:
        given = self._config.get("providers", self._config.get("targets"))
        entries = provider_entries(given) if given else [("", {})]
        for index, (provider, keys) in enumerate(entries):
            at = f"providers.{index}"
            if provider.startswith(FILE) and provider.endswith((".yaml", ".yml", ".json")):
                found = self._files.data(provider)
                entries += provider_entries(found) if found is not None else []
                if found is None:
                    self._notes.leave(at, provider, "there is no such file below the configuration's folder")
                continue
            if not provider:
                self._notes.leave(at, shortened(keys.get("entry", "no provider")), "a provider is named by its id")
                continue
            label = str(keys.get("label") or "")
            alias = self._aliases.of(provider, label)
            if alias == NONE:
                self._notes.leave(at, f"provider {provider}", f"told by --provider '{provider}={NONE}'")
                continue
            yield _Target(
                provider, label, alias, self._settings(keys, at), keys.get("transform"), _texts(keys, "prompts")
            )

    def _settings(self, keys: Mapping[str, Any], at: str) -> dict[str, Any]:
        config = keys.get("config")
        own = {
            key: value for key, value in (config if isinstance(config, Mapping) else {}).items() if value is not None
        }
        for key in [key for key, value in own.items() if isinstance(value, str) and value.startswith(FILE)]:
            own[key] = self._files.data(own[key]) or own[key]
        found = Notes(self._foreign.path)
        settings = model_settings(own, found, f"{at}.config.")
        for note in found.found:  # counted by what they are called, not by what they hold
            key = note.place.rpartition("config.")[2]
            self._notes.leave(f"{at}.config.{key}", f"provider setting {key}", note.why)
        return {key: value for key, value in settings.items() if value}

    def _name(self, raw: RawPrompt, group: list[_Target], groups: int) -> str:
        if groups == 1:
            return raw.name
        fitted = fit_name(group[0].label or group[0].alias).replace(".", "-")
        return f"{raw.name}-{fitted}" if fitted else raw.name

    # ------------------------------------------------------------------------ suites

    def _suite(
        self, name: str, raw: RawPrompt, targets: list[_Target], tests: list[tuple[int, Any]], *, can_compare: bool
    ) -> ForeignSuite | None:
        try:
            keys = prompt_keys(raw, targets[0].settings, self._notes)
        except BadFile as error:
            self._unread.append(name)
            for fault in error.faults:
                self._notes.leave(name, f"prompt {raw.label or raw.name}", fault.message)
            return None
        group = self._group(keys, targets, tests, can_compare=can_compare)
        mine = [
            (number, test) for number, test in tests if _is_for(raw, _texts(test, "prompts")) and _asks(test, targets)
        ]
        made = cases_of(mine, group, self._files, self._aliases, lambda number, why: self._set_aside(name, number, why))
        if not made.rows:
            self._notes.leave(name, f"prompt {raw.label or raw.name}", "no test is for it")
            return None
        prompt = {**keys, "model": group.models[0], "variables": made.variables}
        if not made.variables:
            del prompt["variables"]
        suite: dict[str, Any] = {"prompt": name, "thresholds": {"pass_rate": 1.0}, "tests": list(made.rows)}
        repeat = (self._config.get("evaluateOptions") or {}).get("repeat")
        if isinstance(repeat, int) and 1 < repeat <= 100:
            suite["repeat"] = repeat
        if isinstance(self._config.get("description"), str):
            suite["description"] = self._config["description"]
        return ForeignSuite(name, prompt, suite, group.models, made.order)

    def _group(
        self, keys: Mapping[str, Any], targets: list[_Target], tests: list[tuple[int, Any]], *, can_compare: bool
    ) -> Group:
        texts = [text for _, text in walk_texts(keys["messages"])]
        names = frozenset(name for text in texts for name in Template(text).names)
        tags = {word for text in texts for tag in _TAG.findall(text) for word in _WORD.findall(tag)}
        models = tuple(dict.fromkeys(target.alias for target in targets))
        every = [test for _, test in tests]
        is_compared = can_compare and len(models) > 1
        return Group(names, names & tags, models, targets[0].transform, _keeps_all(every), is_compared)

    def _set_aside(self, name: str, number: int, why: NotHere) -> None:
        self._aside.append(LeftOut(f"{self._foreign.path}: {name}, test {number + 1}", why.what, why.why))


def _keeps_all(tests: list[dict[str, Any]]) -> bool:
    """Whether something may look at variables that the prompt does not use: a script, a rubric, a type that needs some."""
    for test in tests:
        texts = (text for _, text in walk_texts([test.get("assert"), test.get("options")]))
        if kinds_of(test.get("assert") or []) & NEED_CONTEXT or any("vars" in text for text in texts):
            return True
        if "rubricPrompt" in (test.get("options") or {}) or "rubricPrompt" in repr(test.get("assert")):
            return True
    return False


def _texts(keys: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = keys.get(name) or ()
    return tuple(map(str, given if isinstance(given, list) else [given])) if given else ()


def _is_for(raw: RawPrompt, wanted: tuple[str, ...]) -> bool:
    """Whether a prompt is among those that a provider or a test names by label, or by the start of it."""
    label = raw.label or raw.name
    return not wanted or any(label == name or raw.text == name or label.startswith(f"{name}:") for name in wanted)


def _asks(test: Mapping[str, Any], targets: list[_Target]) -> bool:
    """Whether one of the providers is among those that a test names."""
    wanted = _texts(test, "providers")
    return not wanted or any(name in (target.provider, target.label) for target in targets for name in wanted)


def _referred(data: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """`data` with what each `$ref: '#/…'` names in its place."""
    if isinstance(data, list):
        return [_referred(item, root, depth) for item in data]
    if not isinstance(data, dict):
        return data
    reference = data.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/") and depth < 8:  # references may go round in a circle
        found: Any = root
        for key in reference[2:].split("/"):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            own = {key: value for key, value in data.items() if key != "$ref"}
            found = _referred(found, root, depth + 1)
            return {**found, **own} if isinstance(found, dict) else found
    return {key: _referred(value, root, depth) for key, value in data.items()}
