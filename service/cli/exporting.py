"""Command `export`: a prompt in another tool's form, or an adapter in another server's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from service.cli.options import Json, Local
from service.cli.rendering import Placeholders, Variables

if TYPE_CHECKING:
    from service.settings import Settings

PromptForm = Literal["github", "messages", "openai"]
FormatName = Literal["peft", "merged", "gguf", "gguf-lora"]
OutTypeName = Literal["auto", "f32", "f16", "bf16", "q8_0"]
TAR_SUFFIXES = (".json", ".safetensors", ".md")


def export(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A prompt, NAME[@SEL], or an adapter where --to names a folder.")
    ],
    to: Annotated[
        str, typer.Option(help="github, messages or openai: a prompt's form. Anything else: an adapter's new folder.")
    ] = "github",
    variables: Variables = None,
    placeholders: Placeholders = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A prompt's file, in place of stdout.")] = None,
    format_name: Annotated[FormatName | None, typer.Option("--format", help="An adapter's form; default peft.")] = None,
    out_type: Annotated[OutTypeName, typer.Option("--outtype", help="How its weights are written.")] = "auto",
    base_name: Annotated[
        str, typer.Option("--base-name", help="What others know its base model by; default the source's name.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there already.")] = False,
    test: Annotated[
        str | None, typer.Option("--test", metavar="SUITE", help="With --local: run a suite against what was written.")
    ] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """A prompt as GitHub's .prompt.yml, messages or a request; an adapter as PEFT folder, merged weights or GGUF."""
    from prompts.errors import BadInput
    from service.cli.importing import export_prompt
    from service.errors import NotFound

    if to in get_args(PromptForm):
        if format_name or test or force or base_name or out_type != "auto":
            told = f"--to {to} is the form of a prompt; for an adapter name a folder (./{to} for one of that name)"
            raise BadInput(told, param="to")
        try:
            return export_prompt(name, to, variables, placeholders, output, as_json, local)
        except NotFound as error:
            raise BadInput(f"{error}; for an adapter name a new folder with --to", param="NAME") from error
    if variables or placeholders or output:
        raise BadInput(f"-v, --placeholder and -o are for prompts; --to {to} names an adapter's folder", param="to")
    return _export_adapter(name, Path(to), format_name or "peft", out_type, base_name, force, test, as_json, local)


def _export_adapter(
    name: str,
    target: Path,
    format_name: FormatName,
    out_type: OutTypeName,
    base_name: str,
    force: bool,
    test: str | None,
    as_json: bool,
    local: bool,
) -> int:
    from finetune.adapter.exporting import check_out_type, check_target
    from service.adapters.exporting import ExportRequest, place_of
    from service.settings import load_settings

    settings = load_settings()
    check_out_type(format_name, out_type)  # what is wrong with the words is told before anything is fetched
    check_target(place_of(target), force=force)
    _check_test(test, format_name, local)
    asked = ExportRequest(target, format_name, out_type, base_name, force)
    shown, about = _written(settings, name, asked, local)
    if test is not None:
        about["test"] = _test(settings, shown, about, test)
    _print(about, as_json)
    return _exit_code(about)


def _check_test(test: str | None, format_name: str, local: bool) -> None:
    from prompts.errors import BadInput

    if test is None:
        return
    if not local:
        raise BadInput("--test runs the suite in this process: add --local, or add the printed model and use `run`")
    if format_name == "peft":
        raise BadInput("--test: the PEFT form holds the adapter's own weights, byte for byte: there is nothing to test")
    if format_name == "gguf-lora":
        raise BadInput("--test: the embedded engine loads no GGUF LoRA: serve it, add the printed model, and use `run`")


