"""promptfoo's prompts: text, Markdown, Nunjucks, CSV, JSON, YAML and JSON-lines files, and a `promptfooconfig.yaml`.

https://www.promptfoo.dev/docs/configuration/prompts/ — templates are Nunjucks there: what Jinja2 spells differently is
rewritten. Prompts that are made by code are left out, and so are a configuration's tests.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from prompts.errors import BadFile, BadInput
from prompts.formats.chat import chat_messages, is_chat
from prompts.formats.imported import (
    Foreign,
    Imported,
    Notes,
    fit_name,
    free_name,
    json_data,
    shortened,
    text_of,
    without_nothing,
)
from prompts.formats.nunjucks import as_jinja
from prompts.formats.parameters import model_parameters, output_keys, tool_choice, tool_list
from prompts.formats.variable_schemas import inferred_from_jinja
from prompts.template import Template
from prompts.yaml_source import Document, load_yaml

SUFFIXES = (".txt", ".md", ".j2", ".json", ".yaml", ".yml", ".jsonl", ".csv")
_CODE = (
    ".js",
    ".cjs",
    ".mjs",
    ".ts",
    ".cts",
    ".mts",
    ".py",
    ".sh",
    ".bash",
    ".rb",
    ".pl",
    ".exe",
    ".bat",
    ".cmd",
    ".ps1",
)
_REGISTRIES = ("langfuse://", "portkey://", "helicone://", "promptfoo://", "langsmith://")


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """One prompt as promptfoo has it: text, its name, and what its entry says of the model."""

    text: str
    name: str
    label: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read_promptfoo(foreign: Foreign) -> Imported:
    """Every prompt of one file; raises BadFile where one has no meaning as messages."""
    notes = Notes(foreign.path)
    suffix = PurePosixPath(foreign.path).suffix.lower()
    if suffix in _CODE:
        notes.leave("", PurePosixPath(foreign.path).name, "a prompt that is made by code: write what it makes")
        return Imported({}, left_out=notes.found)
    common: dict[str, Any] = {}
    config = _config_of(foreign, suffix)
    if config is not None:
        common, raws = _common(config.data, notes), ConfiguredPrompts(config.data, foreign, notes).raws()
    else:
        raws = _raws(foreign.text, suffix, foreign.name, foreign.path, notes)
    prompts: dict[str, dict[str, Any]] = {}
    for raw in raws:
        prompts[free_name(raw.name, prompts)] = prompt_keys(raw, common, notes)
    if not prompts and config is None:
        notes.refuse(0, "no prompt is in it", "write one")
    return Imported(prompts, left_out=notes.found)


def _config_of(foreign: Foreign, suffix: str) -> Document | None:
    """The file as a configuration; None where it is a prompt."""
    if suffix not in (".yaml", ".yml", ".json"):
        return None
    try:
        document = load_yaml(foreign.text, foreign.path)
    except BadFile:
        return None  # perhaps a template that makes JSON: told with that in mind
    return document if isinstance(document.data, dict) and "prompts" in document.data else None


# ---------------------------------------------------------------------------- files


def _raws(text: str, suffix: str, name: str, path: str, notes: Notes) -> list[RawPrompt]:
    """The prompts of one file by its suffix."""
    text = text.removeprefix("\ufeff")
    if suffix == ".txt":
        pieces = [piece.strip() for piece in re.split(r"(?m)^[ \t]*---[ \t]*\r?$", text)]
        return _numbered([piece for piece in pieces if piece], name)
    if suffix == ".jsonl":
        return _numbered(_lines(text), name)
    if suffix == ".csv":
        return _csv(text, name, notes)
    if suffix in (".yaml", ".yml"):
        data = load_yaml(text, path).data
        return [RawPrompt(json.dumps(data, ensure_ascii=False) if not isinstance(data, str) else data, name)]
    return [RawPrompt(text, name)] if text.strip() else []


def _lines(text: str) -> list[str]:
    """Those that hold something; what else Unicode ends lines with is within a text."""
    return [line for line in re.split(r"\r?\n", text) if line.strip()]


def _numbered(texts: list[str], name: str) -> list[RawPrompt]:
    if len(texts) == 1:
        return [RawPrompt(texts[0], name)]
    return [RawPrompt(text, f"{name}-{number}") for number, text in enumerate(texts, 1)]


def _csv(text: str, name: str, notes: Notes) -> list[RawPrompt]:
    """Rows with a `prompt` and perhaps a `label`, or one prompt a line."""
    if "," not in text:
        lines = _lines(text)
        return _numbered(lines[1:] if lines and lines[0].strip().lower() == "prompt" else lines, name)
    try:
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        notes.refuse(0, f"not valid CSV: {error}", "mend the CSV")
    kept = [row for row in rows if (row.get("prompt") or "").strip()]
    for column in dict.fromkeys(key for row in rows for key in row if key not in ("prompt", "label", None)):
        notes.leave(f"column {column}", column, "only the columns prompt and label are read")
    several = [RawPrompt(str(row["prompt"]).strip(), name, row.get("label") or None) for row in kept]
    plain = _numbered([raw.text for raw in several], name)
    return [_named(raw, name) if raw.label else other for raw, other in zip(several, plain, strict=True)]


def _named(raw: RawPrompt, prefix: str) -> RawPrompt:
    """A raw prompt called by its label below the file's name."""
    fitted = fit_name(raw.label or "").replace(".", "-")
    return RawPrompt(raw.text, f"{prefix}.{fitted}" if fitted else prefix, raw.label, raw.config)


