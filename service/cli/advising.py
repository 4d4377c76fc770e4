"""The command that says whether to tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.interrupts import ended_by_sigterm
from service.cli.options import Html, Json, Local, Markdown, PromptOption
from service.cli.selecting import id_in_path

if TYPE_CHECKING:
    from service.cli.client import Client
    from service.settings import Settings
    from suites.advice.report import Advice

_CUT_SHORT = ("failed", "cancelled")
SuiteArgument = Annotated[
    str | None, typer.Argument(help="A suite file (the working tree) or a name (the registry); none with --of.")
]


@ended_by_sigterm
def advise(
    suite: SuiteArgument = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The model to tune, by default the suite's or prompt's.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="JSONL of vars and expected, in place of the suite's examples.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="A stored dataset's digest, in their place.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another model to set beside, the prompt alone: a larger one, say.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.1, help="Of training, in all.")] = None,
    shots: Annotated[
        str | None, typer.Option("--shots", help="How many examples to try in the prompt: 4,8,16.")
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", min=0, help="US dollars an hour of the hardware that trains and serves."),
    ] = None,
    watts: Annotated[
        float | None, typer.Option("--watts", min=0.1, help="Of a busy CPU core; a GPU tells its own power.")
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="One look at the held-out cases for what is recommended; spends α.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The examples and the plan; nothing is asked.")] = False,
    of: Annotated[str | None, typer.Option("--of", help="Show an advice again, by its id.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --of: go on with one that was cut short; nothing is done twice.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write the prompt with what is recommended; a file that is there is added to."),
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    prompt: PromptOption = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Prompt, examples in the prompt, or a fine-tune: what pays for this suite, measured before anything is trained in earnest."""
    from service.cli.calling import client

    asked = {"base": base, "dataset": dataset, "against": against, "minutes": minutes, "shots": _counts(shots)}
    asked |= {"price_per_hour": price_per_hour, "watts": watts, "look": look, "dry_run": dry_run}
    shown = _Shown({"html": html, "markdown": markdown, "write": write, "open": opens}, as_json, local)
    _check_options(suite, of, {**asked, "prompt": prompt, "examples": examples}, shown, resume=resume)
    if of is None:
        return _show(*_ask(suite or "", prompt, examples, asked, shown), shown)
    service = client(local)
    found = service.call("GET", f"/api/advice/{id_in_path('advice', of)}")
    if resume and found["status"] != "succeeded":
        found = _go_on(service, found, shown)
    return _show(service, found, shown)


@dataclass(frozen=True)
class _Shown:
    """How an advice is shown: the files that it is written to, by option, as JSON or not, and whether without a service."""

    files: Mapping[str, Any]
    as_json: bool
    local: bool

    @property
    def named(self) -> dict[str, Any]:
        """The options of the files that were given."""
        return {f"--{name}": value for name, value in self.files.items() if value}

    def again(self, advice_id: str) -> str:
        """The command that goes on with an advice that was cut short, and shows it in the same way."""
        from service.cli.reports import command_line

        options = {"--of": advice_id, "--resume": True, **self.named, "--json": self.as_json, "--local": self.local}
        return command_line("advise", (), options)


def _check_options(suite: str | None, of: str | None, asked: dict[str, Any], shown: _Shown, *, resume: bool) -> None:
    """Raise BadInput for options that exclude each other: none is left out without a word."""
    from prompts.errors import BadInput

    if (suite is None) == (of is None):
        raise BadInput("name a SUITE, or an advice to show again with --of", param="suite")
    if resume and of is None:
        raise BadInput("--resume goes on with an advice that was begun: name it with --of", param="resume")
    new = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None and value is not False]
    if of is not None and new:
        why = f"{of} was asked for already, and {', '.join(new)} would ask for another"
        raise BadInput(f"--of: {why}: leave that out, or name a SUITE in place of --of", param="of")
    if asked["dry_run"]:
        _refuse_files("--dry-run", shown)
    if shown.files["write"] is not None:
        from service.cli.proposing import check_target

        check_target(shown.files["write"])


def _refuse_files(plan: str, shown: _Shown) -> None:
    """Raise BadInput where a plan is to be written as an advice."""
    from prompts.errors import BadInput

    if shown.named:
        named = ", ".join(shown.named)
        why = f"{plan} gives a plan and no advice, and there is nothing to write for {named}"
        raise BadInput(f"{why}: leave out {named}, or ask without --dry-run", param="dry_run")


def _ask(
    suite: str, prompt: str | None, examples: Path | None, asked: dict[str, Any], shown: _Shown
) -> tuple[Client, dict[str, Any]]:
    """Queue the advice and follow it to its end."""
    from prompts.errors import BadInput
    from service.cli.client import connect
    from service.cli.testing import prepare, push_siblings
    from service.cli.training import dataset_of

    if examples is not None and asked["dataset"] is not None:
        raise BadInput("--examples and --dataset both name what to learn from: give one of them", param="dataset")
    project, work, plans, versions = prepare([suite], (prompt,) if prompt else (), local=shown.local)
    if len(plans) > 1:
        names = ", ".join(sorted(plan.suite for plan in plans))
        raise BadInput(f"{suite} is tested by several suites: name the file of one of {names}", param="suite")
    plan = plans[0]
    body = {**asked, "suite": versions.get(("suite", plan.suite), plan.suite)}
    body |= {"called": plan.named, "local": shown.local}
    body["prompt"] = plan.candidate or versions.get(("prompt", plan.prompt))
    body["held_out"] = push_siblings(work, project, plan) if plan.data is not None else []
    service = connect(project.settings, local=shown.local)
    if examples is not None:
        body["dataset"] = dataset_of(service, examples, body["prompt"] or plan.prompt)
    sent = {key: value for key, value in body.items() if value is not None}
    started = service.call("POST", "/api/advice", body=sent)
    own = project.settings if shown.local else None
    _follow(service, started, own, shown)
    return service, service.call("GET", f"/api/advice/{started['advice_id']}")


