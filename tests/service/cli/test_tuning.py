"""`turnout finetune`, `job` and `jobs` as a user's shell shows them, without a training."""

from __future__ import annotations

from typing import Any

import pytest

from service.cli import progress
from service.cli.progress import Narrator, run_in_words, show_job
from service.cli.testing import prepare, push_siblings
from service.identity import LOCAL_ADMIN
from service.jobs import Jobs
from service.settings import load_settings
from service.store import jobs
from service.store.database import Database
from service.tuning.examples import heldout_cases
from tests.service.cli.projects import SUITE, Project

FILE = "suites/support/triage.suite.yml"
SIBLING = "suites/support/refunds.suite.yml"
HIDDEN = "Where does my money stay"


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    workspace.write(SIBLING, SUITE.replace("I forgot my password", HIDDEN))
    return workspace


def held_out(versions: dict[str, int]) -> set[str]:
    database = Database(load_settings().database_url)
    found = {str(case.vars["ticket"]) for case in heldout_cases(database, versions)}
    database.close()
    return found


def test_a_sibling_suite_of_the_working_tree_is_held_out(project: Project) -> None:
    tree, work, [plan], versions = prepare([FILE], (), local=True)
    assert versions[("suite", "support.triage")] == "support.triage@1"
    assert HIDDEN not in held_out({})

    assert push_siblings(work, tree, plan) == ["support.refunds@1"]
    assert HIDDEN in held_out({})


def test_a_fine_tune_of_a_file_drafts_its_siblings_before_it_is_planned(project: Project) -> None:
    code, _, err = project.run("finetune", FILE, "--local")
    assert (code, "cannot be tuned" in err) == (2, True)
    assert HIDDEN in held_out({})


def test_of_each_suite_the_pushed_version_and_a_newer_draft_are_held_out(project: Project) -> None:
    assert project.run("push", "--local")[0] == 0
    project.write(SIBLING, SUITE.replace("I forgot my password", "Another that is new"))
    tree, work, [plan], _ = prepare([FILE], (), local=True)
    assert push_siblings(work, tree, plan) == ["support.refunds@2"]
    assert {HIDDEN, "Another that is new"} <= held_out({})

    assert project.run("push", "--local")[0] == 0
    assert HIDDEN not in held_out({})  # what was pushed over is no held-out case any more
    project.write(SIBLING, SUITE.replace("I forgot my password", HIDDEN))
    tree, work, [plan], _ = prepare([FILE], (), local=True)
    assert push_siblings(work, tree, plan) == ["support.refunds@1"]
    assert HIDDEN in held_out({"support.refunds": 1})  # the version that a job names


def test_examples_and_a_dataset_together_are_refused(project: Project) -> None:
    code, _, err = project.run("finetune", FILE, "--examples", "more.jsonl", "--dataset", "abcdef", "--local")
    assert (code, "--examples and --dataset both name what to train on" in " ".join(err.split())) == (2, True)


def test_minutes_beyond_what_the_service_takes_are_refused_before_it_is_asked(project: Project) -> None:
    from suites.policy import MOST_MINUTES

    code, _, err = project.run("finetune", FILE, "--minutes", str(MOST_MINUTES + 1), "--local")
    assert code == 2
    assert f"'--minutes': Input should be less than or equal to {MOST_MINUTES}" in " ".join(err.split())


def test_a_prompt_file_that_several_suites_test_is_refused_by_their_names(project: Project) -> None:
    code, _, err = project.run("finetune", "prompts/support/triage.prompt.yml", "--local")
    assert (code, "name the file of one of support.refunds, support.triage" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize("given", ["", "../jobs", "job 1", "job_1?after=2"])
def test_what_is_no_id_of_a_job_is_refused(project: Project, given: str) -> None:
    code, _, err = project.run("job", given, "--local")
    assert (code, "an id is such as job_4f1c9a0b7d2e" in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize("option", [(), ("--cancel",), ("--resume",), ("--watch",)])
def test_a_job_that_is_not_there_is_named_as_it_was_typed(project: Project, option: tuple[str, ...]) -> None:
    for given in ("ftjob-none", "job_none"):
        code, _, err = project.run("job", given, *option, "--local")
        assert (code, err) == (2, f"error: no job '{given}'\n")


# ---------------------------------------------------------------------------- what is shown of a job


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seed-1", "seed 1"),
        ("trial-0-0", "rate 0.001, fold 1"),
        ("trial-1-2", "rate 0.0005, fold 3"),
        ("trial-2-4", "the best rate with dropout, fold 5"),
        ("", ""),
        ("trial-1", "rate 0.0005"),
    ],
)
def test_a_run_is_called_by_what_it_tries(name: str, words: str) -> None:
    assert run_in_words(name, [0.001, 0.0005]) == words


