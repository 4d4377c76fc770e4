"""Parameters, a choice among the labels, and what keeps examples out of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.data import Example
from prompts.prompt import PromptContent, compile_prompt
from service.advising import cheaper
from service.advising.asking import Answers, Way, asking_variables
from service.advising.cheaper import Rungs, Tried
from service.advising.costs import priced
from service.advising.folds import Folds
from suites.advice.answers import Asked
from suites.advice.report import Skipped, Spend
from tests.service.conftest import MODELS, make_settings, triage

LABELS = ("billing", "other", "tech")


class Answering:
    """Questions that are answered by a function of the way and the row."""

    def __init__(self, answer: Any) -> None:
        self.rows = [Example({"ticket": f"t {n} " + "long " * 40}, LABELS[n % 3]) for n in range(12)]
        self.answer = answer
        self.ways: list[Way] = []

    def ask(self, way: Way, rows: Sequence[int]) -> Answers:
        self.ways.append(way)
        return Answers(tuple(self.answer(way, row) for row in rows))

    def messages(self, row: int, shots: tuple[int, ...] = ()) -> Any:
        return prompt().render(self.rows[row].vars) * (1 + 2 * len(shots))


def prompt(**changes: Any) -> Any:
    data = triage(**changes)
    content = {
        "messages": data["messages"],
        "variables": data["variables"],
        "model": "m",
        "parameters": {"temperature": 0},
    }
    return compile_prompt(PromptContent.model_validate(content))


def rungs(
    tmp_path: Any, answer: Any = None, *, labels: tuple[str, ...] = LABELS, cost: float | None = None, **spec: Any
) -> Rungs:
    model = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", **spec}
    settings = make_settings(tmp_path, models={**MODELS, "m": model})
    suite = SimpleNamespace(thresholds=SimpleNamespace(cost_per_1k_usd=cost))
    material = SimpleNamespace(prompt=prompt(), suite=suite)
    asked = SimpleNamespace(price_per_hour=3.6)
    work: Any = SimpleNamespace(claim=SimpleNamespace(settings=settings), model="m", material=material, spec=asked,
                                parameters={"temperature": 0})  # fmt: skip
    questions: Any = Answering(answer)
    return Rungs(work, questions, Folds(tuple(n % 3 for n in range(12))), labels)


def wrong(row: int, answer: str, finish: str = "stop", error: str = "") -> Asked:
    return Asked(row, {}, LABELS[row % 3], answer, finish, error)


def test_a_server_that_refuses_a_choice_is_asked_once(tmp_path: Any):
    given = rungs(tmp_path, lambda way, row: wrong(row, "", error="ModelRefused: unknown parameter"))
    [found] = list(cheaper.parameters(given, []))
    assert isinstance(found, Skipped)
    assert "m does not take structured_outputs: ModelRefused" in found.why
    assert len(given.questions.ways) == 1  # type: ignore[attr-defined]


def test_a_server_that_heeds_a_choice_is_scored_and_one_that_does_not_is_told(tmp_path: Any):
    [found] = list(cheaper.parameters(rungs(tmp_path, lambda way, row: wrong(row, LABELS[row % 3])), []))
    assert isinstance(found, Tried)
    assert (found.variant.key, found.variant.right) == ("choice", 12)
    assert found.variant.changes == {"structured_outputs": {"choice": list(LABELS)}}
    [skipped] = list(cheaper.parameters(rungs(tmp_path, lambda way, row: wrong(row, "Well, billing")), []))
    assert isinstance(skipped, Skipped)
    assert "heeded it not" in skipped.why


def test_free_text_that_was_cut_is_given_twice_the_tokens(tmp_path: Any):
    given = rungs(tmp_path, lambda way, row: wrong(row, "x"), labels=())
    assert cheaper.parameter_changes(given.work, [wrong(0, "cut", "length")], is_free_text=True) == {"max_tokens": 1024}
    assert cheaper.parameter_changes(given.work, [wrong(0, "cut", "length")], is_free_text=False) == {}


def test_examples_beyond_the_context_or_the_price_are_left_out(tmp_path: Any):
    shots = dict.fromkeys(range(12), (0, 1))
    assert "tokens with the answer, and m takes 700" in cheaper._too_long(rungs(tmp_path, context_tokens=700), shots)
    assert cheaper._too_long(rungs(tmp_path, context_tokens=9000), shots) == ""
    price = {"input_per_mtok": 10.0, "output_per_mtok": 0.0}
    assert "the suite allows $0.5" in cheaper._too_long(rungs(tmp_path, price=price, cost=0.5), shots)
    assert cheaper._too_long(rungs(tmp_path, price=price, cost=50.0), shots) == ""


def test_a_prompt_whose_user_says_always_the_same_takes_no_examples():
    messages = [{"role": "system", "content": "{{ ticket }}"}, {"role": "user", "content": "Sort it."}]
    assert asking_variables(prompt(messages=messages)) == frozenset()
    assert asking_variables(prompt()) == {"ticket"}


@pytest.mark.parametrize(
    ("alias", "cost", "source"),
    [
        ("priced", 0.14, "the price of priced"),
        ("tunable", 0.05, "$3.6 an hour, one request after another"),
        ("model-a", None, None),
    ],
)
def test_a_request_costs_by_tokens_else_by_the_hour(tmp_path: Any, alias: str, cost: float | None, source: str | None):
    found = priced(rungs(tmp_path).work, alias, Spend(prompt_tokens=100, answer_tokens=20), [40.0, 60.0])
    assert found.cost_per_1k_usd == (None if cost is None else pytest.approx(cost))
    assert found.cost_from == source
