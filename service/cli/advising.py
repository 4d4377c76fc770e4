"""The command that says whether to tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Html, Json, Local, Markdown, PromptOption

if TYPE_CHECKING:
    from service.cli.client import Client
    from service.settings import Settings
    from suites.advice.report import Advice

SuiteArgument = Annotated[
    str | None, typer.Argument(help="A suite file (the working tree) or a name (the registry); none with --of.")
]


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
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", help="Write the prompt with the examples or parameters that are recommended to this file."
        ),
    ] = None,
    html: Html = None,
    markdown: Markdown = None,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    prompt: PromptOption = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Prompt, examples in the prompt, or a fine-tune: what pays for this suite, measured before anything is trained in earnest."""
    from prompts.errors import BadInput
    from service.cli.calling import client

    if (suite is None) == (of is None):
        raise BadInput("name a SUITE, or an advice to show again with --of", param="suite")
    files = {"html": html, "markdown": markdown, "write": write, "open": opens}
    if of is not None:
        service = client(local)
        return _show(service, service.call("GET", f"/api/advice/{of}"), files, as_json)
    asked = {"base": base, "dataset": dataset, "against": against, "minutes": minutes, "shots": _counts(shots)}
    asked |= {"price_per_hour": price_per_hour, "watts": watts, "look": look, "dry_run": dry_run, "local": local}
    service, found = _ask(suite or "", prompt, examples, asked, local=local)
    return _show(service, found, files, as_json)


def _ask(
    suite: str, prompt: str | None, examples: Path | None, asked: dict[str, Any], *, local: bool
) -> tuple[Client, dict[str, Any]]:
    """Queue the advice and follow it to its end."""
    from prompts.errors import BadInput
    from service.cli.client import connect
    from service.cli.testing import prepare, push_siblings
    from service.cli.training import dataset_of

    if examples is not None and asked["dataset"] is not None:
        raise BadInput("--examples and --dataset both name what to learn from: give one of them", param="dataset")
    project, work, plans, versions = prepare([suite], (prompt,) if prompt else (), local=local)
    if len(plans) > 1:
        names = ", ".join(sorted(plan.suite for plan in plans))
        raise BadInput(f"{suite} is tested by several suites: name the file of one of {names}", param="suite")
    plan = plans[0]
    body = {**asked, "suite": versions.get(("suite", plan.suite), plan.suite), "called": plan.named}
    body["prompt"] = plan.candidate or versions.get(("prompt", plan.prompt))
    body["held_out"] = push_siblings(work, project, plan) if plan.data is not None else []
    service = connect(project.settings, local=local)
    if examples is not None:
        body["dataset"] = dataset_of(service, examples, body["prompt"] or plan.prompt)
    sent = {key: value for key, value in body.items() if value is not None}
    started = service.call("POST", "/api/advice", body=sent)
    _follow(service, started["job_id"], project.settings if local else None)
    return service, service.call("GET", f"/api/advice/{started['advice_id']}")


def _follow(service: Client, job_id: str, own: Settings | None) -> None:
    """Watch the job; without a service, on one's `own` settings, a worker process of our own does it."""
    from contextlib import nullcontext

    from service.cli.client import follow
    from service.cli.output import bar, err
    from service.cli.progress import Narrator
    from service.cli.training import own_worker

    watched: Any = _OwnJobs(own) if own else service
    try:
        with own_worker(job_id) if own else nullcontext(None) as is_alive, bar("advice") as advance:
            follow(watched, job_id, Narrator(advance).narrate, is_alive)
    except KeyboardInterrupt:
        if own is None:
            shown = f"`turnout advise --of adv_{job_id.partition('_')[2]}` shows the advice"
            err().print(f"the job goes on: {shown}, `turnout job {job_id} --cancel` ends it", markup=False)
        raise


class _OwnJobs:
    """A job and its events from this home's database: handlers that are wired anew for each look would take a sixth of a core
    for as long as it works."""

    def __init__(self, settings: Settings) -> None:
        from service.jobs import Jobs
        from service.store.database import Database

        self._jobs = Jobs(Database(settings.database_url))

    def call(self, _method: str, path: str, *, params: dict[str, Any] | None = None) -> Any:
        job_id = path.split("/")[3]
        return self._jobs.events(job_id, params["after"]) if params else self._jobs.show(job_id)


def _counts(given: str | None) -> list[int] | None:
    """The numbers of `4,8,16`. Raises BadInput."""
    from prompts.errors import BadInput

    if given is None:
        return None
    try:
        return [int(part) for part in given.split(",")]
    except ValueError as error:
        raise BadInput(f"--shots {given}: write numbers with commas between, 4,8,16", param="shots") from error


def _show(service: Client, found: dict[str, Any], files: dict[str, Any], as_json: bool) -> int:
    """Tables, or JSON; then the files that were asked for. Returns the exit code."""
    from service.cli.exits import COULD_NOT_RUN
    from service.cli.output import print_json, show_error

    if as_json:
        print_json(found)
    if found["status"] != "succeeded":
        if not as_json:
            show_error(f"{found['job_id']} {found['status']}: {found['error'] or 'no advice yet'}")
        return COULD_NOT_RUN
    if found["verdict"] == "planned":
        return _planned(found, as_json)
    advice = _advice(found)
    if not as_json:
        _print(advice)
    _write_files(advice, files)
    if files["write"] is not None:
        _write_prompt(service, advice, files["write"])
    return _exit_code(advice)


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


def _write_files(advice: Advice, files: dict[str, Any]) -> None:
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


def _proposed(advice: Advice) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Examples and parameters of the variant that is recommended, and of no other: nobody measured them together.

    Raises BadInput where it changes nothing of the prompt.
    """
    from prompts.errors import BadInput

    chosen = advice.recommendation
    one = next((each for each in advice.variants if each.key == chosen.variant), None)
    examples = [each.model_dump() for each in advice.shots] if one is not None and one.shots else []
    changes = one.changes if one is not None else {}
    if not examples and not changes:
        said = f"{advice.advice_id} recommends: {chosen.title}"
        raise BadInput(
            f"--write: {said}. That changes nothing of the prompt's file, so nothing was written", param="write"
        )
    return examples, changes


def _write_prompt(service: Client, advice: Advice, path: Path) -> None:
    """The prompt with the recommended examples and parameters, to be looked through and committed."""
    from prompts.formats.writing import prompt_text
    from prompts.prompt import PromptContent
    from service.advising.patching import prompt_keys
    from service.cli.output import err
    from service.cli.reports import write_text

    examples, changes = _proposed(advice)
    name, _, number = advice.prompt.partition("@")
    stored = service.call("GET", f"/api/prompts/{name}/versions/{number}")
    content = PromptContent.model_validate({key: stored[key] for key in PromptContent.model_fields if key in stored})
    data = content.model_dump(mode="json")
    changed = {**data, "examples": [*data.get("examples", ()), *examples]}
    changed["parameters"] = {**content.parameters, **changes}
    write_text(path, prompt_text(prompt_keys(PromptContent.model_validate(changed))))
    told = [f"{len(examples)} examples"] if examples else []
    told += [f"{name} {value}" for name, value in changes.items()]
    err().print(f"wrote {path}: the prompt with {', '.join(told)}", markup=False)
