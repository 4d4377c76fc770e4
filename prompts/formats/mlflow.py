"""MLflow's prompt registry: https://mlflow.org/docs/latest/genai/prompt-registry/

A prompt version as JSON (`name`, `version`, `template`, …), a list of them, a registered model's version whose tags hold
the prompt (what MLflow's REST API answers), or `meta.yaml` of a file store with its `tags/` folder. Of several versions of
one name the newest is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prompts.errors import BadInput
from prompts.formats.chat import chat_messages
from prompts.formats.imported import (
    Foreign,
    Imported,
    Notes,
    fit_label,
    fit_name,
    json_data,
    noted_variable,
    shortened,
    text_of,
    texts_of,
    without_nothing,
)
from prompts.formats.langfuse import newest
from prompts.formats.literal import with_variables
from prompts.formats.parameters import model_parameters, output_keys
from prompts.formats.variable_schemas import inferred_from_jinja
from prompts.names import PRODUCTION
from prompts.template import Template
from prompts.yaml_source import load_yaml

TEXT_TAG = "mlflow.prompt.text"
FORMAT_TAG = "_mlflow_prompt_response_format"
CONFIG_TAG = "_mlflow_prompt_model_config"
_OWN_TAGS = {TEXT_TAG, FORMAT_TAG, CONFIG_TAG, "mlflow.prompt.is_prompt", "_mlflow_prompt_type", "mlflow.prompt.type"}
_KNOWN = {"name", "version", "template", "commit_message", "description", "tags", "aliases", "response_format",
          "model_config", "prompt_type", "variables"}  # fmt: skip
_RECORDS = {"creation_timestamp", "last_updated_timestamp", "user_id", "uri", "is_text_prompt", "current_stage", "source",
            "run_id", "status", "status_message", "run_link", "creation_time", "storage_location"}  # fmt: skip
_HOLDERS = ("registered_model", "prompt_versions", "model_versions", "latest_versions", "prompts", "prompt_version",
            "model_version", "prompt")  # fmt: skip
_VARIABLE = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*(?:\.[a-zA-Z_][a-zA-Z0-9_]*)*)\s*\}\}")


def read_mlflow(foreign: Foreign) -> Imported:
    """Every prompt of an MLflow export; raises BadFile where the file holds none."""
    notes = Notes(foreign.path)
    rows, aliases = _rows(foreign, notes)
    rows = [_unwrapped(row, foreign, notes) for row in rows]
    if not any(isinstance(row, Mapping) and row.get("template") for row in rows):
        notes.refuse(0, "no prompt of MLflow is in it", "give a prompt version with its name and template")
    prompts: dict[str, dict[str, Any]] = {}
    for row in newest(rows, notes):
        row = _with_aliases(row, aliases, notes)
        name = foreign.prefix + (fit_name(str(row.get("name") or "")) or foreign.name.removeprefix(foreign.prefix))
        if row.get("name") and name != foreign.prefix + str(row["name"]):
            notes.leave(str(row["name"]), str(row["name"]), f"the prompt is called {name!r} here")
        prompts[name] = _keys(row, notes, f"{row.get('name', 'prompt')}.")
    return Imported(prompts, left_out=notes.found)


def _rows(foreign: Foreign, notes: Notes) -> tuple[list[Any], list[tuple[str, str]]]:
    """The rows of an export, and the aliases that stand beside them with the version that each names."""
    if foreign.path.lower().endswith((".yaml", ".yml")):
        data = load_yaml(foreign.text, foreign.path).data
    else:
        data = json_data(foreign.text, foreign.path)
    aliases: list[tuple[str, str]] = []
    for key in _HOLDERS:
        if isinstance(data, Mapping) and _holds_rows(data, key):
            aliases += _aliases_beside(data, key, notes)
            data = data[key]
    return data if isinstance(data, list) else [data], aliases


def _holds_rows(data: Mapping[str, Any], key: str) -> bool:
    """Whether the rows stand below `key`; a registered model may also stand beside them."""
    if key == "registered_model":
        return isinstance(data.get(key), Mapping) and not data.keys() & set(_HOLDERS[1:])
    return isinstance(data.get(key), list | Mapping)


def _aliases_beside(holder: Mapping[str, Any], key: str, notes: Notes) -> list[tuple[str, str]]:
    """The aliases of a holder of rows and of its `registered_model`; whatever else it says is noted."""
    model = holder.get("registered_model")
    model = model if isinstance(model, Mapping) and key != "registered_model" else {}
    notes.rest(holder, {key, "aliases", "registered_model", "name", *_HOLDERS, *_RECORDS})
    return [*_named_versions(holder.get("aliases")), *_named_versions(model.get("aliases"))]


def _named_versions(aliases: Any) -> list[tuple[str, str]]:
    """Alias and version, from `{alias: version}` or from a list of `{alias, version}`; others name no version."""
    if isinstance(aliases, Mapping):
        return [(str(alias), str(version)) for alias, version in aliases.items()]
    found = [item for item in aliases if isinstance(item, Mapping)] if isinstance(aliases, list) else []
    return [(str(item["alias"]), str(item.get("version", ""))) for item in found if "alias" in item]


def _with_aliases(row: Mapping[str, Any], beside: list[tuple[str, str]], notes: Notes) -> Mapping[str, Any]:
    """`row` with the aliases that name its version, its own and those beside it; one of another version is noted."""
    own = row.get("aliases")
    named = [*_named_versions(own), *beside]
    for alias, version in named:
        if version != str(row.get("version", "")):
            why = f"it names version {version}, and only the newest is imported"
            notes.leave(f"{row.get('name', 'prompt')}.aliases", alias, why)
    kept = [alias for alias, version in named if version == str(row.get("version", ""))]
    plain = [own] if isinstance(own, str) else own if isinstance(own, list) else []
    return {**row, "aliases": [*(alias for alias in plain if not isinstance(alias, Mapping)), *kept]}


def _unwrapped(row: Any, foreign: Foreign, notes: Notes) -> Any:
    """A row with the template, the output format and the settings taken out of its tags."""
    if not isinstance(row, Mapping):
        return row
    tags = _tags(row)
    text = row.get("template", tags.get(TEXT_TAG) or foreign.beside(f"tags/{TEXT_TAG}"))
    for key in tags:
        if key.startswith(("mlflow.", "_mlflow")) and key not in _OWN_TAGS:
            notes.leave(f"tags.{key}", shortened(tags[key]), "MLflow's own record")
    kept = {key: value for key, value in tags.items() if not key.startswith(("mlflow.", "_mlflow"))}
    found = {**row, "tags": kept, "template": _parsed(text)}
    for key, tag in (("response_format", FORMAT_TAG), ("model_config", CONFIG_TAG)):
        held = tags.get(tag) or foreign.beside(f"tags/{tag}")
        if held and not row.get(key):
            found[key] = _parsed(held)
            if isinstance(found[key], str):
                notes.leave(tag, shortened(held), "not JSON")
    return found


def _tags(row: Mapping[str, Any]) -> dict[str, Any]:
    tags = row.get("tags") or {}
    if isinstance(tags, Mapping):
        return dict(tags)
    pairs = [tag for tag in tags if isinstance(tag, Mapping) and "key" in tag] if isinstance(tags, list) else []
    return {str(tag["key"]): tag.get("value") for tag in pairs}


def _parsed(text: Any) -> Any:
    """JSON in a tag as data; a text that is none stays text."""
    if not isinstance(text, str) or text.lstrip()[:1] not in ("[", "{") or text.lstrip().startswith(("{{", "{%")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _keys(row: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    notes.rest(row, _KNOWN | _RECORDS, at)
    config = row.get("model_config")
    if config is not None and not isinstance(config, Mapping):
        notes.leave(f"{at}model_config", shortened(config), "settings are keys and values")
    settings = dict(config) if isinstance(config, Mapping) else {}
    more = settings.pop("extra_params", None)
    settings |= more if isinstance(more, Mapping) else {}
    if provider := settings.pop("provider", None):
        notes.leave(
            f"{at}model_config.provider", shortened(provider), "where a model is reached stands in turnout.yaml"
        )
    return without_nothing({
        "name": text_of(row.get("name"), f"{at}name", notes),
        "notes": text_of(row.get("commit_message") or row.get("description"), f"{at}commit_message", notes),
        "tags": [f"{key}:{value}" if value not in (None, "", "true") else key for key, value in row["tags"].items()],
        "labels": _labels(row, notes, at),
        "model": text_of(settings.pop("model_name", settings.pop("model", None)), f"{at}model", notes),
        "modelParameters": model_parameters(settings, notes, f"{at}model_config."),
        **output_keys(row.get("response_format"), notes, f"{at}response_format"),
        **_messages(row["template"], notes, f"{at}template"),
    })  # fmt: skip


def _labels(row: Mapping[str, Any], notes: Notes, at: str) -> list[str]:
    found = []
    for alias in texts_of(row.get("aliases"), f"{at}aliases", notes):
        if alias == PRODUCTION:
            notes.leave(f"{at}aliases", PRODUCTION, "it moves by a passing gate, or by `turnout label` with a reason")
        elif label := fit_label(alias, notes, f"{at}aliases"):
            found.append(label)
    return found


def _messages(template: Any, notes: Notes, at: str) -> dict[str, Any]:
    fit = noted_variable(notes, at)
    if isinstance(template, list):
        made = chat_messages(template, lambda text: with_variables(text, _VARIABLE, fit), notes, at)
        if not made:
            notes.refuse(0, f"{at} holds no messages", "give messages with a role and a content")
        return {"messages": made}
    text = template if isinstance(template, str) else json.dumps(template, ensure_ascii=False)
    if "{%" not in text:
        return {"messages": [{"role": "user", "content": with_variables(text, _VARIABLE, fit)}]}
    return _jinja(text, notes, at)


def _jinja(text: str, notes: Notes, at: str) -> dict[str, Any]:
    try:
        names = Template(text).names
    except BadInput as error:
        notes.refuse(0, f"{at}: the template is refused: {error}", "write it without what is refused")
    return {"variables": inferred_from_jinja(names, [text]), "messages": [{"role": "user", "content": text}]}