# ---------------------------------------------------------------------------- a configuration


class ConfiguredPrompts:
    """The prompts that a configuration names: inline, in files, with labels."""

    def __init__(self, config: Mapping[str, Any], foreign: Foreign, notes: Notes) -> None:
        self._prompts = config["prompts"]
        self._foreign = foreign
        self._notes = notes

    def raws(self) -> list[RawPrompt]:
        found: list[RawPrompt] = []
        for index, entry in enumerate(self._entries()):
            made = self._entry(entry, f"prompts.{index}")
            if made is None:
                self._notes.leave(f"prompts.{index}", shortened(entry), "expected a text, or a file")
            found += made or []
        return found

    def _entries(self) -> Iterable[Any]:
        if isinstance(self._prompts, Mapping):
            return [{"raw": raw, "label": label} for raw, label in self._prompts.items()]
        return self._prompts if isinstance(self._prompts, list) else [self._prompts]

    def _entry(self, entry: Any, at: str) -> list[RawPrompt] | None:
        if isinstance(entry, str):
            return self._text(entry, None, {}, at)
        if not isinstance(entry, Mapping):
            return None
        source = entry.get("raw", entry.get("content", entry.get("id", entry.get("prompt"))))
        label = entry.get("label", entry.get("display"))
        self._notes.rest(entry, {"raw", "content", "id", "prompt", "label", "display", "config"}, f"{at}.")
        config = entry.get("config") if isinstance(entry.get("config"), Mapping) else {}
        return self._text(source, str(label) if label else None, config or {}, at) if isinstance(source, str) else None

    def _text(self, source: str, label: str | None, config: Mapping[str, Any], at: str) -> list[RawPrompt]:
        name = source.removeprefix("file://")
        suffix = PurePosixPath(re.sub(r":\w+$", "", name)).suffix.lower()
        is_file = source.startswith("file://") or (
            "\n" not in source and suffix in (*SUFFIXES, *_CODE) and " " not in source
        )
        if source.startswith(("exec:", *_REGISTRIES)) or (is_file and suffix in _CODE):
            self._notes.leave(at, source, "a prompt that is made by code, or held elsewhere: write it out")
            return []
        if not is_file:
            fitted = fit_name(label or "").replace(".", "-")
            number = at.removeprefix("prompts.")
            return [RawPrompt(source, f"{self._foreign.prefix}{fitted or f'prompt-{int(number) + 1}'}", label, config)]
        if "*" not in name:
            return self._file(name, suffix, label, config, at)
        names = self._foreign.fitting(name)
        if not names:
            self._notes.leave(at, source, "a pattern of files that fits none below the configuration's folder")
        suffixes = {each: PurePosixPath(each).suffix.lower() for each in names}
        return [raw for each in names for raw in self._file(each, suffixes[each], None, config, at)]

    def _file(self, name: str, suffix: str, label: str | None, config: Mapping[str, Any], at: str) -> list[RawPrompt]:
        text = self._foreign.beside(name)
        if text is None:
            self._notes.leave(at, name, "there is no such file below the configuration's folder")
            return []
        base = fit_name(label or str(PurePosixPath(name).with_suffix("")).removeprefix("../")).replace("..", ".")
        raws = _raws(text, suffix, self._foreign.prefix + (base or "prompt"), name, self._notes)
        return [RawPrompt(raw.text, raw.name, raw.label or label, config) for raw in raws]


