"""Training examples that stand in the prompt already, as its own examples: a model asked about one reads the answer there.

An example in the prompt holds only what the last user message asks with, so training examples are compared by these
variables, and by the rules for near duplicates alone: a prompt has too few examples to tell a signature that all inputs
share from a passage that gives one away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune.data.examples import Example
from finetune.data.likeness import Index, input_key, read_all, unspaced
from finetune.data.overlap import least_of_boilerplate
from prompts.prompt import CompiledPrompt
from prompts.template import Template

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """The examples in a prompt: the values that they have of the variables `names`, which the last user message asks with.

    `defaults` are the values of those that may be left out.
    """

    vars: tuple[Mapping[str, Any], ...] = ()
    names: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] | None = None

    def key(self, variables: Mapping[str, Any]) -> Key:
        """What is asked with these variables."""
        asked = {name: value for name, value in variables.items() if name in self.names}
        return input_key({**(self.defaults or {}), **asked})


def asking_variables(prompt: CompiledPrompt) -> frozenset[str]:
    """The variables of the last user message, which examples fill; empty where there is none."""
    users = [message for message in prompt.content.templates if message.role == "user"]
    return frozenset().union(*(Template(text).names for text in users[-1].texts)) if users else frozenset()


def shown_in(prompt: CompiledPrompt) -> Shown:
    """The examples of a prompt. Of one whose last user message is always the same they tell no question from another."""
    content = prompt.content
    names = asking_variables(prompt) if content.examples else frozenset()
    defaults = {name: value for name, value in content.defaults.items() if name in names}
    return Shown(tuple(example.vars for example in content.examples) if names else (), names, defaults)


class Repeated:
    """Which of the prompt's examples asks what a training example asks."""

    def __init__(self, shown: Shown, examples: Sequence[Example]) -> None:
        shots = [shown.key(each) for each in shown.vars]
        self._keys = [*shots, *(shown.key(example.vars) for example in examples)] if shots else []
        self._before = len(shots)
        self._index = Index(read_all(self._keys))
        self._first: dict[Key, int] = {}
        self._unspaced: dict[Key, int] = {}
        for at, key in enumerate(shots):
            self._index.add(at)
            self._first.setdefault(key, at)
            self._unspaced.setdefault(unspaced(key), at)
        self._common = self._asked_of_many(examples)

    def by(self, number: int) -> tuple[Literal["in-prompt", "in-prompt-near"], int] | None:
        """The rule by which the training example of this number stands in the prompt, and which of its examples that is."""
        if not self._before:
            return None
        at = self._before + number
        key = self._keys[at]
        if key in self._common:
            return None
        same = self._first.get(key, self._unspaced.get(unspaced(key)))
        if same is not None:
            return "in-prompt", same
        near = next(iter(self._index.matches(at)), None)
        return None if near is None else ("in-prompt-near", near)

    def _asked_of_many(self, examples: Sequence[Example]) -> frozenset[Key]:
        """Questions that so many different inputs share that other variables tell these apart: a tone, a language."""
        inputs: defaultdict[Key, set[Key]] = defaultdict(set)
        for key, example in zip(self._keys[self._before :], examples, strict=False):  # no keys where nothing is shown
            inputs[key].add(input_key(example.vars))
        least = least_of_boilerplate(sum(map(len, inputs.values())))
        return frozenset(key for key, its in inputs.items() if len(its) >= least)
