"""What is trained on: the example suite of this repository, and three public data sets where a folder holds them.

`TURNOUT_BENCH_DATA` names that folder: `banking77/`, `sms_spam/` and `snips_slots/`, each with `train.jsonl` and
`test.jsonl` of `{"input": text, "label": text}` a line (snips_slots: `"expected": {"intent": text, …}`), and
`task.json` with `{"labels": […]}`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data import Example, clean
from finetune.plan import Row
from prompts.formats.prompt_yml import load_prompt
from prompts.prompt import CompiledPrompt, compile_prompt
from prompts.registry import nothing_registered, resolve_all

VARIABLE = "TURNOUT_BENCH_DATA"
PUBLIC = ("sms_spam", "snips_slots", "banking77")  # the cheapest to train on first
_SUPPORT = Path(__file__).parents[2] / "examples" / "support"
_SYSTEMS = {
    "sms_spam": "Sort the text message: spam is advertising or fraud that nobody asked for, ham is everything else. "
    "Answer with one word, {labels}.",
    "snips_slots": "Sort the request to a voice assistant into one of these intents: {labels}. "
    "Answer with the name of the intent alone.",
    "banking77": "Sort the message of a bank's customer into one of these intents: {labels}. "
    "Answer with the name of the intent alone.",
}
_QUESTIONS = {  # of the forms tried, those under which the model without training does best with examples in the prompt
    "sms_spam": "{input}",
    "snips_slots": "Request: {input}\nIntent:",
    "banking77": "Message: {input}\nIntent:",
}
_NEW_TOKENS = {"sms_spam": 8, "snips_slots": 12, "banking77": 24}  # room for each of their labels
Turns = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Task:
    """A labelled data set under one prompt; `heldout` never shares an input with `train`, nor nearly so."""

    name: str
    opening: Turns  # what stands before every input
    question: str  # the user's turn, with the variables in braces
    train: tuple[Example, ...]
    heldout: tuple[Example, ...]
    labels: tuple[str, ...]
    max_new_tokens: int

    def messages(self, example: Example, shots: Sequence[Example] = ()) -> Turns:
        """The conversation that asks for `example`, after those of `shots` with their answers."""
        before = [turn for shot in shots for turn in (self._asked(shot), _turn("assistant", shot.expected))]
        return (*self.opening, *before, self._asked(example))

    def rows(self, examples: Sequence[Example]) -> tuple[Row, ...]:
        return tuple(Row(messages=self.messages(one), answer=one.expected) for one in examples)

    def sample(self, count: int, seed: int) -> tuple[Example, ...]:
        """So many examples to train on, drawn without replacement; another seed, another draw."""
        return tuple(random.Random(seed).sample(self.train, min(count, len(self.train))))  # noqa: S311  not a secret

    def heldout_sample(self, count: int) -> tuple[Example, ...]:
        """So many held-out cases, the same whatever is compared."""
        return tuple(random.Random(0).sample(self.heldout, min(count, len(self.heldout))))  # noqa: S311

    def _asked(self, example: Example) -> dict[str, Any]:
        return _turn("user", self.question.format_map(example.vars))


def support(turns_at_most: int | None = None) -> Task:
    """The ticket triage of `examples/support`, its prompt compiled as it is served.

    `turns_at_most` cuts the examples that stand in its prompt, to bring the prefix to a wanted share of the tokens.
    """
    prompt, parameters = _support_prompt()
    marker = "\ue000"
    turns: Turns = tuple(message.as_dict() for message in prompt.render({"ticket": marker}))
    if turns[-1] != _turn("user", marker):
        raise ValueError(f"{_SUPPORT}: the prompt must end with the ticket alone, not with {turns[-1]}")
    cases = _SUPPORT / "suites" / "support" / "cases"
    train = tuple(Example(one["vars"], one["expected"]) for one in _lines(cases / "train.jsonl"))
    heldout = tuple(Example(one["vars"], one["assert"][0]["value"]) for one in _lines(cases / "heldout.jsonl"))
    labels = tuple(sorted({one.expected for one in train}))
    opening = turns[:-1] if turns_at_most is None else turns[:turns_at_most]
    return Task("support", opening, "{ticket}", train, heldout, labels, parameters["max_tokens"])


def public(name: str, folder: Path) -> Task:
    """One of `PUBLIC` from `folder`; what repeats a held-out input, also nearly, is left out of `train`."""
    labels = tuple(json.loads((folder / name / "task.json").read_text())["labels"])
    train, heldout = (tuple(map(_example, _lines(folder / name / f"{part}.jsonl"))) for part in ("train", "test"))
    kept = clean(train, [one.vars for one in heldout]).kept
    shown = " or ".join(labels) if len(labels) == 2 else ", ".join(labels)
    opening = (_turn("system", _SYSTEMS[name].format(labels=shown)),)
    return Task(name, opening, _QUESTIONS[name], tuple(kept), heldout, labels, _NEW_TOKENS[name])


def data_folder(given: Path | None = None) -> Path | None:
    """Where the public data lies: the folder given, else the one that the environment names, else None."""
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    return named.resolve() if named and named.is_dir() else None


def missing(name: str, folder: Path | None) -> str:
    """Why a data set is left out, in words; empty where it is there."""
    if folder is None:
        return f"{name} was left out: set {VARIABLE} to a folder that holds it"
    lacking = [file for file in ("train.jsonl", "test.jsonl", "task.json") if not (folder / name / file).is_file()]
    return f"{name} was left out: {folder / name} lacks {', '.join(lacking)}" if lacking else ""


def _support_prompt() -> tuple[CompiledPrompt, dict[str, Any]]:
    folder = _SUPPORT / "prompts" / "support"
    names = ("ticket-triage", "answer-form")
    sources = {f"support.{n}": load_prompt((folder / f"{n}.prompt.yml").read_text(), n, f"support.{n}") for n in names}
    content = resolve_all(sources, nothing_registered)["support.ticket-triage"]
    return compile_prompt(content), content.request_parameters()


def _example(line: dict[str, Any]) -> Example:
    """snips_slots is asked for its intent alone: a model of this size does not learn the slots from 200 examples."""
    return Example({"input": line["input"]}, line["label"] if "label" in line else line["expected"]["intent"])


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