def _common(config: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """What a configuration says for all of its prompts: the model, where it names one."""
    for key in (key for key in config if key not in ("prompts", "providers", "targets", "description")):
        why = (
            "not imported by this version"
            if key in ("tests", "scenarios", "defaultTest")
            else "no prompt file holds this"
        )
        notes.leave(key, shortened(config[key]), why)
    if config.get("description"):
        notes.leave("description", shortened(config["description"]), "it describes the tests, not the prompts")
    providers = config.get("providers", config.get("targets"))
    listed = providers if isinstance(providers, list) else [providers] if providers else []
    if len(listed) != 1:
        if listed:
            notes.leave(
                "providers", shortened(providers), "a prompt names one model: give --model, or compare with `run`"
            )
        return {}
    return _provider(listed[0], notes)


def _provider(provider: Any, notes: Notes) -> dict[str, Any]:
    if isinstance(provider, str):
        return {"model": provider.rpartition(":")[2]}
    if not isinstance(provider, Mapping) or not isinstance(provider.get("id"), str):
        notes.leave("providers", shortened(provider), "a model is called by its id")
        return {}
    notes.rest(provider, {"id", "config", "label"}, "providers.0.")
    config = provider.get("config")
    made = model_settings(config if isinstance(config, Mapping) else {}, notes, "providers.0.config.")
    return {"model": str(provider["id"]).rpartition(":")[2], **made}


def model_settings(config: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    settings = dict(config)
    output = output_keys(settings.pop("response_format", None), notes, f"{at}response_format")
    tools = tool_list(settings.pop("tools", None), notes, f"{at}tools")
    choice = tool_choice(settings.pop("tool_choice", None), notes, f"{at}tool_choice")
    return {"modelParameters": model_parameters(settings, notes, at), "tools": tools, "toolChoice": choice, **output}


# ---------------------------------------------------------------------------- prompts


def prompt_keys(raw: RawPrompt, common: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    own = model_settings(raw.config, notes, f"{raw.name}.config.") if raw.config else {}
    merged = {**common, **{key: value for key, value in own.items() if value}}
    template = _nunjucks(raw.name, notes)
    chat = _chat(raw.text)
    if chat is not None:
        messages = chat_messages(chat, template, notes, raw.name)
    else:
        _refuse_built_json(raw, notes)
        messages = [{"role": "user", "content": template(raw.text)}]
    if not messages:
        notes.refuse(0, f"{raw.name}: it has no messages", "write a message with a role and a content")
    keys = {
        "name": text_of(raw.label, "label", notes),
        **merged,
        "variables": _variables(messages),
        "messages": messages,
    }
    if not keys["variables"]:
        del keys["variables"]
    return without_nothing(keys)


def _chat(text: str) -> list[Any] | None:
    """The messages that promptfoo would read out of a prompt's text: JSON, or YAML that begins with a role."""
    stripped = text.strip()
    data: Any = None
    if stripped[:1] in ("[", "{") and not stripped.startswith(("{{", "{%", "{#")):
        try:
            data = json_data(stripped, "")
        except BadFile:
            return None
    elif stripped.startswith("- role:"):
        try:
            data = load_yaml(stripped, "").data
        except BadFile:
            return None
    if isinstance(data, dict) and is_chat(data.get("messages")):
        data = data["messages"]
    return data if is_chat(data) else None


def _refuse_built_json(raw: RawPrompt, notes: Notes) -> None:
    if re.match(r"\s*\[\s*(\{%|\{\s*[\"']role[\"'])", raw.text):
        fix = "write the messages as a list, and those of a conversation as a placeholder"
        notes.refuse(0, f"{raw.name}: the template makes the JSON of its messages", fix)


def _nunjucks(name: str, notes: Notes) -> Callable[[str], str]:
    def template(text: str) -> str:
        made = as_jinja(text)
        try:
            names = Template(made).names
        except BadInput as error:
            notes.refuse(0, f"{name}: the template is refused: {error}", "write it without what is refused")
        if "env" in names:
            notes.leave(name, "env", "the environment there, a variable here: give the values that it needs")
        return made

    return template


def _variables(messages: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Schemas for the names of a prompt that has more than texts for variables; none where texts are enough."""
    texts = []
    for message in messages:
        parts = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
        texts += [part["text"] if "text" in part else part["image_url"]["url"] for part in parts]
    found = inferred_from_jinja({name for text in texts for name in Template(text).names}, texts)
    return found if any(schema != {"type": "string"} for schema in found.values()) else {}
