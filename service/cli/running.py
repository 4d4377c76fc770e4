"""`turnout run`: suites against one variant, or against every one of several prompts × models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.interrupts import ended_by_sigterm
from service.cli.options import (
    Concurrency,
    Csv,
    ForeignOptions,
    Html,
    Json,
    JsonFile,
    Junit,
    Local,
    Markdown,
    NoCache,
    Providers,
    RerunFailed,
    Resume,
    Strict,
    Suites,
)

if TYPE_CHECKING:
    from service.cli.reports import Files
    from service.cli.testing import Plan
    from service.cli.work import Work
    from service.gates import RunRequest

Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="NAME@SEL: a version of the registry in place of the working tree; several compare."),
]
Aliases = Annotated[
    list[str] | None,
    typer.Option("--model", help="Ask this model alias in place of the prompt's own; several compare."),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only cases with this tag; with !TAG those without it.")]
Cases = Annotated[list[str] | None, typer.Option("--case", help="Only the case with this id, or cases with this text.")]
First = Annotated[int | None, typer.Option("--first", min=1, help="Only the first so many cases.")]
Sample = Annotated[int | None, typer.Option("--sample", min=1, help="Only so many cases, drawn by --seed.")]
Seed = Annotated[int, typer.Option("--seed", help="Which sample is drawn.")]
MOST_SHOWN = 5  # cases that did not pass
Statuses = Mapping[str, Mapping[str, str]]  # what the cases of each run came to, by its id


@ended_by_sigterm
def run(
    suites: Suites = None,
    prompt: Prompts = None,
    model: Aliases = None,
    concurrency: Concurrency = 16,
    no_cache: NoCache = False,
    rerun_failed: RerunFailed = False,
    resume: Resume = False,
    tag: Tags = None,
    case: Cases = None,
    first: First = None,
    sample: Sample = None,
    seed: Seed = 0,
    provider: Providers = None,
    strict: Strict = False,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    csv: Csv = None,
    json_file: JsonFile = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Run a suite: exit 1 on a missed threshold or, without thresholds, on a failed case."""
    from prompts.names import parse_selector
    from service.cli.exits import INCONCLUSIVE, OF_VERDICT, of_several
    from service.cli.output import bar, print_json
    from service.cli.reports import Files, command_line
    from service.cli.testing import prepare
    from service.gates import RunRequest
    from suites.filters import Filter
    from suites.judging import check_alone

    _refuse_no_text({"--tag": tag, "--case": case})
    one_each = {parse_selector(text).name: text for text in prompt or ()}
    options = ForeignOptions(tuple(provider or ()), strict)
    versioned = tuple(one_each.values())
    _, work, plans, versions = prepare(suites or [], versioned, local=local, foreign=options, models=model or ())
    chosen = Filter(tags=tuple(tag or ()), cases=tuple(case or ()), first=first, sample=sample, seed=seed)
    asked: dict[str, Any] = {"concurrency": concurrency, "no_cache": no_cache, "rerun_failed": rerun_failed}
    results = []
    asking = [(plan, [*_variants(plan, versions, prompt or [], model or [*plan.models])]) for plan in plans]
    for plan, variants in asking:  # before any of them is run
        if len(variants) == 1 and plan.data is not None:
            check_alone(plan.suite, plan.data)
    for plan, variants in asking:
        requests = [RunRequest(**asked, **each, filter=chosen, rubrics=plan.rubrics(versions)) for each in variants]
        if len(requests) > 1 and _compares(work, plan):
            results += _compared_runs(work, requests, resume=resume)
            continue
        for request in requests:
            with bar(_label(request)) as advance:
                results.append(work.run(request, advance, resume=resume))
    shown = [{k: v for k, v in result.items() if k != "case_status"} for result in _compared(results)]
    left_out = [note for plan in plans for note in plan.left_out]
    if left_out:
        from service.cli.foreign_runs import show_left_out, told

        shown[0]["left_out"] = told(left_out)
    named: dict[str, Any] = {"--prompt": prompt, "--model": model, "--provider": provider, "--tag": tag, "--case": case}
    named |= {"--first": first, "--sample": sample, "--seed": seed if sample else None, "--local": local}
    files = Files(junit, markdown, json_file, html, csv)
    again = command_line("run", suites or (), named)
    statuses = {result["run_id"]: result["case_status"] for result in results}
    could_write = _written(work, plans, shown, files, again, statuses, local=local)
    if as_json:
        print_json(shown[0] if len(shown) == 1 else shown)
    else:
        _show_runs(work, shown, statuses)
        if left_out:
            show_left_out(left_out)
    unasked = [INCONCLUSIVE for plan in plans if plan.unasked]
    return of_several([*could_write, *unasked, *(OF_VERDICT[result["verdict"]] for result in results)])