def test_lines_of_a_training_say_which_run_they_are_of(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "plan_lines", lambda _: [])
    narrator = Narrator(lambda *_: None)
    narrator.narrate({"type": "planned", "data": {"search": {"lr_grid": [0.001]}, "recipe": {"lr": 0.1}}})
    evaluated = {"type": "evaluated", "step": 60, "dev_exact": 0.5, "dev_loss": 0.25}
    trial = {"type": "trial", "name": "trial-0-2", "dev_exact": 0.75, "diverged": None}
    for event in ({**evaluated, "run": "trial-0-2"}, trial, {**evaluated, "run": "seed-1"}):
        narrator.narrate({"type": "training", "data": {"event": event}})
    found = {"attempt": 1, "kind": "diverged", "because": "no number at the rate 1", "next": "next attempt: lr 0.333"}
    narrator.narrate({"type": "diagnosis", "data": found})
    assert capsys.readouterr().err.splitlines() == [
        "  rate 0.001, fold 3: step 60: dev 50% exact, loss 0.250",
        "  rate 0.001, fold 3: ended at 75% exact",
        "  seed 1: step 60: dev 50% exact, loss 0.250",
        "attempt 1, diverged: no number at the rate 1; next attempt: lr 0.333",
    ]


def test_a_job_is_shown_with_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"verdict": "refused", "reasons": ["too few examples"]}
    show_job({"job_id": "job_1", "kind": "finetune", "status": "succeeded", "error": None, "result": result})
    assert capsys.readouterr().out.splitlines()[0] == "job_1 finetune succeeded, refused"


def end(database: Database, job_id: str, change: dict[str, Any]) -> None:
    """As the worker that did the job."""
    with database.write() as session:
        job = jobs.claim(session, "w", "2026-01-01T00:00:00", jobs.Free((), "2000", job_id))
        assert job is not None
        jobs.finish(session, job_id, job["token"], change)


def test_jobs_lists_what_each_came_to(project: Project) -> None:
    assert project.run("push", "--local")[0] == 0
    database = Database(load_settings().database_url)
    Jobs(database).submit("finetune", {}, LOCAL_ADMIN, "job_1")
    Jobs(database).submit("run", {}, LOCAL_ADMIN, "job_2")
    end(database, "job_1", {"status": "succeeded", "result": {"verdict": "refused"}})
    Jobs(database).submit("run", {}, LOCAL_ADMIN, "job_3")
    end(database, "job_3", {"status": "failed", "error": "line 3: no object; " * 20})
    database.close()
    assert project.run("jobs", "--local")[1].count("no object") == 5
    listed = {each["job_id"]: (each["verdict"], each["result"]) for each in project.json("jobs", "--local")}
    assert listed == {"job_1": ("refused", None), "job_2": (None, None), "job_3": (None, None)}


def test_of_a_job_that_has_ended_there_is_nothing_to_cancel(project: Project) -> None:
    assert project.run("push", "--local")[0] == 0
    database = Database(load_settings().database_url)
    Jobs(database).submit("run", {}, LOCAL_ADMIN, "job_1")
    Jobs(database).submit("run", {}, LOCAL_ADMIN, "job_2")
    end(database, "job_1", {"status": "succeeded", "finished_at": "2026-01-01T00:00:01"})
    database.close()
    _, out, err = project.run("job", "job_1", "--cancel", "--local")
    assert ("succeeded" in out, "job_1 has ended already, nothing is cancelled: succeeded" in err) == (True, True)
    _, out, err = project.run("job", "job_2", "--cancel", "--local")
    assert ("cancelled" in out, "has ended already" in err) == (True, False)
