"""Commands of the fine-tune: finetune, jobs, job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calling import client
from service.cli.interrupts import ended_by_sigterm
from service.cli.options import Json, Local, PromptOption
from service.cli.selecting import id_in_path

if TYPE_CHECKING:
    from service.settings import Settings

ERROR_SHOWN = 100  # characters in the list of jobs; `turnout job ID` has all of it
Watch = Annotated[
    bool, typer.Option("--watch", help="Stay and show progress until it has ended; with --local, do it here.")
]


@ended_by_sigterm
def finetune(
    suite: Annotated[str, typer.Argument(help="A suite file (the working tree) or a name (the registry).")],
    base: Annotated[
        str | None, typer.Option("--base", help="The model to tune; by default the suite's or the prompt's.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            "--examples", help="JSONL of vars and expected, or OpenAI's chat messages, in place of the suite's."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A stored dataset's digest, in place of the suite's examples.")
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="NAME=VALUE of the recipe, such as lr=0.001; may be repeated.")
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option("--attempts", min=1, max=5, help="Trainings, each with one look at the held-out cases."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, max=7 * 24 * 60, help="Of training, all attempts together.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only: nothing is trained.")] = False,
    watch: Watch = False,
    prompt: PromptOption = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Train an adapter on a suite's examples, compare it on the held-out cases, and move the route if it wins."""
    from prompts.errors import BadInput
    from service.cli.client import connect
    from service.cli.testing import prepare, push_siblings

    if examples is not None and dataset is not None:
        raise BadInput("--examples and --dataset both name what to train on: give one of them", param="dataset")
    fixed = _recipe(recipe or [])
    project, work, plans, versions = prepare([suite], (prompt,) if prompt else (), local=local)
    if len(plans) > 1:
        names = ", ".join(sorted(plan.suite for plan in plans))
        raise BadInput(f"{suite} is tested by several suites: name the file of one of {names}", param="suite")
    plan = plans[0]
    body: dict[str, Any] = {
        "suite": versions.get(("suite", plan.suite), plan.suite),
        "prompt": plan.candidate or versions.get(("prompt", plan.prompt)),
        "base": base,
        "dataset": dataset,
        "recipe": fixed,
        "attempts": attempts,
        "minutes": minutes,
        "dry_run": dry_run,
        "held_out": push_siblings(work, project, plan) if plan.data is not None else [],
    }
    service = connect(project.settings, local=local)
    if examples is not None:
        body["dataset"] = dataset_of(service, examples, body["prompt"] or plan.prompt)
    job = service.call("POST", "/api/finetunes", body={key: value for key, value in body.items() if value is not None})
    if local:
        return _work_here(project.settings, job["job_id"], as_json)
    if not watch and not dry_run:
        return _print_job(service.call("GET", f"/api/jobs/{job['job_id']}"), as_json)
    return _watch(service, job["job_id"], as_json)


def jobs(as_json: Json = False, local: Local = False) -> int:
    """Jobs, newest first."""
    from textwrap import shorten

    from service.cli.output import print_json, table

    found = client(local).call("GET", "/api/jobs")
    if as_json:
        print_json(found)
    else:
        shown = [{**job, "error": shorten(job["error"] or "", ERROR_SHOWN, placeholder=" …")} for job in found]
        table(shown, ("job_id", "kind", "status", "verdict", "created_at", "finished_at", "error"))
    return 0


@ended_by_sigterm
def job(
    job_id: str,
    watch: Watch = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask for its end.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Queue an ended job again; nothing is done twice.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Write its curves as event files to this folder.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="Write its figures to this MLflow tracking server.")
    ] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """One job: its state, its live progress, its end or its resumption."""
    from service.settings import load_settings

    service, job_id = client(local), id_in_path("job", job_id)
    if cancel:
        _cancel(service, job_id)
    if resume:
        service.call("POST", f"/api/jobs/{job_id}/resume")
    found = service.call("GET", f"/api/jobs/{job_id}")
    if not watch and tensorboard is None and mlflow is None:
        return _print_job(found, as_json)
    with _tracked(found, tensorboard, mlflow) as takes:
        if local and found["finished_at"] is None:
            return _work_here(load_settings(), job_id, as_json, takes)
        return _watch(service, job_id, as_json, takes)


