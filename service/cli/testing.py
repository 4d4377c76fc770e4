"""Commands that answer whether a change may ship: run, gate, evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Concurrency, Json, Local, Model, NoCache, PromptOption, RerunFailed, Suites

if TYPE_CHECKING:
    from service.cli.project import Project
    from service.cli.work import Work

Candidate = Annotated[
    list[str] | None, typer.Option("--candidate", help="NAME@SEL to test; by default the working tree.")
]
Baseline = Annotated[
    list[str] | None, typer.Option("--baseline", help="NAME@SEL, run:ID, git:REF or none; by default production.")
]


def run(
    suites: Suites = None,
    prompt: PromptOption = None,
    model: Model = None,
    concurrency: Concurrency = 16,
    no_cache: NoCache = False,
    rerun_failed: RerunFailed = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Run a suite: exit 1 on a missed threshold or, without thresholds, on a failed case."""
    from service.cli.exits import OF_VERDICT, of_several
    from service.cli.output import bar, print_json
    from service.gates import RunRequest

    _, work, plans, versions = prepare(suites or [], (prompt,) if prompt else (), local=local)
    results = []
    for plan in plans:
        request = RunRequest(
            suite=versions.get(("suite", plan.suite), plan.suite),
            prompt=plan.candidate or versions.get(("prompt", plan.prompt)),
            model=model,
            concurrency=concurrency,
            no_cache=no_cache,
            rerun_failed=rerun_failed,
        )
        with bar(plan.suite) as advance:
            results.append({k: v for k, v in work.run(request, advance).items() if k != "case_status"})
    if as_json:
        print_json(results[0] if len(results) == 1 else results)
    else:
        _show_runs(work, results)
    return of_several(OF_VERDICT[result["verdict"]] for result in results)


