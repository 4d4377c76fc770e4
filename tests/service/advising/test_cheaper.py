"""Parameters, a choice among the labels, and what keeps examples out of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.data import Example, asking_variables
from prompts.prompt import PromptContent, compile_prompt
from service.advising import cheaper
from service.advising.asking import Answers, Way
from service.advising.cheaper import Pass, Rungs, Tried
from service.advising.choosing import Choosing
from service.advising.costs import priced
from service.advising.folds import Folds
from service.tuning.claim import Cancelled
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
    asked = SimpleNamespace(price_per_hour=3.6, shots=(1, 2, 4, 8), against=None)
    claim = SimpleNamespace(settings=settings, check=lambda: None)
    work: Any = SimpleNamespace(claim=claim, model="m", material=material, spec=asked,
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


# ------------------------------------------------------------------------------------------------ examples


def choosing_of(given: Rungs) -> Choosing:
    return Choosing(given.questions, given.folds, max(given.work.spec.shots), lambda: given.work.claim.check())


def knowing_more(way: Way, row: int) -> Asked:
    """Right for as many rows as three times the examples that stand before it."""
    count = len(way.shots.get(row, ()))
    return wrong(row, LABELS[row % 3] if row < 3 * count else "?")


def test_examples_are_chosen_once_for_all_numbers_of_them(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    chosen: list[int] = []

    def covering(likeness: Any, answers: Any, allowed: frozenset[int], count: int) -> tuple[int, ...]:
        chosen.append(count)
        return tuple(sorted(allowed))[:count]

    monkeypatch.setattr("service.advising.choosing.covering", covering)
    given = rungs(tmp_path, knowing_more)
    choosing = choosing_of(given)
    found = list(cheaper.few_shot(given, choosing))
    keys = [one.variant.key for one in found if isinstance(one, Tried)]
    assert keys == ["few-shot-1", "few-shot-2", "few-shot-4", "similar-1", "similar-2", "similar-4"]
    assert choosing.of_folds(2) == {0: (1, 2), 1: (0, 2), 2: (0, 1)}
    assert chosen == [8, 8, 8]  # each fold once, for the most
    assert choosing.of_all(2) == choosing.of_all(4)[:2] == (0, 1)
    assert len(chosen) == 4


def test_the_most_similar_are_found_once_and_the_most_similar_stands_last(tmp_path: Any):
    given = rungs(tmp_path)
    choosing = choosing_of(given)
    for row, rows in choosing.similar(4).items():
        assert choosing.similar(2)[row] == rows[-2:]
        assert all(given.folds.of[one] != given.folds.of[row] for one in rows)


def test_an_advice_that_is_cancelled_while_examples_are_compared_asks_nothing_more(tmp_path: Any):
    given = rungs(tmp_path, knowing_more)
    tried = cheaper.few_shot(given, choosing_of(given))
    next(tried)
    asked = len(given.questions.ways)  # type: ignore[attr-defined]

    def check() -> None:
        raise Cancelled("job_1")

    given.work.claim.check = check  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        next(tried)
    assert len(given.questions.ways) == asked  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ announced


def test_every_pass_that_may_be_made_is_announced(tmp_path: Any):
    given = rungs(tmp_path)
    given.work.parameters["temperature"] = 0.7  # type: ignore[index]
    given.work.spec.against = "better"  # type: ignore[misc]
    said = list(cheaper.passes(given, choosing_of(given)))
    assert said == [
        Pass("by m with the prompt alone"),
        Pass("at temperature 0"),
        Pass("with a choice among the labels, where the server takes one"),
        Pass("with 1, 2 or 4 examples in the prompt, chosen to cover", 3),
        Pass("8 examples, chosen to cover", 0, "the other folds have 8 examples, fewer than twice as many"),
        Pass("with 1, 2 or 4 examples in the prompt, the most similar ones", 3),
        Pass("8 examples, the most similar ones", 0, "the other folds have 8 examples, fewer than twice as many"),
        Pass("by better with the prompt alone"),
    ]
    assert cheaper.most_shots(given, choosing_of(given)) == 4
    assert given.questions.ways == []  # type: ignore[attr-defined]


def test_free_text_may_be_asked_for_with_more_room(tmp_path: Any):
    given = rungs(tmp_path, labels=())
    said = {one.how: one for one in cheaper.passes(given, choosing_of(given))}
    assert said["with room for longer answers, where answers are cut"].times == 1
    assert (
        said["with a choice among the labels, where the server takes one"].why
        == "the answers are no small set of labels"
    )


def test_no_more_is_asked_than_was_announced(tmp_path: Any):
    given = rungs(tmp_path, knowing_more)
    given.work.parameters["temperature"] = 0.7  # type: ignore[index]
    choosing = choosing_of(given)
    announced = sum(one.times for one in cheaper.passes(given, choosing))
    cheaper.ask_prompt(given, "m", "prompt", "prompt", "the prompt alone")
    tried = [*cheaper.parameters(given, []), *cheaper.few_shot(given, choosing)]
    assert (
        1 + sum(isinstance(one, Tried) for one in tried) == announced - 1
    )  # no answer was a label: the choice is left out
