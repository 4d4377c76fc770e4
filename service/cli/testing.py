"""Commands that answer whether a change may ship: run, gate, evidence."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
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
    Model,
    NoCache,
    PromptOption,
    Providers,
    RerunErrored,
    Resume,
    Strict,
    Suites,
)

if TYPE_CHECKING:
    from prompts.formats.imported import LeftOut
    from service.cli.project import Project
    from service.cli.reports import Named
    from service.cli.work import Work
    from suites.case import Case, Suite
    from suites.rows import Place

Candidate = Annotated[
    list[str] | None, typer.Option("--candidate", help="NAME@SEL to test; by default the working tree.")
]
Baseline = Annotated[
    list[str] | None, typer.Option("--baseline", help="NAME@SEL, run:ID, git:REF or none; by default production.")
]


@ended_by_sigterm
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
    affected: Annotated[
        bool, typer.Option("--affected", help="Only suites that a change since --against (in CI: its base) can affect.")
    ] = False,
    require_suites: Annotated[
        bool, typer.Option("--require-suites", help="With --affected: a changed prompt that no suite tests fails.")
    ] = False,
    prompt: PromptOption = None,
    model: Model = None,
    concurrency: Concurrency = 16,
    no_cache: NoCache = False,
    rerun_failed: RerunErrored = False,
    resume: Resume = False,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    csv: Csv = None,
    json_file: JsonFile = None,
    provider: Providers = None,
    strict: Strict = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """May this change ship: 0 pass, 1 fail, 2 bad file, 3 inconclusive, 4 could not run."""
    from prompts.errors import BadInput
    from service.cli.baselines import GIT, merge_base, read_baselines
    from service.cli.exits import COULD_NOT_RUN, INCONCLUSIVE, OF_VERDICT, of_several
    from service.cli.gating import check_asked, end_with_nothing, select
    from service.cli.output import bar, print_json, show_error
    from service.cli.reports import Files, command_line, with_origins, write_nothing, write_reports
    from service.cli.showing import show_gate
    from service.errors import CannotRun
    from service.gates import GateRequest

    if against and baseline and not affected:  # which then tells only what changed
        raise BadInput("--against and --baseline both name a baseline: give one of them", param="baseline")
    if against == "" and not affected:  # an unset variable of a script: without a baseline the gate would say less
        raise BadInput("--against '': write a revision, such as origin/main, or leave --against out", param="against")
    if fallback and local:
        raise BadInput("--fallback needs a service, which trains in the background: drop --local")
    named = (*(candidate or ()), *((prompt,) if prompt else ()))
    options = ForeignOptions(tuple(provider or ()), strict, apart=True)
    check_asked(affected, require_suites, named)
    models = (model,) if model is not None else ()
    project, work, plans = planned(suites or [], named, local=local, foreign=options, models=models)
    selection = select(project, plans, against, model, requires_suites=require_suites) if affected else None
    if selection is not None:
        plans, against = [*selection.plans], None if baseline else selection.found.against
        if not plans:
            write_nothing(Files(html=html, csv=csv), selection.nothing())
            return end_with_nothing(selection, junit, markdown, json_file, as_json=as_json)
    versions = push_plans(work, project, plans)
    base = [*(baseline or ()), *([f"{GIT}{merge_base(project, against)}"] if against else ())]
    baselines = read_baselines(work, project, base, plans)
    request = GateRequest(
        suites=tuple(versions.get(("suite", plan.suite), plan.suite) for plan in plans),
        candidate=tuple(dict.fromkeys(c for p in plans if (c := p.candidate or versions.get(("prompt", p.prompt))))),
        baseline=baselines.selectors,
        model=model,
        concurrency=concurrency,
        no_cache=no_cache,
        rerun_failed=rerun_failed,
        fallback=fallback,
        rubrics=tuple(dict.fromkeys(pin for plan in plans for pin in plan.rubrics(versions))),
        held_out=_siblings(work, project, plans) if fallback else (),
    )
    with bar("gate") as advance:
        answer = work.gate(request, advance, resume=resume)
    answer = {**answer, "notes": [*baselines.notes, *answer.get("notes", ())]}
    answer = selection.told(answer) if selection else answer
    answer = with_origins(answer, (versions[key] for key in versions if key[0] == "prompt"), baselines.origins)
    asked = {plan.suite.partition("@")[0]: plan for plan in plans}
    called = {name: plan.called(local=local) for name, plan in asked.items()}
    files = Files(junit, markdown, json_file, html, csv)
    chosen: dict[str, Any] = {"--affected": affected, "--candidate": candidate, "--prompt": prompt, "--model": model}
    chosen |= {"--provider": provider, "--baseline": baseline, "--against": against, "--local": local}
    again = command_line("gate", suites or (), chosen)
    codes = [OF_VERDICT[answer["verdict"]]]
    left_out = [note for plan in plans for note in plan.left_out]
    if left_out:
        from service.cli.foreign_runs import show_left_out, told

        answer = {**answer, "left_out": told(left_out)}
    codes += [INCONCLUSIVE for plan in plans if plan.unasked]
    try:
        write_reports(work, answer, files, lambda name: asked[name].cases(work), called, again)
        if selection is not None:
            selection.mark(junit, markdown)
    except CannotRun as error:  # the verdict is told all the same
        show_error(str(error))
        codes.append(COULD_NOT_RUN)
    if as_json:
        print_json(answer)
    else:
        show_gate(work, answer, lambda name: asked[name].cases(work))
        if left_out:
            show_left_out(left_out)
    return of_several(codes)


def _siblings(work: Work, project: Project, plans: Sequence[Plan]) -> tuple[str, ...]:
    """Versions of the working tree's suites of the same prompts, whose cases no fine-tune of these may see."""
    from_files = [plan for plan in plans if plan.data is not None]
    return tuple(sorted({version for plan in from_files for version in push_siblings(work, project, plan)}))


