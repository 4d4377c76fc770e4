"""What is shown of a training job under way, and what is written of it for TensorBoard and MLflow."""

from __future__ import annotations

import io
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from prompts.errors import BadInput
from service.cli import client as clients
from service.cli import trackers
from service.cli.course import Course
from service.cli.live import Tenths, View, watching
from service.cli.plotting import chart
from service.cli.progress import Narrator
from service.errors import CannotRun

PLAN = {"search": {"folds": 0, "lr_grid": [], "seeds": [3]}, "recipe": {"lr": 0.001}, "training_s": 60.0}


def told(second: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"number": second, "at": f"2026-11-01T10:00:{second:02}.000000+00:00", "type": kind, "data": data}


def trained(second: int, kind: str, **event: Any) -> dict[str, Any]:
    return told(second, "training", line=second, event={"type": kind, **event})


def step(second: int, number: int, loss: float, run: str = "seed-3") -> dict[str, Any]:
    more = {"lr": 0.001, "tokens_per_s": 120.0, "memory_bytes": 3_000_000_000}
    return trained(second, "step", run=run, step=number, of=10, loss=loss, **more)


def evaluated(second: int, number: int, exact: float, loss: float, run: str = "seed-3") -> dict[str, Any]:
    return trained(second, "evaluated", run=run, step=number, dev_exact=exact, dev_loss=loss, train_loss=1.0, best=True)


EVENTS = [
    told(0, "planned", **PLAN),
    trained(1, "started"),
    *(step(number + 1, number, 2.0 / number) for number in range(1, 6)),
    evaluated(6, 5, 0.5, 0.8),
]


def course_of(events: list[dict[str, Any]]) -> Course:
    course = Course()
    for event in events:
        course.add(event)
    return course


def test_the_course_of_a_job_tells_how_far_it_is_and_how_long_it_takes() -> None:
    course = course_of(EVENTS)

    assert (course.phase, course.run, course.step, course.of) == ("training", "seed-3", 5, 10)
    assert course.share == 0.5
    assert course.left_s == pytest.approx(4.0)  # five steps took the time from second 2 to second 6
    assert course.losses[-1] == (5, 0.4)
    assert (course.dev_losses, course.dev_scores) == ([(5, 0.8)], [(5, 0.5)])


def test_before_the_first_step_the_plan_says_how_long_it_takes() -> None:
    assert course_of(EVENTS[:2]).left_s == 60.0
    assert course_of([]).left_s is None


def test_runs_of_a_search_share_the_bar() -> None:
    search = {"folds": 3, "lr_grid": [0.1, 0.2], "seeds": [1]}
    course = course_of(
        [told(0, "planned", **PLAN | {"search": search}), step(1, 10, 1.0, "trial-0-0"), step(2, 5, 1.0, "trial-0-1")]
    )

    assert course.runs_planned == 7
    assert course.share == pytest.approx(1.5 / 7)


def test_steps_that_are_taken_again_after_a_kill_are_drawn_once() -> None:
    assert course_of([*EVENTS, step(9, 4, 0.3)]).losses == [(1, 2.0), (2, 1.0), (3, pytest.approx(2 / 3)), (4, 0.3)]


def test_a_chart_draws_a_falling_line_from_the_left_above_to_the_right_below() -> None:
    found = chart([[(0, 1.0), (1, 0.0)]], 4, 2)

    assert ["".join(cell for cell, _ in row) for row in found.cells] == ["⠑⢄  ", "  ⠑⢄"]
    assert (found.low, found.high) == (0.0, 1.0)
    assert chart([[(0, 0.5)]], 4, 2, bounds=(0.0, 1.0)).high == 1.0


def test_a_chart_of_nothing_or_of_no_numbers_is_blank() -> None:
    some: tuple[list[list[tuple[float, float]]], ...] = ([], [[]], [[(0.0, float("nan"))]])
    for curves in some:
        assert {cell for row in chart(curves, 3, 2).cells for cell in row} == {(" ", -1)}


