"""Commands on judges: how far they agree with people, and what people say themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calling import call
from service.cli.interrupts import ended_by_sigterm
from service.cli.options import Concurrency, Json, Local, NoCache
from service.cli.selecting import id_in_path

if TYPE_CHECKING:
    from suites.case import Case, Label, Suite

judge = typer.Typer(
    help="Judges of a suite: their agreement with people, and answers that wait for people.", no_args_is_help=True
)
MOST_SHOWN = 5  # labels that the judge sees otherwise
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="JSON lines of {vars, output, label, metric}; by default the suite's, else ratings."),
]


@judge.command("calibrate")
@ended_by_sigterm
def calibrate(
    suite: Annotated[str, typer.Argument(help="A suite's file (the working tree) or its name (the registry).")],
    labels: Labels = None,
    concurrency: Concurrency = 16,
    no_cache: NoCache = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Measure how far a suite's judges agree with people; exit 1 where one of them is below the suite's floor."""
    from service.calibration import CalibrationRequest
    from service.cli.exits import FAILED, PASSED
    from service.cli.output import bar, print_json
    from service.cli.testing import prepare

    read = _read_labels(labels) if labels else None
    _, work, [plan], versions = prepare([suite], (), local=local)
    request = CalibrationRequest(
        suite=versions.get(("suite", plan.suite), plan.suite),
        prompt=versions.get(("prompt", plan.prompt)),
        rubrics=plan.rubrics(versions),
        labels=read,
        concurrency=concurrency,
        no_cache=no_cache,
    )
    with bar("calibrate") as advance:
        found = work.calibrate(request, advance)
    if as_json:
        print_json(found)
    else:
        _show(found)
    return FAILED if any(grader["below_floor"] for grader in found["graders"]) else PASSED


def _read_labels(path: Path) -> tuple[Label, ...]:
    """The labels of a JSON-lines file; raises BadFile with every fault."""
    from prompts.errors import BadFile, Fault
    from service.cli.project import read_text
    from suites.case import Label
    from suites.files import read_lines

    faults: list[Fault] = []
    found = read_lines(read_text(path, str(path)), str(path), Label, faults)
    if not found and not faults:
        faults.append(
            Fault(str(path), 0, "it holds no labels", 'write lines of {"vars": …, "output": …, "label": "pass"}')
        )
    if faults:
        raise BadFile(faults)
    return tuple(found)


def _show(found: dict[str, Any]) -> None:
    from service.calibration import errors_in_words
    from service.cli.output import err, out, table
    from service.cli.running import judges_in_words

    rows = [
        {
            "assertion": grader["type"],
            "metric": grader["metric"],
            "judge": grader["model"],
            "labels": grader["n"],
            "accuracy": _with_interval(grader["accuracy"], grader["accuracy_ci95"]),
            "kappa": _with_interval(grader["kappa"], grader["kappa_ci95"]),
            "judge/people: pass/pass pass/fail fail/pass fail/fail": " ".join(map(str, grader["confusion"].values())),
            "errored": grader["errored"],
        }
        for grader in found["graders"]
    ]
    table(rows, tuple(rows[0]))
    for grader in found["graders"]:
        if grader["below_floor"]:
            out().print(f"{grader['type']}: {grader['below_floor']}", style="red", markup=False)
    for each in found["disagreements"][:MOST_SHOWN]:
        err().print(f"  label {each['row']}: {each['type']} says {each['judge']}", markup=False)
    if len(found["disagreements"]) > MOST_SHOWN:
        err().print(f"  … and {len(found['disagreements']) - MOST_SHOWN} more")
    for told in errors_in_words(each["error"] for each in found["errors"]):
        err().print(f"  no judgement: {told}", markup=False)
    out().print(f"judges took {judges_in_words(found['judges'])}", markup=False)
    out().print(f"calibration {found['calibration_id']}", markup=False)


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} … {interval[1]:.3f})" if interval else "")


@judge.command("waiting")
def waiting(
    run: Annotated[str, typer.Argument(help="The id of a run.")], as_json: Json = False, local: Local = False
) -> int:
    """Answers of a run that wait for people, with what people are asked; equal answers to one case are there once."""
    from service.cli.output import print_json, table

    there = call(local, "GET", f"/api/runs/{id_in_path('run', run)}/cases", params={"waiting": True})
    suite = _suite_of(run, local=local) if there else None
    found = [_waiting(case, suite.tests[case["index"]]) for case in there] if suite else []
    if as_json:
        print_json(found)
    else:
        rows = [
            {**each, "metrics": ", ".join(each["metrics"]), "asked": "; ".join(map(str, each["asked"]))}
            for each in found
        ]
        table(rows, ("number", "case", "repeat", "metrics", "asked", "output"))
    return 0


def _suite_of(run: str, *, local: bool) -> Suite:
    """The version of a suite that a run asked."""
    from suites.case import Suite

    name, _, number = call(local, "GET", f"/api/runs/{id_in_path('run', run)}")["suite"].partition("@")
    return Suite.from_data(call(local, "GET", f"/api/suites/{name}", params={"version": number})["content"])


def _waiting(result: dict[str, Any], case: Case) -> dict[str, Any]:
    """An answer that waits, with what is asked of it for each metric; "" where the assertion asks nothing."""
    from suites.assertions import walk
    from suites.assertions.people import HUMAN

    specs = [spec for whole in case.filled_asserts() for spec in walk(whole) if spec.type == HUMAN]
    questions = {spec.metric or HUMAN: spec.value or "" for spec in specs}
    return {
        "number": result["index"] + 1,
        "case": result["case_id"],
        "repeat": result["repeat"],
        "metrics": result["waiting"],
        "asked": [questions.get(metric, "") for metric in result["waiting"]],
        "output": result["output"],
    }


@judge.command("rate")
def rate(
    run: Annotated[str, typer.Argument(help="The id of a run.")],
    case: Annotated[str, typer.Argument(help="The id of a case, or its number in the suite.")],
    score: Annotated[float, typer.Option("--score", min=0, max=1, help="From 0, wrong, to 1, right.")],
    repeat: Annotated[int, typer.Option("--repeat", min=0, help="Which repeat of the case, counted from 0.")] = 0,
    metric: Annotated[str, typer.Option("--metric", help="The metric of the assertion that waits.")] = "human",
    comment: Annotated[str | None, typer.Option("--comment", help="Why.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Say how good a run's answer is; it counts for the same answer in every run."""
    from service.cli.output import out, print_json
    from service.ratings import rating_id

    case_id = _case_id(run, case, local=local)
    body = {"completion_id": rating_id(case_id, run, repeat), "metric": metric, "value": score, "comment": comment}
    found = call(local, "POST", "/api/feedback", body=body)
    if as_json:
        print_json(found)
    else:
        out().print(f"{case_id}: {metric} {score:g}", markup=False)
    return 0


def _case_id(run: str, case: str, *, local: bool) -> str:
    """The case by its id, or by its number in the suite. Raises BadInput where the run has none of it."""
    from prompts.errors import BadInput

    if not case.isdigit() or len(case) == 16:
        return case
    cases = call(local, "GET", f"/api/runs/{id_in_path('run', run)}/cases")
    found = [each["case_id"] for each in cases if each["index"] == int(case) - 1]
    if not found:
        raise BadInput(f"run {run} has no answer to case {case}", param="case")
    return str(found[0])
