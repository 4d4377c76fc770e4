"""`turnout run promptfooconfig.yaml`: a configuration of promptfoo as plans of a command, with nothing written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.imported import Foreign, LeftOut, fit_name
from prompts.formats.writing import prompt_text, suite_text
from prompts.secrets import secret_faults
from service.cli.foreign_texts import beside, fitting
from service.cli.options import ForeignOptions
from suites.foreign.converted import Converted, KnownModel, Wanted, counted
from suites.foreign.promptfoo import convert, is_config
from suites.foreign.providers import ECHO, EMBEDDER, GRADER, NONE, lines_to_add

if TYPE_CHECKING:
    from service.cli.project import Project
    from service.cli.testing import Plan
    from service.settings import Settings

_SECRET = re.compile(r"key|token|secret|password|credential|auth", re.I)
_ECHO = {"engine": "fake", "echo": "all", "price": {"input_per_mtok": 0, "output_per_mtok": 0}}


def split(given: Iterable[str]) -> tuple[list[str], list[str]]:
    """What was given to a command, apart from the configurations of other tools among it."""
    own: list[str] = []
    foreign: list[str] = []
    for text in given:
        (foreign if _is_foreign(text) else own).append(text)
    return own, foreign


def _is_foreign(text: str) -> bool:
    path = Path(text)
    if not text.endswith((".yaml", ".yml", ".json")) or not path.is_file():
        return False
    return is_config(path.read_text("utf-8", "replace"), text)


def with_echo(settings: Settings) -> Settings:
    """Settings with a model `echo` where they have none that echoes: it needs no server, and costs nothing."""
    from service.settings import FakeSpec

    if any(known.is_echo for known in known_models(settings).values()) or ECHO in settings.models:
        return settings
    return settings.model_copy(update={"models": {**settings.models, ECHO: FakeSpec.model_validate(_ECHO)}})


def known_models(settings: Settings) -> dict[str, KnownModel]:
    """What of each model of turnout.yaml tells whether a provider means it."""
    return {
        alias: KnownModel(
            model=getattr(spec, "model", None) or alias,
            base_url=getattr(spec, "base_url", ""),
            has_price=spec.price is not None,
            is_echo=getattr(spec, "echo", False) == "all",
        )
        for alias, spec in settings.models.items()
    }


def given_aliases(project: Project, providers: Iterable[str]) -> dict[str, str]:
    """`--provider` as a mapping; raises BadInput where one is no pair, or its alias is unknown."""
    found: dict[str, str] = {}
    for text in providers:
        provider, _, alias = text.rpartition("=")
        if not provider or not alias:
            raise BadInput(f"--provider {text}: write PROVIDER=ALIAS", param="provider")
        if alias != NONE and alias not in project.settings.models:
            known = ", ".join(sorted(project.settings.models))
            raise BadInput(f"--provider {text}: turnout.yaml has {known}, or write {NONE}", param="provider")
        found[provider] = alias
    return found


def wanted(project: Project, file: Path, options: ForeignOptions) -> Wanted:
    """How a file of another tool is converted in this project."""
    return Wanted(
        known=known_models(project.settings),
        given=given_aliases(project, options.providers),
        environment={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
        apart=options.apart,
        find_script=_finder(project, file),
    )


def _finder(project: Project, file: Path) -> Any:
    """Python files relative to `file` by the path that a suite names them by: that in the project."""

    def find(reference: str) -> str:
        name, colon, function = reference.partition(":")
        path = (file.parent / name).resolve()
        root = project.root.resolve()
        named = path.relative_to(root).as_posix() if path.is_relative_to(root) else name
        project.settings.script_folders.find(named)
        return f"{named}{colon}{function}"

    return find


def plans_of(project: Project, paths: Iterable[str], options: ForeignOptions) -> list[Plan]:
    """A plan for each prompt of each configuration. Raises BadInput for providers that are no models here, all at once."""
    converted = [(Path(path), _converted(project, Path(path), options)) for path in paths]
    missing = dict.fromkeys(provider for _, found in converted for provider in found.missing)
    if missing:
        raise BadInput(_missing_in_words(list(missing), project.settings.models), param="provider")
    left_out = [note for _, found in converted for note in found.left_out]
    if left_out and options.strict:
        listed = "\n".join(f"left out: {line}" for line in counted(left_out))
        raise BadInput(f"--strict: not all of it is carried over\n{listed}", param="strict")
    return [plan for path, found in converted for plan in _plans(path, found)]


def _converted(project: Project, path: Path, options: ForeignOptions) -> Converted:
    file, shown = path.absolute(), project.shown(path)
    folders = (file.parent.resolve(), *((project.root.resolve(),) if file.is_relative_to(project.root) else ()))
    name = prefix_of(project, file)
    foreign = Foreign(
        path.read_text("utf-8", "replace"), shown, f"{name}prompt", name,
        beside=beside(file, folders), fitting=fitting(file, folders),
    )  # fmt: skip
    return convert(foreign, wanted(project, file, options))


def prefix_of(project: Project, file: Path) -> str:
    """What the names of a configuration's prompts begin with: where it stands, so that two never share one."""
    inside = file.resolve().is_relative_to(project.root.resolve())
    folder = file.resolve().parent.relative_to(project.root.resolve()).as_posix() if inside else file.parent.name
    stem = file.name.partition(".")[0] if file.name.startswith("promptfooconfig.") else file.stem
    parts = [fit_name(folder), "" if stem == "promptfooconfig" else fit_name(stem)]
    return ".".join(["promptfoo", *(part for part in parts if part), ""])