def _refuse_no_text(given: Mapping[str, list[str] | None]) -> None:
    """Refuse an empty text, or one that is not UTF-8, of options by which cases are chosen."""
    from prompts.errors import BadInput
    from service.cli.selecting import is_text

    for option, texts in given.items():
        for text in texts or ():
            if not text or not is_text(text):
                raise BadInput(f"{option} {text!r}: write a text, as UTF-8, or leave {option} out", param=option)


def _written(
    work: Work,
    plans: list[Plan],
    shown: list[dict[str, Any]],
    files: Files,
    again: str,
    statuses: Statuses,
    *,
    local: bool,
) -> list[int]:
    """Write the reports; the exit code where a file cannot be written, which hides no result."""
    from service.cli.exits import COULD_NOT_RUN
    from service.cli.output import show_error
    from service.cli.reports import Files, write_run_reports
    from service.errors import CannotRun

    if files == Files():
        return []
    asked = {plan.suite.partition("@")[0]: plan for plan in plans}
    called = {name: plan.called(local=local) for name, plan in asked.items()}
    try:
        write_run_reports(work, shown, files, lambda name: asked[name].cases(work), called, again, statuses)
    except CannotRun as error:
        show_error(str(error))
        return [COULD_NOT_RUN]
    return []


def _variants(
    plan: Plan, versions: dict[tuple[str, str], str], prompts: list[str], models: list[str]
) -> Iterator[dict[str, Any]]:
    """What to run of one suite: every prompt that it tests with every model."""
    from prompts.names import parse_selector

    suite = versions.get(("suite", plan.suite), plan.suite)
    own = [text for text in dict.fromkeys(prompts) if parse_selector(text).name == plan.prompt]
    for prompt in own or (versions.get(("prompt", plan.prompt)),):
        for model in dict.fromkeys(models) or (None,):
            yield {"suite": suite, "prompt": prompt, "model": model}


def _compares(work: Work, plan: Plan) -> bool:
    """Whether the answers of several variants of a suite are compared with each other."""
    from suites.judging import compares_answers

    return compares_answers(plan.data or work.suite(plan.suite)["content"])


def _compared_runs(work: Work, requests: list[RunRequest], *, resume: bool) -> list[dict[str, Any]]:
    """A run of each variant; what their cases come to depends on all answers, so they are asked for together."""
    from prompts.errors import BadInput
    from service.cli.output import bar
    from service.questions import MatrixRequest, VariantRequest

    if any(request.rerun_failed for request in requests):
        told = f"suite {requests[0].suite} compares the answers of its variants, and of each case most must fail"
        raise BadInput(f"{told}: leave out --rerun-failed; answers that came are cached", param="rerun_failed")
    of_variant = set(VariantRequest.model_fields)
    variants = tuple(VariantRequest(**request.model_dump(include=of_variant)) for request in requests)
    shared = requests[0].model_dump(exclude={*of_variant, "rerun_failed", "filter"})
    request = MatrixRequest(**shared, variants=variants, filter=requests[0].filter)
    with bar(f"{request.suite} on {len(variants)} variants") as advance:
        return work.matrix(request, advance, resume=resume)


def _label(request: RunRequest) -> str:
    return " ".join(part for part in (request.suite, request.prompt, request.model) if part)