def test_the_view_shows_run_loss_and_time_left() -> None:
    narrator = Narrator(lambda *_: None)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(View("fine-tune", course_of(EVENTS), narrator))
    shown = console.file.getvalue()

    for part in ("50%", "seed 3 (1 of 1)", "step 5/10", "120 tokens/s", "3.0 GB", "4 s left", "dev, share exact"):
        assert part in shown
    assert any("⠀" < character <= "⣿" for character in shown)


def test_the_view_keeps_its_two_lines_whole_on_a_terminal_of_80_columns() -> None:
    events = [*EVENTS, step(9, 6, 0.3, "seed-2032466513")]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(View("fine-tune", course_of(events), Narrator(lambda *_: None)))
    first, second, third = console.file.getvalue().splitlines()[:3]

    assert first.rstrip().endswith("left")
    assert second.rstrip() == "seed 2032466513 (2 of 2), step 6/10, 120 tokens/s, 3.0 GB"
    assert third.startswith("train loss")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_said_beside_the_events_stands_above_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with watching("fine-tune") as watcher:
        for event in EVENTS:
            watcher.show(event)
        drawn = len(terminal.getvalue())
        watcher.say("the service is away")
        before, _, after = terminal.getvalue()[drawn:].partition("the service is away")

    assert "\x1b[2K" in before  # the view is taken off the screen first,
    assert "train loss" in after  # and drawn anew below


def test_the_live_view_is_drawn_where_something_changed_and_at_most_four_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    drawn: list[float] = []
    plain = Live.refresh
    monkeypatch.setattr(Live, "refresh", lambda live: (drawn.append(time.monotonic()), plain(live)))
    with watching("fine-tune") as watcher:
        drawn.clear()
        time.sleep(0.6)
        assert drawn == []  # nothing happened
        began_s = time.monotonic()
        while time.monotonic() < began_s + 1.0:
            for event in EVENTS[1:]:
                watcher.show(event)
            time.sleep(0.01)
        time.sleep(0.5)
        assert 3 <= len(drawn) <= 6
        assert min(after - before for before, after in pairwise(drawn)) > 0.2
        assert "step 5/10" in terminal.getvalue()  # what came last is drawn, too


def test_a_name_with_colons_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Narrator(Tenths()).narrate(told(1, "model", name="ft:small:acme:watch:1", adapter="a", step=None))

    assert capsys.readouterr().err == "served as ft:small:acme:watch:1\n"


def test_examples_that_stand_in_both_files_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for in_both in (0, 8):
        Narrator(Tenths()).narrate(told(1, "validated", examples=40, in_both=in_both))

    assert capsys.readouterr().err == "40 examples\n40 examples, 8 of the validation file's among them\n"


def test_without_a_terminal_each_tenth_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    narrate = Narrator(Tenths()).narrate
    for event in EVENTS:
        narrate(event)

    lines = capsys.readouterr().err.splitlines()
    assert "  training, seed 3, loss 1.000: 2 of 10" in lines
    assert len([line for line in lines if "of 10" in line]) == 5