class Plan:
    """One suite of a command: from files, with its content, or by a name of the registry."""

    def __init__(
        self, suite: str, prompt: str, data: Suite | None, candidate: str | None, sources: Sequence[Path] = ()
    ) -> None:
        self.suite = suite
        self.prompt = prompt
        self.data = data
        self.candidate = candidate
        self.sources = sources
        self.prompt_data: dict[str, Any] | None = None  # of a prompt that no file of the working tree has
        self.models: tuple[str, ...] = ()  # that another tool's file names
        self.left_out: tuple[LeftOut, ...] = ()  # of that file
        self.places: Sequence[Place] = ()  # of the cases in their files
        self.unasked = 0

    def cases(self, work: Work) -> Sequence[Case]:
        """The suite's cases: those of its file, else what the registry has."""
        return self.data.tests if self.data is not None else work.cases_of(self.suite)

    @property
    def named(self) -> str:
        """What a command calls it: its file, else its name."""
        return os.path.relpath(self.sources[0]) if self.data is not None and self.sources else self.suite

    def called(self, *, local: bool) -> Named:
        """What reports call it by: as a command does, with the options of all commands, and its file in the repository."""
        from service.cli.project import below_repository
        from service.cli.reports import Named

        file = below_repository(self.sources[0]) if self.data is not None and self.sources else ""
        return Named(self.named, " --local" if local else "", file, self.places)

    @cached_property
    def rubric_names(self) -> frozenset[str]:
        """The prompts by which a suite of the working tree has its answers judged, those of a version aside."""
        from suites.judging import Needs

        if self.data is None:
            return frozenset()
        return frozenset(name for name in Needs.of_suite(self.data).rubrics if "@" not in name)

    def rubrics(self, versions: dict[tuple[str, str], str]) -> tuple[str, ...]:
        """The versions of these that were pushed as drafts."""
        return tuple(found for name in sorted(self.rubric_names) if (found := versions.get(("prompt", name))))


Planned = tuple["Project", "Work", list[Plan]]


def prepare(
    given: list[str],
    candidates: tuple[str, ...],
    *,
    local: bool,
    foreign: ForeignOptions | None = None,
    models: Sequence[str] = (),
) -> tuple[Project, Work, list[Plan], dict[tuple[str, str], str]]:
    """What commands on suites begin with: read the working tree, push what it tests as drafts."""
    project, work, plans = planned(given, candidates, local=local, foreign=foreign, models=models)
    return project, work, plans, push_plans(work, project, plans)