def _compared(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each result, and beside the first of its suite what changed against that."""
    firsts: dict[str, dict[str, Any]] = {}
    for result in results:
        first = firsts.setdefault(result["suite"], result)
        yield result if first is result else {**result, "against_first": _difference(first, result)}


def _difference(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Paired by case: how many broke, how many mended, and the exact two-sided p-value of that."""
    from suites.outcomes import paired_statuses
    from suites.statistics import mcnemar_p

    pairs = Counter(paired_statuses(first["case_status"], other["case_status"]))
    both = {pair: count for pair, count in pairs.items() if "skipped" not in pair}
    paired = sum(both.values())
    broken = sum(count for (before, now), count in both.items() if before == "passed" != now)
    mended = sum(count for (before, now), count in both.items() if before != "passed" == now)
    p_value = min(1.0, 2 * min(mcnemar_p(broken, mended), mcnemar_p(mended, broken)))
    difference = (mended - broken) / paired if paired else None
    return {"paired": paired, "broken": broken, "mended": mended, "difference": difference, "p_value": p_value}


def _show_runs(work: Work, results: list[dict[str, Any]], statuses: Statuses) -> None:
    from rich.text import Text

    from prompts.wording import many
    from service.cli.output import err, out, table

    table([_row(result) for result in results], _columns(results))
    for result in results:
        if "against_first" in result:
            first = next(each for each in results if each["suite"] == result["suite"])
            err().print(Text(f"case by case: turnout compare {first['run_id']} {result['run_id']}"))
        if result.get("filter"):
            err().print(Text(f"{result['run_id']}: some of the cases only, which is no evidence for a gate"))
        if "rerun" in result:
            err().print(Text(f"{result['run_id']}: {rerun_in_words(result['rerun'])}"))
        if result["retries"]:
            err().print(Text(f"{result['run_id']}: repeated after a failure: {many(result['retries'], 'attempt')}"))
        if result["judges"]:
            err().print(Text(f"{result['run_id']}: judges took {judges_in_words(result['judges'])}"))
        if result["waiting"]:
            told = f"{waiting_in_words(work, result)}: turnout judge waiting {result['run_id']}"
            out().print(Text(f"{result['suite']}: {told}", style="yellow"))
        for reason in result["reasons"]:
            style = "green" if result["verdict"] == "pass" else "red"
            out().print(Text(f"{result['suite']}: {reason}", style=style))
        if result["failed"] or result["errored"]:
            _show_bad_cases(work, result, statuses[result["run_id"]])


def waiting_in_words(work: Work, result: dict[str, Any]) -> str:
    """How many cases wait for people, and how many ratings that takes: equal answers to one case take one."""
    cases = "1 case waits" if result["waiting"] == 1 else f"{result['waiting']} cases wait"
    skipped = work.cases(result["run_id"], ("skipped",))
    answers = len({(case["case_id"], case["output"]) for case in skipped if case["output"] is not None})
    more = f" ({answers} answers to rate)" if answers != result["waiting"] else ""
    return f"{cases} for people{more}"


def rerun_in_words(rerun: dict[str, Any]) -> str:
    """What a re-run is, and what it is not."""
    kept = f"a re-run of {rerun['of']}, of which {rerun.get('kept', 0)} results are kept"
    if rerun["asks"] == "errored":
        return f"{kept}; what had errored or was not asked is asked again"
    return f"{kept}; cases that had not passed got a second chance, so it is no evidence for a gate"


def judges_in_words(judges: dict[str, Any]) -> str:
    """What judging took, apart from the model under test."""
    cost = "" if judges["cost_usd"] is None else f", {judges['cost_usd']:.4f} USD"
    return f"{judges['prompt']:,} + {judges['completion']:,} tokens{cost}"


def _columns(results: list[dict[str, Any]]) -> tuple[str, ...]:
    always = ("variant", "passed", "failed", "errored", "skipped", "pass rate", "95%", "p50 ms")
    cost = ("$/1k",) if any(result["cost_per_1k_usd"] is not None for result in results) else ()
    first = ("vs first", "p") if any("against_first" in result for result in results) else ()
    return (*always, *cost, *first, "verdict", "run_id")


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """One run as the table shows it."""
    paired, cost = result.get("against_first"), result["cost_per_1k_usd"]
    return {
        **result,
        "pass rate": _percent(result["pass_rate"]),
        "95%": "–" if not result["ci95"] else " … ".join(_percent(bound) for bound in result["ci95"]),
        "p50 ms": round(result["p50_ms"]) if result["p50_ms"] is not None else "–",
        "$/1k": "–" if cost is None else f"{cost:.4g}",
        "vs first": "–" if not paired or paired["difference"] is None else f"{paired['difference']:+.1%}",
        "p": f"{paired['p_value']:.3f}" if paired else "–",
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _show_bad_cases(work: Work, result: dict[str, Any], came_to: Mapping[str, str]) -> None:
    """The first cases that did not pass, each with the reason of its first repeat that did not."""
    from rich.text import Text

    from service.cli.changes import BAD
    from service.cli.output import err
    from suites.outcomes import status_at

    shown: dict[str, dict[str, Any]] = {}
    for case in work.cases(result["run_id"], BAD):
        if status_at(came_to, case["index"], case["case_id"]) in BAD:
            shown.setdefault(case["case_id"], case)
        if len(shown) == MOST_SHOWN:
            break
    for case in shown.values():
        why = case["error"] or "; ".join(o["reason"] for o in case["outcomes"] if o["status"] != "passed")
        err().print(Text(f"  case {case['index'] + 1} {case['status']}: {why[:200]}"))
    left = result["failed"] + result["errored"] - MOST_SHOWN
    if left > 0:
        err().print(f"  … and {left} more")