class Away:
    """A service that answers once, is away twice, and is back with the job ended."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self, method: str, path: str, **more: Any) -> Any:
        self.calls += 1
        if self.calls in (3, 4):
            raise CannotRun("no service at http://x")
        if path.endswith("/events"):
            return [told(1, "planned")] if more["params"]["after"] == 0 else []
        return {"status": "running" if self.calls < 5 else "succeeded"}


class Long:
    """A job that ends once it was looked at a hundred times."""

    def __init__(self) -> None:
        self.looks = 0

    def call(self, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/events"):
            return []
        self.looks += 1
        return {"status": "running" if self.looks < 100 else "succeeded"}


def test_a_job_is_looked_at_often_at_first_and_twice_a_second_later(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(clients, "time", clock)
    clients.follow(Long(), "job_1", lambda event: None)

    assert slept[:20] == [0.1] * 20
    assert slept[-1] == 0.5
    assert max(slept) == 0.5


def test_watching_outlasts_a_service_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "AWAY_S", 0.0)
    said: list[str] = []
    seen: list[str] = []
    ended = clients.follow(Away(), "job_1", lambda event: seen.append(event["type"]), say=said.append)

    assert ended == {"status": "succeeded"}
    assert seen == ["planned"]
    assert said == [
        "the service is away (no service at http://x); watching goes on when it is back",
        "the service is back",
    ]


def test_the_figures_of_events_are_named_by_their_run() -> None:
    found = [one for event in EVENTS for one in trackers.scalars(event)]

    assert (found[0].run, found[0].name, found[0].step, found[0].value) == ("seed-3", "train/loss", 1, 2.0)
    assert {one.name for one in found} == {
        "train/loss", "train/lr", "train/tokens_per_s", "train/memory_bytes", "dev/loss", "dev/exact",
    }  # fmt: skip


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # made again, it replaces itself
        with trackers.tensorboard(tmp_path, "job_1") as take:
            for event in EVENTS:
                take(event)
    read = EventAccumulator(str(tmp_path / "job_1" / "seed-3"))
    read.Reload()

    assert [(one.step, one.value) for one in read.Scalars("dev/exact")] == [(5, 0.5)]
    assert [one.step for one in read.Scalars("train/loss")] == [1, 2, 3, 4, 5]


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
def test_mlflow_holds_what_was_written(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra `mlflow` is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    job = {"job_id": "job_1", "kind": "fine_tuning", "created_by": "key_1", "spec": {"base": "small"}}
    for _ in range(2):
        with trackers.mlflow(uri, job) as take:
            for event in EVENTS:
                take(event)
    client = tracking.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("turnout").experiment_id])

    assert sorted(run.info.run_name for run in runs) == ["job_1", "seed-3"]
    [parent] = [run for run in runs if run.info.run_name == "job_1"]
    assert (parent.data.tags["turnout.base"], parent.data.params["recipe.lr"]) == ("small", "0.001")
    [child] = [run for run in runs if run.info.run_name == "seed-3"]
    assert child.data.metrics["dev/exact"] == 0.5
    assert len(client.get_metric_history(child.info.run_id, "train/loss")) == 5


class FakeMlflow:
    """As much of MLflow's client as is used here; `states` are those of the runs, by their names."""

    def __init__(self, uri: str) -> None:
        self.states: dict[str, str] = {}
        FakeMlflow.newest = self

    newest: FakeMlflow

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="0")

    def search_runs(self, experiments: list[str], wanted: str) -> list[Any]:
        return []

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        self.states[run_name] = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.states[run_id] = status

    def log_metric(self, *_: Any) -> None: ...

    log_param = set_tag = log_metric


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    exceptions: Any = ModuleType("mlflow.exceptions")
    exceptions.MlflowException = RuntimeError
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    tracking: Any = ModuleType("mlflow.tracking")
    tracking.MlflowClient = FakeMlflow
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)


JOB: dict[str, Any] = {"job_id": "job_1", "kind": "fine_tuning", "created_by": "key_1", "spec": {}}


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (["succeeded"], "FINISHED"),
        (["failed"], "FAILED"),
        (["cancelled"], "KILLED"),
        (["failed", "resumed", "succeeded"], "FINISHED"),
        (["cancelled", "resumed"], "RUNNING"),
        ([], "RUNNING"),
    ],
)
def test_runs_in_mlflow_have_the_state_that_the_job_came_to(fake_mlflow: None, ends: list[str], state: str) -> None:
    with trackers.mlflow("http://x", JOB) as take:
        for event in (*EVENTS, *(told(20 + at, kind, error=None) for at, kind in enumerate(ends))):
            take(event)

    assert FakeMlflow.newest.states == {"job_1": state, "seed-3": state}


def test_runs_in_mlflow_go_on_where_the_watching_is_interrupted(fake_mlflow: None) -> None:
    def watch() -> None:
        with trackers.mlflow("http://x", JOB) as take:
            for event in EVENTS:
                take(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch()
    assert FakeMlflow.newest.states == {"job_1": "RUNNING", "seed-3": "RUNNING"}


def test_what_is_not_installed_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(BadInput, match=r"turnout\[tensorboard\]"), trackers.tensorboard(tmp_path, "job_1"):
        pass
    with pytest.raises(BadInput, match=r"turnout\[mlflow\]"), trackers.mlflow("http://x", {}):
        pass
