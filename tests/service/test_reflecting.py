"""What follows from an attempt that did not reach the bar: another recipe, or the reason why there is none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import JobSpec, Measured, Recipe, Row
from service.identity import LOCAL_ADMIN
from service.settings import load_settings
from service.store.database import Database
from service.tuning import reflecting
from service.tuning.claim import Claim
from suites.policy import Budget
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.integration  # a tiny model is made with torch

MEASURED = Measured(
    device="cpu", precision="float32", load_s=2.0, step_s=0.8, largest_step_s=1.0, row_s=0.1, score_row_s=0.02,
    tokens_per_s=400.0, peak_bytes=10**9, free_bytes=10**10, pack_tokens=4096,
)  # fmt: skip
PLANNED = {
    "report": {"given": 40, "contradicting": 0, "conflicts": {"total": 0, "shown": []}},
    "train_at": [10, 11, 12, 13, 14, 15, 16, 17],  # the dataset's numbers of the eight rows
    "measured": MEASURED.model_dump(mode="json"),
}
ROW = Row(messages=({"role": "user", "content": "hi"},), answer="ok")


class Work:
    """As much of the material as reflecting reads."""

    def __init__(self, attempts: int, minutes: float) -> None:
        self.budget = Budget(attempts=attempts, minutes=minutes)
        self.adapter = "triage-1-2"
        self.suite = type("Suite", (), {"thresholds": type("Thresholds", (), {"pass_rate": 0.9})})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    settings = load_settings({"TURNOUT_HOME": str(tmp_path / "home")}, tmp_path)
    return Claim("job_1", 1, LOCAL_ADMIN, Database(settings.database_url), settings, threading.Event())


def point(step: int, exact: float, dev_loss: float, train_loss: float, *, best: bool = True) -> dict[str, Any]:
    return {"step": step, "dev_exact": exact, "dev_loss": dev_loss, "train_loss": train_loss, "best": best}


LEARNING = {
    "train_count": 8, "steps": 60, "best_step": 60, "dev_exact": 0.5, "train_loss_first": 3.0, "train_loss_last": 0.4,
    "evaluations": [point(30, 0.25, 1.2, 0.9), point(60, 0.5, 0.8, 0.4)],
}  # fmt: skip


def reflect(
    monkeypatch: pytest.MonkeyPatch, claim: Claim, model: Path, tried: list[dict[str, Any]], work: Work, **report: Any
) -> tuple[dict[str, Any], JobSpec | None]:
    monkeypatch.setattr(reflecting, "material", lambda *_: work)
    spec = JobSpec(job_id="job_1", base_folder=model, output_dir=claim.folder, train=(ROW,) * 8, dev=(ROW,) * 4)
    return reflecting.reflect(
        claim, len(tried), tried, [spec] * len(tried), {**PLANNED, "report": {**PLANNED["report"], **report}}
    )


def attempt(verdict: str = "no_gain", seconds: float = 30.0, **scores: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"verdict": verdict, "seconds": seconds, "dev": {"total": 4, "before": 2, "after": 2}}
    return {**found, "recipe": Recipe().model_dump(), "scores": LEARNING | scores}


def test_a_run_that_was_still_learning_is_tried_again_for_longer(monkeypatch, claim, model):
    found, spec = reflect(monkeypatch, claim, model, [attempt()], Work(attempts=2, minutes=5))
    assert (found["kind"], found["again"]) == ("underfit", True)
    assert found["next"] == "next attempt: epochs 10, min_steps 120, stop_after_epochs 0"
    assert spec is not None
    assert (spec.recipe.epochs, spec.recipe.min_steps, spec.adapter_name) == (10.0, 120, "triage-1-2")
    assert (spec.search.folds, spec.search.seeds) == (0, (0,))
    assert spec.output_dir == claim.folder / "attempt-2" / "training"


def test_the_last_attempt_of_the_budget_says_what_would_have_been_next(monkeypatch, claim, model):
    found, spec = reflect(monkeypatch, claim, model, [attempt(), attempt()], Work(attempts=2, minutes=5))
    assert (found["again"], spec) == (False, None)
    assert found["next"].endswith("the budget of 2 attempts is spent: raise fallback.budget.attempts, or --attempts")


def test_an_attempt_that_does_not_fit_the_minutes_is_not_begun(monkeypatch, claim, model):
    found, spec = reflect(monkeypatch, claim, model, [attempt(seconds=50.0)], Work(attempts=3, minutes=2))
    assert (found["again"], spec) == (False, None)
    assert "it would take about 1.7 of the 1.2 minutes that are left" in found["next"]  # 120 steps of 8 rows


def test_a_run_that_diverged_is_tried_again_at_a_third_of_the_rate(monkeypatch, claim, model):
    found, spec = reflect(monkeypatch, claim, model, [{"verdict": "diverged", "reasons": ["nan"]}], Work(2, 5))
    assert (found["kind"], found["again"]) == ("diverged", True)
    assert spec is not None
    assert spec.recipe.lr == pytest.approx(0.000333)


BEATEN_ON_DEV = {"total": 4, "before": 1, "after": 3}
FLAT = [point(step, 0.75, 0.3, 0.1, best=False) for step in (20, 40, 60)]


@pytest.mark.parametrize(("verdict", "kind"), [("inconclusive", "reached the bar"), ("fail", "too little data")])
def test_data_lacks_only_where_a_threshold_was_missed(monkeypatch, claim, model, verdict, kind):
    last = attempt(verdict, evaluations=FLAT, dev_exact=0.75)
    last |= {"dev": BEATEN_ON_DEV, "before": {"pass_rate": 0.95}, "after": {"pass_rate": 0.96}}
    last["reasons"] = ["against p@1+m+a, which takes traffic: the gain is not shown"]
    found, spec = reflect(monkeypatch, claim, model, [last], Work(attempts=3, minutes=60))
    assert (found["kind"], spec) == (kind, None)
    told = "no threshold was missed, but against p@1+m+a, which takes traffic: the gain is not shown"
    assert (found["because"] == told) == (verdict == "inconclusive")


def test_nothing_is_tried_again_on_data_that_looks_mislabelled(monkeypatch, claim, model):
    rows = [{"row": row} for row in range(3)]
    found, spec = reflect(monkeypatch, claim, model, [attempt(mislabelled=rows)], Work(attempts=3, minutes=60))
    assert (found["kind"], found["again"], spec) == ("noisy data", False, None)
    assert found["next"] == "correct or remove examples 10, 11, 12, then start again"


def test_contradictions_beyond_those_that_a_report_shows_count(monkeypatch, claim, model):
    shown = [{"indexes": list(range(20))}]  # of thirty examples that all ask the same
    told = {"given": 300, "contradicting": 30, "conflicts": {"total": 1, "shown": shown}}
    found, spec = reflect(monkeypatch, claim, model, [attempt()], Work(attempts=2, minutes=5), **told)
    assert (found["kind"], spec) == ("noisy data", None)
    assert found["because"] == "10% of the examples contradict another"