def _written(settings: Settings, name: str, asked: Any, local: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of the adapter, and of what was written. A server's adapter is fetched first, and verified."""
    from finetune.adapter import verify
    from service.adapters.exporting import export
    from service.adapters.facts import folder_of
    from service.cli.adapters import path_of
    from service.cli.client import Remote, connect

    service = connect(settings, local=local)
    shown = service.call("GET", f"/api/adapters/{path_of(name)}")
    if not isinstance(service, Remote):
        return shown, export(settings, folder_of(settings, shown), shown, asked)
    with tempfile.TemporaryDirectory(prefix="turnout-adapter-") as work:
        folder = Path(work) / "adapter"
        fetch(service, f"/api/adapters/{path_of(name)}/export", folder)
        _same(verify(folder).digest, shown)
        return shown, export(settings, folder, shown, asked)


def fetch(service: Any, path: str, folder: Path) -> None:
    """Unpack a server's tar into a new folder: plain files of the kinds that adapters hold, and no others."""
    import shutil
    import tarfile

    from finetune.adapter import check_name
    from service.errors import CannotRun

    folder.mkdir()
    with tempfile.TemporaryFile() as packed:
        service.download(path, packed)
        packed.seek(0)
        try:
            with tarfile.open(fileobj=packed, mode="r:") as held:
                for member in held:
                    source = held.extractfile(member) if member.isfile() else None
                    if source is None or Path(check_name(member.name)).suffix not in TAR_SUFFIXES:
                        raise CannotRun(f"the service sent {member.name!r}, which no adapter holds")
                    with (folder / member.name).open("wb") as file:
                        shutil.copyfileobj(source, file)
        except tarfile.TarError as error:
            raise CannotRun(f"the adapter did not come whole: {error}; export it again") from error


def _same(digest: str, shown: Mapping[str, Any]) -> None:
    from service.errors import CannotRun

    if digest != shown["digest"]:
        raise CannotRun(f"the service sent an adapter with {digest}, its registry says {shown['digest']}")


def _test(settings: Settings, shown: Mapping[str, Any], about: Mapping[str, Any], suite: str) -> dict[str, Any]:
    """The suite against the exported model, and against the adapter."""
    from prompts.errors import BadInput
    from service.adapters.retesting import retest, with_model
    from service.cli.interrupts import run_to_end
    from service.cli.output import bar
    from service.cli.testing import prepare
    from service.store.database import Database

    _, _, plans, versions = prepare([suite], (), local=True)
    found = [plan for plan in plans if plan.prompt == shown["prompt"]]
    if len(found) != 1:
        tested = ", ".join(sorted(plan.prompt for plan in plans))
        raise BadInput(f"{suite} tests {tested}; the adapter is of {shown['prompt'] or 'no prompt'}", param="test")
    stored = versions.get(("suite", found[0].suite), found[0].suite)
    alias = next(iter(about["models"]))
    database = Database(settings.database_url)
    try:
        with bar("test") as advance:
            done = 0

            def progress(_: Any) -> None:
                nonlocal done
                done += 1
                advance(done, 0)

            ours = with_model(settings, about["models"])
            return run_to_end(retest(database, ours, stored, shown, alias, progress))
    finally:
        database.close()


def _print(about: dict[str, Any], as_json: bool) -> None:
    import json

    from service.cli.output import err, out, print_json

    if as_json:
        print_json(about)
        return
    out_type = "" if about["out_type"] == "auto" else f", {about['out_type']}"
    err().print(f"wrote {about['folder']}: {about['format']}{out_type}", markup=False, soft_wrap=True)
    if "max_logit_difference" in about.get("check", {}):
        told = f"{about['check']['max_logit_difference']:.2g} off, where the adapter moves the base's by"
        err().print(f"canary: {told} {about['check']['adapter_effect']:.2g}", markup=False)
    if test := about.get("test"):
        _print_test(test)
    out().print("# turnout.yaml\nmodels:", markup=False)
    for alias, entry in about["models"].items():
        out().print(f"  {alias}: {json.dumps(entry)}", markup=False, soft_wrap=True)
    for command in about["commands"]:
        out().print(f"# {command}", markup=False, soft_wrap=True)


def _print_test(test: Mapping[str, Any]) -> None:
    from service.cli.output import err, out

    for side in ("exported", "adapter"):
        ran = test[side]
        out().print(f"{side:<9} {ran['variant']}: {ran['passed']} of {ran['total']} passed", markup=False)
        if ran["error"]:
            err().print(
                f"{ran['errored']} without an answer, the first is {ran['error']}", markup=False, soft_wrap=True
            )
    out().print(f"agreement {test['same_answers']} of {test['compared']} answers are the same", markup=False)


def _exit_code(about: Mapping[str, Any]) -> int:
    """4 where a test was asked for and cases of it had no answer; what passed is the suite's to judge, by `run`."""
    from service.cli.exits import COULD_NOT_RUN, PASSED

    ran = [about["test"][side] for side in ("exported", "adapter")] if "test" in about else []
    return COULD_NOT_RUN if any(one["errored"] or one["skipped"] for one in ran) else PASSED