def gate(
    suites: Suites = None,
    candidate: Candidate = None,
    baseline: Baseline = None,
    against: Annotated[
        str | None, typer.Option("--against", help="A git ref: the baseline is the merge base with it.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Let a missed threshold start the suite's fine-tune.")
    ] = False,
    prompt: PromptOption = None,
    model: Model = None,
    concurrency: Concurrency = 16,
    no_cache: NoCache = False,
    rerun_failed: RerunFailed = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a pull-request comment here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json-file", help="Write the JSON here, too.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """May this change ship: 0 pass, 1 fail, 2 bad file, 3 inconclusive, 4 could not run."""
    from prompts.errors import BadInput
    from service.cli.exits import OF_VERDICT
    from service.cli.output import bar, print_json
    from service.cli.project import git
    from service.cli.reports import show_gate, write_reports
    from service.gates import GateRequest

    if fallback and local:
        raise BadInput("--fallback needs a service, which trains in the background: drop --local")
    named = (*(candidate or ()), *((prompt,) if prompt else ()))
    project, work, plans, versions = prepare(suites or [], named, local=local)
    base = list(baseline or ())
    if against:
        merge_base = git(project.root, "merge-base", against, "HEAD") or ""
        base.append(f"git:{merge_base.strip()}")
    request = GateRequest(
        suites=tuple(versions.get(("suite", plan.suite), plan.suite) for plan in plans),
        candidate=tuple(dict.fromkeys(c for p in plans if (c := p.candidate or versions.get(("prompt", p.prompt))))),
        baseline=tuple(_baselines(work, project, base, [plan.prompt for plan in plans])),
        model=model,
        concurrency=concurrency,
        no_cache=no_cache,
        rerun_failed=rerun_failed,
        fallback=fallback,
    )
    with bar("gate") as advance:
        answer = work.gate(request, advance)
    write_reports(work, answer, junit=junit, markdown=markdown, json_file=json_file)
    if as_json:
        print_json(answer)
    else:
        show_gate(answer)
    return OF_VERDICT[answer["verdict"]]


def evidence(evidence_id: str, as_json: Json = False, local: Local = False) -> int:
    """The stored record that a verdict or a promotion rests on, recomputed and compared."""
    from service.cli.output import err, print_json
    from service.cli.work import connect_work
    from service.settings import load_settings
    from suites.gate import read_evidence, recompute

    record = connect_work(load_settings(), local=local).evidence(evidence_id)
    holds = True
    if record["kind"] in ("gate", "promotion"):
        found = read_evidence(record["content"])
        holds = recompute(found) == found.decision
        err().print("recomputed: the same decision" if holds else "recomputed: ANOTHER decision; it was tampered with")
    print_json({**record, "recomputed_equal": holds} if as_json else record)
    return 0 if holds else 1


class Plan:
    """One suite of a command: from a file, with its content, or by a name of the registry."""

    def __init__(self, suite: str, prompt: str, data: dict[str, Any] | None, candidate: str | None) -> None:
        self.suite = suite
        self.prompt = prompt
        self.data = data
        self.candidate = candidate


Prepared = tuple["Project", "Work", list[Plan], dict[tuple[str, str], str]]


def prepare(given: list[str], candidates: tuple[str, ...], *, local: bool) -> Prepared:
    """What every command on suites begins with: read the working tree, push what it tests as drafts."""
    from service.cli.project import Project
    from service.cli.work import connect_work
    from service.settings import load_settings, project_of

    settings = load_settings(start=project_of(Path(text) for text in given if _is_file(text)))
    project = Project(settings)
    work = connect_work(settings, local=local)
    plans = plan_suites(work, project, given, candidates)
    return project, work, plans, push_plans(work, project, plans)


def plan_suites(work: Work, project: Project, given: list[str], candidates: tuple[str, ...]) -> list[Plan]:
    """What each SUITE means: a file is the working tree, a name is the registry.

    Raises every fault of the files, and BadInput for a candidate whose prompt none of the suites tests.
    """
    from prompts.errors import BadInput
    from prompts.names import parse_selector

    named = {parse_selector(text).name: text for text in candidates}
    files = [Path(text) for text in given if _is_file(text)] if given else project.files_of_suites()
    if not given and not files:
        raise BadInput(f"no suites below {project.root / 'suites'}: name one")
    plans = []
    for text in given:
        if not _is_file(text):
            prompt = str(work.suite(text)["prompt"])
            plans.append(Plan(text, prompt, None, named.get(prompt)))
    for suite in project.suites_of(files) if files else []:
        prompt = suite.suite.prompt
        plans.append(Plan(suite.name, prompt, suite.suite.as_data(), named.get(prompt)))
    untested = sorted(named.keys() - {plan.prompt for plan in plans})
    if untested:
        raise BadInput(
            f"{untested[0]!r} is tested by none of {', '.join(plan.suite for plan in plans)}", param="candidate"
        )
    return plans


def _is_file(text: str) -> bool:
    return "/" in text or text.endswith((".yml", ".yaml", ".json")) or Path(text).is_file()


def push_plans(work: Work, project: Project, plans: list[Plan]) -> dict[tuple[str, str], str]:
    """Make versions of the working tree's prompts and suites, moving no label; returns `NAME@N` by kind and name."""
    prompts: dict[str, Any] = {}
    for plan in plans:
        if plan.data is not None and plan.candidate is None:
            prompts |= project.with_includes(plan.prompt)
    suites = {plan.suite: plan.data for plan in plans if plan.data is not None}
    if not suites:
        return {}
    written = work.push(prompts, suites, {"moves_labels": False, "draft": True})
    return {(entry["kind"], entry["name"]): f"{entry['name']}@{entry['version']}" for entry in written}


def _baselines(work: Work, project: Project, given: list[str], prompts: list[str]) -> list[str]:
    """Baselines as the registry knows them: a git revision is pushed first, as a draft.

    Raises BadInput for a revision that git does not know. A prompt that was not there then has no baseline.
    """
    from service.cli.project import git

    found: list[str] = []
    for text in given:
        if not text.startswith("git:"):
            found.append(text)
            continue
        commit = (git(project.root, "rev-parse", "--verify", f"{text.removeprefix('git:')}^{{commit}}") or "").strip()
        for name in dict.fromkeys(prompts):
            files = project.at(commit, name)
            if files is None:
                found.append(f"{name}@none")
                continue
            origin = {"moves_labels": False, "draft": True, "git_sha": commit, "message": f"as of {text}"}
            written = work.push(files, {}, origin)
            found += [f"{name}@{e['version']}" for e in written if (e["kind"], e["name"]) == ("prompt", name)]
    return found


def _show_runs(work: Work, results: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from service.cli.output import err, out, table

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    rows = [
        {
            **result,
            "pass rate": percent(result["pass_rate"]),
            "95%": "–" if not result["ci95"] else " … ".join(percent(bound) for bound in result["ci95"]),
            "p50 ms": round(result["p50_ms"]) if result["p50_ms"] is not None else "–",
        }
        for result in results
    ]
    columns = ("variant", "passed", "failed", "errored", "skipped", "pass rate", "95%", "p50 ms", "verdict", "run_id")
    table(rows, columns)
    for result in results:
        for reason in result["reasons"]:
            style = "green" if result["verdict"] == "pass" else "red"
            out().print(Text(f"{result['suite']}: {reason}", style=style))
        if result["failed"] or result["errored"]:
            bad = [case for case in work.cases(result["run_id"]) if case["status"] in ("failed", "errored")]
            for case in bad[:5]:
                why = case["error"] or "; ".join(o["reason"] for o in case["outcomes"] if o["status"] != "passed")
                err().print(Text(f"  case {case['index'] + 1} {case['status']}: {why[:200]}"))
            if len(bad) > 5:
                err().print(f"  … and {len(bad) - 5} more")