def _cancel(service: Any, job_id: str) -> None:
    from service.cli.output import err

    before = service.call("GET", f"/api/jobs/{job_id}")
    after = service.call("POST", f"/api/jobs/{job_id}/cancel")
    if before["finished_at"] is not None and after == before:
        err().print(f"{job_id} has ended already, nothing is cancelled: {before['status']}", markup=False)


@contextmanager
def _tracked(job: dict[str, Any], folder: Path | None, uri: str | None) -> Iterator[list[Any]]:
    """What writes a job's curves to where they are wanted, given its events."""
    from contextlib import ExitStack

    from service.cli import trackers

    with ExitStack() as opened:
        takes: list[Any] = []
        if folder is not None:
            takes.append(opened.enter_context(trackers.tensorboard(folder, job["job_id"])))
        if uri is not None:
            takes.append(opened.enter_context(trackers.mlflow(uri, job)))
        yield takes


def dataset_of(service: Any, path: Path, prompt: str) -> str:
    """The digest of the dataset that a file's examples are stored as."""
    from service.cli.project import read_text

    files = [{"name": path.name, "text": read_text(path, str(path))}]
    return str(service.call("POST", "/api/datasets", body={"prompt": prompt, "files": files})["digest"])


def _recipe(given: list[str]) -> dict[str, Any]:
    """The values as YAML reads them; which names there are, and which values, the service says.

    Raises BadFile with all that are not written as they must be.
    """
    from prompts.errors import BadFile, Fault
    from prompts.yaml_source import load_yaml

    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            faults.append(Fault(f"--recipe {text[:80]}", 0, "expected NAME=VALUE", "write lr=0.001, say"))
            continue
        try:
            found[name] = load_yaml(value, f"--recipe {name}").data
        except BadFile as error:
            faults += error.faults
    if faults:
        raise BadFile(faults)
    return found


def _work_here(settings: Settings, job_id: str, as_json: bool, takes: Sequence[Any] = ()) -> int:
    """Do a job without a service, and show it to its end."""
    from service.cli.own_jobs import work_here

    again, shows = f"turnout job {job_id} --resume --watch --local", f"turnout job {job_id} --watch --local"
    with _shown_to(takes) as (_, on_event):
        ended = work_here(settings, job_id, on_event, again, shows)
    return _print_job(ended, as_json)


def _watch(service: Any, job_id: str, as_json: bool, takes: Sequence[Any] = ()) -> int:
    """Show a job that a service does to its end. An interrupt ends the watching alone."""
    from service.cli.client import follow
    from service.cli.own_jobs import tell_that_it_goes_on

    try:
        with _shown_to(takes) as (watcher, on_event):
            ended = follow(service, job_id, on_event, say=watcher.say)
    except KeyboardInterrupt:
        tell_that_it_goes_on(job_id, f"turnout job {job_id} --watch")
        raise
    return _print_job(ended, as_json)


@contextmanager
def _shown_to(takes: Sequence[Any]) -> Iterator[tuple[Any, Callable[[dict[str, Any]], None]]]:
    """Who shows a fine-tune live, and what gives an event to it and to all of `takes`."""
    from service.cli.live import watching

    with watching("fine-tune") as watcher:

        def on_event(event: dict[str, Any]) -> None:
            for take in (watcher.show, *takes):
                take(event)

        yield watcher, on_event


def _print_job(job: dict[str, Any], as_json: bool) -> int:
    from service.cli.exits import COULD_NOT_RUN, FAILED, OF_VERDICT, PASSED
    from service.cli.output import print_json
    from service.cli.progress import show_job

    result = job["result"] or {}
    names = ("adapter", "evidence_id", "verdict", "before", "after")
    if as_json:
        print_json({**job, **{name: result.get(name) for name in names}})
    else:
        show_job(job)
    if job["status"] == "failed":
        return COULD_NOT_RUN
    if job["kind"] == "finetune" and job["status"] == "succeeded":
        verdict = str(result.get("verdict"))
        return OF_VERDICT.get(verdict, PASSED if verdict == "planned" else FAILED)
    return PASSED
