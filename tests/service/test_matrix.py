"""Runs of several variants whose answers are compared: decided when all are in, once, and written for all of them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadInput, ModelUnavailable
from prompts.messages import CompletionRequest
from service import aids
from service.evaluation import Finished
from service.gates import GateRequest, Gates, RunRequest
from service.identity import LOCAL_ADMIN
from service.models.fake import FakeModel
from service.questions import MatrixRequest
from service.run_rows import case_statuses
from service.settings import Settings
from service.store import routes, runs
from service.store.database import Database
from suites.results import CaseResult
from suites.verification import verify_record, verify_run, verify_side
from tests.service.conftest import ADMIN, make_settings, triage
from tests.service.test_aids import Bench, last

FAKES = {name: {"engine": "fake"} for name in ("model-a", "model-b", "model-c", "judge")}
BEST = {"type": "select-best", "value": "is long"}
SCORED = [{"type": "contains", "value": "long"}, {"type": "max-score"}]


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


def longest(request: CompletionRequest) -> str:
    """A judge that chooses the longest answer."""
    lines = last(request).splitlines()
    shown = [(len(after), line.rpartition(" ")[2]) for line, after in itertools.pairwise(lines) if " answer " in line]
    return json.dumps({"reason": "it is long", "best": int(max(shown)[1])})


class Matrix(Bench):
    """Two models of which `model-b` answers at more length, and a judge who likes that."""

    def __init__(self, database: Database, settings: Settings, **models: Any) -> None:
        self.judge = models.pop("judge", None) or FakeModel(longest)
        self.a = FakeModel(lambda request: f"short {last(request)}")
        self.b = FakeModel(lambda request: f"a long reply {last(request)}")
        given = {"model-a": self.a, "model-b": self.b, "judge": self.judge, **models}
        super().__init__(database, settings, **given)
        self.database = database
        self.gates = Gates(database, self.registry, self.evaluator)

    def put(self, *asserts: dict[str, Any], cases: int = 4, **head: Any) -> None:
        tests = [{"vars": {"ticket": f"t{number}"}, "assert": list(asserts)} for number in range(cases)]
        self.push(suites={"s": {"prompt": "support.triage", "judge": {"model": "judge"}, "tests": tests, **head}})

    async def matrix(self, *models: str, **more: Any) -> list[Finished]:
        variants = tuple({"model": model} for model in models or ("model-a", "model-b"))
        request = MatrixRequest.model_validate({"suite": "s", "variants": variants, **more})
        plans = self.gates.plan_matrix(request, "matrix_1")
        return await self.evaluator.run_all([plan.spec for plan in plans], plans[0].suite, None, "variants")

    def run_matrix(self, *models: str, **more: Any) -> list[Finished]:
        return asyncio.run(self.matrix(*models, **more))

    def statuses(self, run_id: str) -> list[str]:
        return [result.status for result in self.evaluator.results(run_id)]


@pytest.fixture
def bench(database: Database, settings: Settings) -> Matrix:
    return Matrix(database, settings)


def test_of_each_case_exactly_one_variant_passes_and_the_summaries_say_so(bench: Matrix) -> None:
    bench.put(BEST)
    first, second = bench.run_matrix()

    assert bench.statuses("run_1_0") == ["failed"] * 4
    assert bench.statuses("run_1_1") == ["passed"] * 4
    assert (first.summary.passed, first.summary.failed, first.summary.waiting) == (0, 4, 0)
    assert (second.summary.passed, second.summary.failed, second.summary.pass_rate) == (4, 0, 1.0)
    assert len(bench.judge.asked) == 4
    assert first.data["compared"] == second.data["compared"] == [
        {"run_id": "run_1_0", "variant": "support.triage@1+model-a"},
        {"run_id": "run_1_1", "variant": "support.triage@1+model-b"},
    ]  # fmt: skip
    assert first.summary.judges is not None
    assert second.summary.judges is None


def test_the_highest_score_is_chosen_without_asking_anybody(bench: Matrix) -> None:
    bench.put(*SCORED)
    bench.run_matrix()
    assert (bench.statuses("run_1_0"), bench.statuses("run_1_1")) == (["failed"] * 4, ["passed"] * 4)
    assert bench.judge.asked == []


def test_repeats_are_compared_with_the_others_of_their_number(bench: Matrix) -> None:
    """In repeat 0 `model-a` answers at more length, in the others `model-b` does."""
    bench.push(prompts={"support.triage": triage(modelParameters={"seed": 7})})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")
    bench.models.models["model-a"] = FakeModel(lambda request: "x" * (9 if request.parameters["seed"] == 7 else 1))
    bench.models.models["model-b"] = FakeModel(lambda request: "y" * 5)
    bench.put(BEST, cases=1, repeat=3, pass_k=2)
    first, second = bench.run_matrix()

    assert bench.statuses("run_1_0") == ["passed", "failed", "failed"]
    assert bench.statuses("run_1_1") == ["failed", "passed", "passed"]
    assert (first.summary.passed, second.summary.passed, second.summary.flaky) == (
        0,
        1,
        (next(iter(second.summary.outcomes)).case_id,),
    )
    assert "repeat" not in bench.evaluator.results("run_1_0")[0].outcomes[0].reason


def test_an_assertion_that_only_reports_is_compared_too(bench: Matrix) -> None:
    bench.put({"type": "contains", "value": "t"}, {**BEST, "weight": 0, "metric": "best"})
    first, second = bench.run_matrix()
    assert (first.summary.passed, second.summary.passed) == (4, 4)
    assert (first.summary.metrics["best"].score, second.summary.metrics["best"].score) == (0.0, 1.0)


def test_a_matrix_that_was_killed_while_it_compared_asks_nothing_twice(bench: Matrix) -> None:
    """Neither a model nor a judge, without the cache too; before it ends no run is finished."""
    bench.put(BEST, cases=12)
    asked = bench.judge.asked
    bench.models.models["judge"] = judge = FakeModel(longest, latency_s=0.05)

    async def killed() -> None:
        task = asyncio.create_task(bench.matrix(no_cache=True, concurrency=2))
        while len(judge.asked) < 6:  # noqa: ASYNC110 - the model under test has no event of its own
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(killed())
    with bench.database.read() as session:
        assert {run["status"] for run in runs.listing(session, "s", 9)} == {"running"}
    decided = [case_id for run in ("run_1_0", "run_1_1") for case_id in _decided(bench, run)]
    assert set(Counter(decided).values()) == {2}, "each case is written for both runs or for none"
    assert 0 < len(decided) < 2 * 12, "the test shows nothing"
    judged = len(judge.asked)
    before = (len(bench.a.asked), len(bench.b.asked))

    first, second = bench.run_matrix(no_cache=True)

    assert before == (12, 12) == (len(bench.a.asked), len(bench.b.asked))
    assert len(judge.asked) - judged == 12 - len(decided) / 2
    assert (first.summary.failed, second.summary.passed) == (12, 12)
    assert bench.run_matrix(no_cache=True)[1].summary.passed == 12
    assert len(judge.asked) - judged == 12 - len(decided) / 2
    assert asked == []


def _decided(bench: Matrix, run_id: str) -> list[str]:
    return [result.case_id for result in bench.evaluator.results(run_id) if not result.is_to_compare]


def test_a_matrix_of_some_cases_compares_these_alone(bench: Matrix) -> None:
    bench.put(BEST, cases=5)
    first, second = bench.run_matrix(filter={"first": 2})
    assert [(each.summary.total, each.summary.passed) for each in (first, second)] == [(2, 0), (2, 2)]
    assert second.data["filter"] == {"first": 2}
    assert len(bench.judge.asked) == 2


def test_a_dead_model_errs_what_has_nothing_to_be_compared_with(bench: Matrix) -> None:
    bench.models.models["model-b"] = FakeModel("", fail=ModelUnavailable("refused"))
    bench.put(BEST, cases=20)
    first, second = bench.run_matrix()
    assert (first.summary.errored, first.summary.total) == (20, 20)
    assert (second.data["verdict"], second.summary.total) == ("could_not_run", 20)
    assert second.summary.skipped > 0
    assert second.summary.stopped.startswith("model unreachable")
    assert bench.judge.asked == []


def test_a_dead_judge_ends_the_comparison_and_says_so(database: Database, settings: Settings) -> None:
    bench = Matrix(database, settings, judge=FakeModel("", fail=ModelUnavailable("refused")))
    bench.put(BEST, cases=60)
    first, second = bench.run_matrix(concurrency=4)
    for summary in (first.summary, second.summary):
        assert summary.stopped.startswith("judge unreachable: judge")
        assert (summary.total, summary.waiting) == (60, 0)
        assert 0 < summary.errored < 60
    assert (first.data["verdict"], second.data["verdict"]) == ("could_not_run", "could_not_run")


def test_a_judge_is_shown_the_case_and_not_one_variants_words_of_it(bench: Matrix) -> None:
    other = triage(messages=[{"role": "user", "content": "Be brief. {{ ticket }}"}])
    bench.push(prompts={"support.triage": other})
    bench.put(BEST, cases=1)
    variants = [{"prompt": "support.triage@1"}, {"prompt": "support.triage@2"}]
    request = MatrixRequest.model_validate({"suite": "s", "variants": variants})
    plans = bench.gates.plan_matrix(request, "matrix_2")
    asyncio.run(bench.evaluator.run_all([plan.spec for plan in plans], plans[0].suite, None, "variants"))
    [asked] = bench.judge.asked
    assert "ticket: t0" in last(asked)
    assert "Be brief" not in last(asked).partition("The answers")[0]


def test_what_cannot_be_compared_is_refused_before_a_model_is_asked(bench: Matrix) -> None:
    bench.put(BEST)
    with pytest.raises(BadInput, match=r"several at once.*--model"):
        bench.gates.plan_run(RunRequest(suite="s"), "run_1")
    with pytest.raises(BadInput, match=r"variant support\.triage@1\+model-a is named twice: variants 1 and 2"):
        bench.run_matrix("model-a", "model-a")
    assert bench.a.asked == []


def test_a_run_that_was_compared_is_no_baseline_and_no_run_to_go_on_from(bench: Matrix) -> None:
    bench.put(BEST, repeat=2, pass_k=1)
    bench.run_matrix()
    with pytest.raises(BadInput, match=r"was compared with support\.triage@1\+model-b"):
        bench.gates.plan(GateRequest(suites=("s",), baseline="run:run_1_0"), "gate_1")
    with bench.database.read() as session:
        assert runs.newest_finished(session, "s", "support.triage@1+model-a") is None

    plan = bench.gates.plan_run(RunRequest(suite="s"), "run_2")
    asyncio.run(bench.evaluator.run(plan.spec, plan.suite))
    with pytest.raises(BadInput, match="those of run run_2 have been compared already"):
        bench.gates.plan(GateRequest(suites=("s",), baseline="run:run_2"), "gate_1")


# ---------------------------------------------------------------------------- gates


def gate(bench: Matrix, number: int = 1, **asked: Any) -> dict[str, Any]:
    items = bench.gates.plan(GateRequest(suites=("s",), **asked), f"gate_{number}")
    return asyncio.run(bench.gates.decide(f"gate_{number}", items, LOCAL_ADMIN))


def test_a_gate_compares_candidate_and_baseline_by_who_is_preferred(bench: Matrix) -> None:
    bench.put(BEST, cases=8)
    worse = gate(bench, baseline="support.triage@1", model="model-a")
    assert worse["verdict"] == "pass"  # the same variant: nothing was compared
    bench.push(prompts={"support.triage": triage(model="model-b")})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")

    lost = gate(bench, 2, candidate="support.triage@1")
    won = gate(bench, 3, candidate="support.triage@2", baseline="support.triage@1")

    assert (lost["verdict"], len(lost["suites"][0]["newly_broken"])) == ("fail", 8)
    assert (won["verdict"], len(won["suites"][0]["newly_mended"])) == ("pass", 8)
    assert "the answers of both sides were compared" in won["notes"][0]


def test_in_a_gate_answers_that_are_as_good_break_nothing(bench: Matrix) -> None:
    bench.put({"type": "contains", "value": "a"}, {"type": "max-score"}, BEST)
    bench.models.models["model-c"] = FakeModel(lambda request: f"a long reply {last(request)}")
    bench.push(prompts={"support.triage": triage(model="model-b")})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")
    answer = gate(bench, candidate="support.triage@2", model="model-c")
    assert answer["verdict"] == "pass"
    assert (answer["suites"][0]["newly_broken"], answer["suites"][0]["newly_mended"]) == ([], [])
    assert bench.judge.asked == []


def test_the_evidence_of_a_gate_that_compared_holds(bench: Matrix) -> None:
    bench.put(BEST, cases=8)
    bench.push(prompts={"support.triage": triage(model="model-b")})
    bench.registry.move_label("support.triage", "production", 2, ADMIN, reason="set up by a test")
    answer = gate(bench, candidate="support.triage@1")
    with bench.database.read() as session:
        record = routes.evidence(session, answer["suites"][0]["evidence_id"])
        assert record is not None
        assert verify_record(record) == []
        from suites.gate import read_evidence

        given = read_evidence(record["content"]).given
        for role, run_id in (("candidate", "run_1_0c"), ("baseline", "run_1_0b")):
            results = [CaseResult.from_dict(row) for row in runs.cases(session, run_id)]
            assert verify_side(given, role, results) == []
            stored = runs.get(session, run_id)
            assert stored is not None
            summary = {**stored["summary"], "case_status": case_statuses(stored, bench.registry)}
            assert verify_run(given, role, summary, results) == []


def test_what_a_gate_cannot_compare_is_refused(bench: Matrix) -> None:
    bench.put(BEST, thresholds={"pass_rate": 0.1})
    with pytest.raises(BadInput, match="name a --baseline"):
        gate(bench, baseline="none")
    with pytest.raises(BadInput, match="leave out --rerun-failed"):
        gate(bench, baseline="support.triage@1", rerun_failed=True)
    bench.put(BEST, thresholds={"pass_rate": 0.1}, repeat=2, pass_k=1)
    assert gate(bench, baseline="none")["verdict"] == "pass"  # its repeats are compared