def _go_on(service: Client, found: dict[str, Any], shown: _Shown) -> dict[str, Any]:
    """Queue an advice that was cut short again and follow it to its end."""
    from service.settings import load_settings

    service.call("POST", f"/api/jobs/{found['job_id']}/resume")
    own = load_settings() if shown.local else None
    _follow(service, found, own, shown)
    ended: dict[str, Any] = service.call("GET", f"/api/advice/{found['advice_id']}")
    return ended


def _follow(service: Client, found: dict[str, Any], own: Settings | None, shown: _Shown) -> None:
    """Watch an advice's job; without a service, on one's `own` settings, it is done here."""
    from service.cli.client import follow
    from service.cli.output import bar
    from service.cli.own_jobs import tell_that_it_goes_on, work_here
    from service.cli.progress import Narrator

    job_id, again = found["job_id"], f"turnout advise --of {found['advice_id']}"
    with bar("advice") as advance:
        narrate = Narrator(advance).narrate
        if own is not None:
            work_here(own, job_id, narrate, shown.again(found["advice_id"]), f"{again} --local")
            return
        try:
            follow(service, job_id, narrate)
        except KeyboardInterrupt:
            tell_that_it_goes_on(job_id, again)
            raise


def _counts(given: str | None) -> list[int] | None:
    """The numbers of `4,8,16`. Raises BadInput."""
    from prompts.errors import BadInput

    if given is None:
        return None
    try:
        return [int(part) for part in given.split(",")]
    except ValueError as error:
        raise BadInput(f"--shots {given}: write numbers with commas between, 4,8,16", param="shots") from error


def _show(service: Client, found: dict[str, Any], shown: _Shown) -> int:
    """Tables, or JSON; then the files that were asked for. Returns the exit code."""
    from service.cli.exits import COULD_NOT_RUN
    from service.cli.output import print_json, show_error

    if found["verdict"] == "planned":
        _refuse_files(f"{found['advice_id']}, of a --dry-run,", shown)
    if shown.as_json:
        print_json(found)
    if found["status"] != "succeeded":
        if not shown.as_json:
            show_error(_not_given(found, shown))
        return COULD_NOT_RUN
    if found["verdict"] == "planned":
        return _planned(found, shown.as_json)
    advice = _advice(found)
    if not shown.as_json:
        _print(advice)
    _write_files(advice, shown.files)
    if shown.files["write"] is not None:
        from service.cli.proposing import write_prompt

        write_prompt(service, advice, shown.files["write"])
    return _exit_code(advice)


def _not_given(found: dict[str, Any], shown: _Shown) -> str:
    """Why there is no advice, and the command that goes on where nobody does."""
    told = f"{found['job_id']} {found['status']}: {found['error'] or 'no advice yet'}"
    return f"{told}; go on with: {shown.again(found['advice_id'])}" if found["status"] in _CUT_SHORT else told


def _advice(found: dict[str, Any]) -> Advice:
    from suites.advice.report import Advice

    return Advice.model_validate({name: found[name] for name in Advice.model_fields if name in found})


def _exit_code(advice: Advice) -> int:
    """0 for an advice, 1 where the examples must be mended first, 3 where nobody can say yet."""
    from service.cli.exits import FAILED, INCONCLUSIVE, PASSED

    kinds = {"contradictions": FAILED, "mend the examples": FAILED, "cannot say": INCONCLUSIVE}
    return kinds.get(advice.recommendation.kind, PASSED)


def _planned(found: dict[str, Any], as_json: bool) -> int:
    from service.cli.output import out

    if not as_json:
        for line in (*found["data"]["lines"], *found["plan"]):
            out().print(line, markup=False)
        if found["untrained"]:
            out().print(f"trainings  none: {found['untrained']}; all else is measured without them", markup=False)
        out().print("next       the same without --dry-run; what was answered before is not asked again", markup=False)
    return 0


def _print(advice: Advice) -> None:
    from service.cli.output import out
    from suites.advice.lines import print_advice

    print_advice(out(), advice)


def _write_files(advice: Advice, files: Mapping[str, Any]) -> None:
    """The page and the comment; with `open` the page is shown, from a file of its own where none was named."""
    import tempfile
    import webbrowser

    from service.cli.output import err
    from service.cli.reports import write_text
    from suites.advice.markdown import render_markdown
    from suites.advice.page import render_html

    page: Path | None = files["html"]
    if page is None and files["open"]:
        page = Path(tempfile.mkdtemp(prefix="turnout-")) / f"{advice.advice_id}.html"
    if page is not None:
        write_text(page, render_html(advice))
        err().print(f"wrote {page}", markup=False)
    if files["markdown"] is not None:
        write_text(files["markdown"], render_markdown(advice))
    if files["open"] and page is not None:
        webbrowser.open(page.resolve().as_uri())
