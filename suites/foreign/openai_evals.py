"""OpenAI Evals as suites: a registry's YAML with the samples that it names.

https://github.com/openai/evals — `Match`, `Includes`, `FuzzyMatch`, `JsonMatch` and `ModelBasedClassify`, judged as there; evals of
other classes are code, and listed. A sample brings its whole conversation: what is the same in all samples is the prompt, and what
differs its variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.chat import is_chat
from prompts.formats.imported import Foreign, Notes, fit_name, free_name, shortened
from prompts.yaml_source import load_yaml
from suites.foreign.converted import Converted, ForeignSuite, Wanted
from suites.foreign.promptfoo_asserts import ANY_ANSWER
from suites.foreign.promptfoo_cases import deduplicated
from suites.foreign.providers import GRADER, Aliases

_CLASSES = "evals.elsuite."
_ROLES = ("system", "user", "assistant")
_LFS = "version https://git-lfs"
MOST_SHAPES = 20  # conversations with other roles, each of which is a prompt of its own
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")  # as in Python's `format`, where `{{` is a brace
_NORMALIZED = r"""
const plain = text => text.toLowerCase().replace(/[!"#$%&'()*+,\-.\/:;<=>?@\[\\\]^_`{|}~]/g, "")
  .replace(/\b(a|an|the)\b/g, " ").split(/\s+/).filter(Boolean).join(" ");
const found = plain(output);
return IDEALS.map(plain).some(ideal => !found || !ideal ? found === ideal : found.includes(ideal) || ideal.includes(found));"""
_JSON_EQUAL = r"""
const same = (a, b) => {
  if (a === null || b === null || a === undefined || b === undefined) return false;
  if (typeof a !== "object" || typeof b !== "object") return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  if (Array.isArray(a) && a.length !== b.length) return false;
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every(key => same(a[key], b[key]));
};
let found = null;
try { found = JSON.parse(output); } catch (error) { return false; }
return IDEALS.some(ideal => same(found, ideal));"""


class _CannotBe(Exception):
    """Why an eval, or a sample, is no suite or case of ours."""


@dataclass(frozen=True, slots=True)
class _Eval:
    """One eval of a registry: how its answers are judged, and the settings that it asks with."""

    name: str
    description: str
    arguments: Mapping[str, Any]
    judge: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    settings: Mapping[str, Any]


def is_registry(text: str, path: str) -> bool:
    """Whether a file defines evals by their classes."""
    return path.endswith((".yaml", ".yml")) and _CLASSES in text


def convert_evals(foreign: Foreign, wanted: Wanted) -> Converted:
    """Every eval of a registry's file that can be a suite. Raises BadFile where none can."""
    return _Registry(foreign, wanted).converted()


class _Registry:
    """One file of a registry; samples and rubrics lie in `../data` and `../modelgraded`."""

    def __init__(self, foreign: Foreign, wanted: Wanted) -> None:
        self._foreign = foreign
        self._notes = Notes(foreign.path)
        self._aliases = Aliases(wanted.known, wanted.given)
        data = load_yaml(foreign.text, foreign.path).data
        self._entries: dict[str, Any] = data if isinstance(data, dict) else {}

    def converted(self) -> Converted:
        suites: dict[str, ForeignSuite] = {}
        for key, entry in self._entries.items():
            if isinstance(entry, dict) and "class" in entry:
                try:
                    for made in self._suites(self._eval(str(key), entry)):
                        name = free_name(made.name, suites)
                        suites[name] = ForeignSuite(name, made.prompt, {**made.suite, "prompt": name}, made.models)
                except _CannotBe as why:
                    self._notes.leave(str(key), str(entry["class"]).rpartition(":")[2], str(why))
        if not suites:
            told = "; ".join(f"{note.what}: {note.why}" for note in self._notes.found) or "it defines no eval"
            raise BadFile(
                [Fault(self._foreign.path, 0, f"nothing of it can be a suite: {told}"[:600], "see docs/imports.md")]
            )
        return Converted(tuple(suites.values()), self._notes.found, tuple(self._aliases.missing))

    def _eval(self, key: str, entry: Mapping[str, Any]) -> _Eval:
        kind = str(entry["class"]).rpartition(":")[2]
        arguments = entry.get("args") or {}
        if kind not in _KINDS:
            raise _CannotBe(
                "this class is code: only Match, Includes, FuzzyMatch, JsonMatch and ModelBasedClassify are read"
            )
        if not isinstance(arguments, dict) or not isinstance(arguments.get("samples_jsonl"), str):
            raise _CannotBe("it names no samples: write `args: {samples_jsonl: …}`")
        about = next((each for each in self._entries.values() if isinstance(each, dict) and each.get("id") == key), {})
        judge = self._classified(arguments) if kind == "ModelBasedClassify" else _judge_of(kind, arguments)
        limit = arguments.get("max_tokens", _KINDS[kind])
        settings = {} if kind in ("Includes", "ModelBasedClassify") else {"temperature": 0}
        if limit is not None:
            settings["max_tokens"] = limit
        return _Eval(key, str(about.get("description") or ""), arguments, judge, settings)

    # ------------------------------------------------------------------------ samples

    def _suites(self, found: _Eval) -> Iterator[ForeignSuite]:
        """A suite for each shape of conversation among the samples."""
        shapes: dict[tuple[str, ...], list[tuple[list[dict[str, Any]], dict[str, Any]]]] = {}
        few = self._few_shot(found.arguments)
        for number, sample in enumerate(self._samples(found.arguments["samples_jsonl"]), 1):
            try:
                messages = _messages(sample, few)
                shapes.setdefault(tuple(each["role"] for each in messages), []).append((messages, sample))
            except _CannotBe as why:
                self._notes.leave(f"{found.name}, sample {number}", "sample", str(why))
        for _, samples in list(shapes.items())[MOST_SHAPES:]:
            self._notes.leave(
                found.name, f"{len(samples)} samples", f"the most shapes of conversation are {MOST_SHAPES}"
            )
        for samples in list(shapes.values())[:MOST_SHAPES]:
            yield self._suite(found, samples)

    def _suite(self, found: _Eval, samples: list[tuple[list[dict[str, Any]], dict[str, Any]]]) -> ForeignSuite:
        prompt, variables = _common([messages for messages, _ in samples])
        rows = []
        for (_, sample), values in zip(samples, variables, strict=True):
            try:
                rows.append({"vars": values, "assert": found.judge(sample)})
            except _CannotBe as why:
                self._notes.leave(found.name, "sample", str(why))
                rows.append({"vars": values, "skip": str(why)})
        name = self._foreign.prefix + (fit_name(re.sub(r"[.]", "-", found.name)) or "eval")
        keys = {"name": found.name, "modelParameters": dict(found.settings), "messages": prompt}
        suite = {"prompt": name, "tests": list(deduplicated(rows)), "description": found.description}
        return ForeignSuite(name, {k: v for k, v in keys.items() if v}, {k: v for k, v in suite.items() if v}, ())

    def _samples(self, name: str) -> Iterator[dict[str, Any]]:
        for line in self._text(f"../data/{name}").split("\n"):  # a text may hold other ends of lines
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise _CannotBe(f"{name} is no JSON lines: {error}") from error

    def _few_shot(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        count = arguments.get("num_few_shot") or 0
        shots = list(self._samples(str(arguments.get("few_shot_jsonl"))))[:count] if count else []
        return [message for shot in shots for message in shot.get("sample", [])]

    def _text(self, name: str) -> str:
        text = self._foreign.beside(name)
        if text is None:
            raise _CannotBe(f"{name.removeprefix('../')} is not in the registry")
        if text.startswith(_LFS):
            raise _CannotBe(f"{name.removeprefix('../')} is a pointer of Git LFS: fetch it by `git lfs pull`")
        return text

    # ------------------------------------------------------------------------ judges

    def _classified(self, arguments: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[dict[str, Any]]]:
        """How a model judges: by the specification that is named, in `../modelgraded`."""
        name = str(arguments.get("modelgraded_spec"))
        spec = (load_yaml(self._text(f"../modelgraded/{name}.yaml"), name).data or {}).get(name)
        if arguments.get("metaeval"):
            raise _CannotBe("it evaluates the judge: see `turnout judge calibrate`")
        if not isinstance(spec, dict) or list((spec.get("input_outputs") or {}).values()) != ["completion"]:
            raise _CannotBe(f"{name} compares several completions")
        if arguments.get("multicomp_n", 1) != 1:
            raise _CannotBe("it joins several completions of a sample")
        alias = self._aliases.of(GRADER)
        given = {key: value for each in (arguments.get("modelgraded_spec_args") or {},) for key, value in each.items()}
        return lambda sample: [_graded(name, spec, {**sample, **given}, alias)]


def _graded(name: str, spec: Mapping[str, Any], sample: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """The assertion that asks a model what the specification asks."""
    if name == "fact":
        return {"type": "factuality", "value": _ideals(sample)[0], "provider": alias}
    if name == "closedqa":
        return {"type": "model-graded-closedqa", "value": str(sample.get("criteria", "")), "provider": alias}
    scores = spec.get("choice_scores")
    choices = list(spec.get("choice_strings") or ())
    if scores == "from_strings":
        scores = {choice: float(choice) for choice in choices}
    if not isinstance(scores, dict) or not isinstance(spec.get("prompt"), str):
        raise _CannotBe(f"{name} counts choices without a score: no answer passes or fails")
    best = max(scores.values())
    scaled = {choice: score / best if best > 0 else 0.0 for choice, score in scores.items()}
    asked = _FIELD.sub(lambda field: _field(field, sample), spec["prompt"])
    ending = f"\n\nChoose one of {json.dumps(list(scaled))}. Then answer with this JSON alone: "
    form = '{"pass": true or false, "score": NUMBER, "reason": "YOUR CHOICE"}'
    rule = f"; the score of each choice is {json.dumps(scaled)}, and pass is whether that is 1."
    return {"type": "llm-rubric", "value": name, "provider": alias, "rubricPrompt": _raw(asked) + ending + form + rule}


def _field(field: re.Match[str], sample: Mapping[str, Any]) -> str:
    if field[1] is None:
        return field[0][0]
    if field[1] == "completion":
        return "\ue000output\ue001"  # a slot, put in once the rest is escaped
    value = sample.get(field[1])
    if value is None:
        return field[0]
    if is_chat(value):
        return "\n".join(f"{message['role']}: {message.get('content')}" for message in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _judge_of(kind: str, arguments: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[dict[str, Any]]]:
    """How a class judges the answer to a sample."""
    ignores_case = arguments.get("ignore_case") is True

    def judge(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
        ideals = _ideals(sample)
        if kind == "FuzzyMatch":
            return [{"type": "javascript", "value": _with(_NORMALIZED, ideals)}]
        if kind == "JsonMatch":
            return [{"type": "javascript", "value": _with(_JSON_EQUAL, [_json(each) for each in ideals])}]
        if "" in ideals:
            return [dict(ANY_ANSWER)]
        if kind == "Match":
            one = {"type": "starts-with", "value": ideals[0]}
            return [
                one if len(ideals) == 1 else {"type": "regex", "value": rf"\A(?:{'|'.join(map(re.escape, ideals))})"}
            ]
        words = ("icontains" if ignores_case else "contains") + ("-any" if len(ideals) > 1 else "")
        return [{"type": words, "value": ideals if len(ideals) > 1 else ideals[0]}]

    return judge


def _with(code: str, ideals: Any) -> str:
    return code.replace("IDEALS", json.dumps(ideals)).strip()


def _ideals(sample: Mapping[str, Any]) -> list[str]:
    ideal = sample.get("ideal")
    ideals: list[Any] = ideal if isinstance(ideal, list) else [ideal]
    if not ideals or not all(isinstance(each, str) for each in ideals):
        raise _CannotBe(f"its `ideal` is no text: {shortened(ideal)}")
    if any("{{" in each or "{%" in each for each in ideals):
        raise _CannotBe("its `ideal` holds {{ or {%, which would be read as a template")
    return ideals


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _CannotBe(f"its `ideal` is no JSON: {shortened(text)}") from error


_KINDS: Mapping[str, int | None] = {  # classes, and how many tokens each lets an answer have
    "Match": None,
    "Includes": None,
    "FuzzyMatch": 100,
    "JsonMatch": 512,
    "ModelBasedClassify": 1024,
}


# ---------------------------------------------------------------------------- conversations


def _messages(sample: Any, few: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation of a sample, with examples before its last message."""
    given: Any = sample.get("input") if isinstance(sample, dict) else None
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not is_chat(given):
        raise _CannotBe(f"its `input` is no text and no chat: {shortened(given)}")
    messages = [*given[:-1], *few, *given[-1:]]
    for message in messages:
        if message.get("role") not in _ROLES or not isinstance(message.get("content"), str):
            raise _CannotBe(f"a message is no text of {', '.join(_ROLES)}: {shortened(message)}")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _common(conversations: list[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages that all have, with a variable in place of each that differs, and the variables of each conversation."""
    first = conversations[0]
    differing = [at for at in range(len(first)) if len({each[at]["content"] for each in conversations}) > 1]
    differing = differing or [len(first) - 1]
    names = {at: "input" if at == len(first) - 1 else f"{first[at]['role']}_{at + 1}" for at in differing}
    prompt = [
        {"role": message["role"], "content": f"{{{{ {names[at]} }}}}" if at in names else _raw(message["content"])}
        for at, message in enumerate(first)
    ]
    values = [{names[at]: each[at]["content"] for at in differing} for each in conversations]
    return [message for message in prompt if message["content"]], values


def _raw(text: str) -> str:
    """A text as a template that prints it; a slot that was marked is one."""
    if any(sign in text for sign in ("{{", "{%", "{#")):
        pieces = re.split("(\ue000\\w+\ue001)", text)
        text = "".join(
            piece if piece[:1] == "\ue000" else f"{{% raw %}}{piece}{{% endraw %}}" for piece in pieces if piece
        )
    return text.replace("\ue000", "{{ ").replace("\ue001", " }}")