def _plans(path: Path, found: Converted) -> Iterator[Plan]:
    from service.cli.testing import Plan
    from suites.case import Suite

    _refuse_secrets(path, found)
    for index, each in enumerate(found.suites):
        suite = Suite.from_data(each.suite, str(path))
        plan = Plan(each.name, each.name, suite, None, (path,))
        plan.prompt_data, plan.models = dict(each.prompt), each.models
        plan.left_out, plan.unasked = (found.left_out, found.unasked) if index == 0 else ((), 0)
        yield plan


def _refuse_secrets(path: Path, found: Converted) -> None:
    """Raise BadFile where a prompt or a case holds what looks like a secret, as `turnout check` would of their files."""
    texts = (text for each in found.suites for text in (prompt_text(each.prompt), suite_text(each.suite)))
    faults = [fault for text in texts for fault in secret_faults(text, str(path)) if fault.level == "error"]
    if faults:
        raise BadFile([Fault(str(path), 0, fault.message, fault.fix) for fault in dict.fromkeys(faults)])


def _missing_in_words(missing: list[str], models: Mapping[str, Any]) -> str:
    """All providers without a model, what to give for them, and the lines that turnout.yaml lacks."""
    judges = {GRADER: "judges where nobody is named", EMBEDDER: "gives embeddings where nobody is named"}
    named = ", ".join(f"{each} ({judges[each]})" if each in judges else each for each in missing)
    known = ", ".join(sorted(models))
    count = "1 provider is no model" if len(missing) == 1 else f"{len(missing)} providers are no models"
    fix = f"give --provider '{missing[0]}=ALIAS' for each ({known}; {NONE} sets aside what needs it), or add"
    return f"{count} of turnout.yaml: {named}; {fix}\n{lines_to_add(missing)}"


def told(left_out: Iterable[LeftOut]) -> list[dict[str, Any]]:
    """What was left out as JSON: what, why, where first, and how often."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for note in left_out:
        entry = {"count": 0, "what": note.what, "why": note.why, "place": note.place}
        found.setdefault((note.what, note.why), entry)["count"] += 1
    return sorted(found.values(), key=lambda entry: -int(entry["count"]))


def show_left_out(left_out: Iterable[LeftOut]) -> None:
    """Say on stderr what was left out, each reason once with its count."""
    from service.cli.output import err

    for line in counted(tuple(left_out)):
        err().print(f"left out: {line}", markup=False, soft_wrap=True)