def planned(
    given: list[str],
    candidates: tuple[str, ...],
    *,
    local: bool,
    foreign: ForeignOptions | None = None,
    models: Sequence[str] = (),
) -> Planned:
    """The first half of it: what is to be tested, by `models` where they are given, read; nothing is pushed yet."""
    from prompts.errors import BadInput
    from service.cli.project import Project
    from service.cli.work import connect_work
    from service.settings import load_settings, project_of

    if "" in models:
        raise BadInput("--model '': write an alias of turnout.yaml, or leave --model out", param="model")
    gc.freeze()  # what was loaded lives as long as this process: it is never looked through
    gc.enable()
    settings = load_settings(start=project_of(Path(text) for text in given if _is_file(text)))
    if any(map(_may_be_foreign, given)):
        from service.cli.foreign_runs import plans_of, split, with_echo

        given, others = split(given)
        project = Project(with_echo(settings) if others and local else settings, tuple(models))
        plans = plans_of(project, others, foreign or ForeignOptions())
    else:
        project, plans, others = Project(settings, tuple(models)), [], []
    work = connect_work(project.settings, local=local)
    plans = [*(plan_suites(work, project, given, candidates) if given or not others else ()), *plans]
    return project, work, plans


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
        plans.append(Plan(suite.name, prompt, suite.suite, named.get(prompt), suite.sources))
        plans[-1].places = suite.places
    untested = sorted(named.keys() - {plan.prompt for plan in plans})
    if untested:
        suites, prompts = (sorted({getattr(plan, kind) for plan in plans}) for kind in ("suite", "prompt"))
        told = f"{named[untested[0]]}: prompt {untested[0]!r} is tested by none of the suites {', '.join(suites)}"
        raise BadInput(f"{told}: name a version of {', '.join(prompts)}, or add its suite", param="candidate")
    return plans


def _may_be_foreign(text: str) -> bool:
    """Whether a file could be another tool's: to look into it takes modules that a suite's run has no use for."""
    own = (".suite.yml", ".suite.yaml", ".prompt.yml", ".prompt.yaml")
    return text.endswith((".yml", ".yaml", ".json")) and not text.endswith(own)


def _is_file(text: str) -> bool:
    return "/" in text or text.endswith((".yml", ".yaml", ".json")) or Path(text).is_file()


def push_plans(work: Work, project: Project, plans: list[Plan]) -> dict[tuple[str, str], str]:
    """Make versions of the working tree's prompts and suites, moving no label; returns `NAME@N` by kind and name."""
    prompts: dict[str, Any] = {}
    for plan in plans:
        if plan.prompt_data is not None:
            prompts[plan.prompt] = plan.prompt_data
        elif plan.data is not None and plan.candidate is None:
            prompts |= project.with_includes(plan.prompt)
        for name in plan.rubric_names and plan.rubric_names & (project.tree.sources.keys() | project.tree.broken):
            prompts |= project.with_includes(name)
    suites = {plan.suite: plan.data for plan in plans if plan.data is not None}
    if not suites:
        return {}
    written = work.push(prompts, suites, {"moves_labels": False, "draft": True})
    return {(entry["kind"], entry["name"]): f"{entry['name']}@{entry['version']}" for entry in written}


def push_siblings(work: Work, project: Project, plan: Plan) -> list[str]:
    """Make versions of the working tree's other suites of the plan's prompt; returns their `NAME@N`.

    Raises BadFile with every fault of the project's suites: what cannot be read cannot be held out.
    """
    found = project.check(project.files_of_suites())[1]
    others = [each for each in found if each.suite.prompt == plan.prompt and each.name != plan.suite]
    plans = [Plan(each.name, plan.prompt, each.suite, plan.candidate, each.sources) for each in others]
    versions = push_plans(work, project, plans)
    return sorted(text for (kind, _), text in versions.items() if kind == "suite")
