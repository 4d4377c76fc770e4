"""Langfuse's prompts, as its API gives them: https://api.reference.langfuse.com/#tag/prompts

One prompt, a list of them, or `{"data": [...]}`. Of several versions of one name the newest is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prompts.formats.chat import chat_messages, placeholder
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
from prompts.formats.literal import joined, with_variables
from prompts.formats.parameters import model_parameters, output_keys, tool_choice, tool_list
from prompts.names import PRODUCTION

_KNOWN = {"name", "type", "prompt", "config", "version", "labels", "tags", "commitMessage"}
_OWN_RECORDS = {"id", "createdAt", "updatedAt", "projectId", "createdBy", "isActive", "resolutionGraph"}
_VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_COMPOSED = re.compile(r"@@@langfusePrompt:(name=[^@]*?)@@@")
_OUTPUT = ("response_format", "responseFormat", "json_schema", "schema", "output_schema")


def read_langfuse(foreign: Foreign) -> Imported:
    """Every prompt of a Langfuse export; raises BadFile where the file is none."""
    notes = Notes(foreign.path)
    data = json_data(foreign.text, foreign.path)
    rows = data["data"] if isinstance(data, Mapping) and isinstance(data.get("data"), list) else data
    rows = rows if isinstance(rows, list) else [rows]
    if not rows or not any(_is_prompt(row) for row in rows):
        notes.refuse(0, "no prompt of Langfuse is in it", "give what GET /api/public/v2/prompts/{name} answers")
    prompts: dict[str, dict[str, Any]] = {}
    for row in newest(rows, notes):
        name = fit_name(str(row["name"])) if row.get("name") else foreign.name.removeprefix(foreign.prefix)
        name = foreign.prefix + (name or foreign.name)
        if row.get("name") and name != foreign.prefix + str(row["name"]):
            notes.leave(str(row["name"]), str(row["name"]), f"the prompt is called {name!r} here")
        prompts[name] = _keys(row, foreign, notes, f"{row.get('name', 'prompt')}.")
    return Imported(prompts, left_out=notes.found)


def _is_prompt(row: Any) -> bool:
    return isinstance(row, Mapping) and isinstance(row.get("prompt"), str | list)


def newest(rows: list[Any], notes: Notes) -> list[Mapping[str, Any]]:
    """Of each name the row with the highest version; the others, and what is no row with a prompt, are noted."""
    best: dict[str, Mapping[str, Any]] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            notes.leave(str(index), shortened(row), "expected a prompt with its name and version")
            continue
        name, known = str(row.get("name")), best.get(str(row.get("name")))
        older = row if known is not None and version_of(row) <= version_of(known) else known
        if older is not row:
            best[name] = row
        if older is not None:
            notes.leave(name, f"version {older.get('version')}", "only the newest version is imported")
    return list(best.values())


def version_of(row: Mapping[str, Any]) -> int:
    """A row's version as a number; 0 where it has none."""
    text = str(row.get("version", ""))
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _keys(row: Mapping[str, Any], foreign: Foreign, notes: Notes, at: str) -> dict[str, Any]:
    notes.rest(row, _KNOWN | _OWN_RECORDS, at)
    config = row.get("config") if isinstance(row.get("config"), Mapping) else {}
    if row.get("config") and not config:
        notes.leave(f"{at}config", shortened(row["config"]), "settings are keys and values")
    text = _Text(foreign, notes, at)
    return without_nothing({
        "name": text_of(row.get("name"), f"{at}name", notes),
        "notes": text_of(row.get("commitMessage"), f"{at}commitMessage", notes),
        "tags": texts_of(row.get("tags"), f"{at}tags", notes),
        "labels": _labels(row, notes, at),
        **_config(dict(config or {}), notes, f"{at}config."),
        **_messages(row["prompt"], text, notes, f"{at}prompt"),
    })  # fmt: skip


def _labels(row: Mapping[str, Any], notes: Notes, at: str) -> list[str]:
    found = []
    for label in texts_of(row.get("labels"), f"{at}labels", notes):
        if label == PRODUCTION:
            notes.leave(f"{at}labels", PRODUCTION, "it moves by a passing gate, or by `turnout label` with a reason")
        elif fitted := fit_label(label, notes, f"{at}labels"):
            found.append(fitted)
    return found


def _config(config: dict[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    model = next((config.pop(key) for key in ("model", "model_name", "modelName") if key in config), None)
    output: dict[str, Any] = {}
    for key in _OUTPUT:
        if key in config:
            output = output_keys(config.pop(key), notes, f"{at}{key}")
    tools = tool_list(config.pop("tools", None), notes, f"{at}tools")
    choice = tool_choice(config.pop("tool_choice", None), notes, f"{at}tool_choice")
    return {"model": text_of(model, f"{at}model", notes), "modelParameters": model_parameters(config, notes, at),
            "tools": tools, "toolChoice": choice, **output}  # fmt: skip


def _messages(prompt: Any, text: _Text, notes: Notes, at: str) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"messages": [{"role": "user", "content": text(prompt)}]}
    made: list[dict[str, Any]] = []
    placeholders: dict[str, Any] = {}
    for index, item in enumerate(prompt):
        if isinstance(item, Mapping) and item.get("type") == "placeholder" and isinstance(item.get("name"), str):
            name, entry = placeholder(item["name"], notes, f"{at}.{index}")
            placeholders[name] = {"default": []}
            made.append(entry)
        else:
            made += chat_messages([item], text, notes, f"{at}.{index}")
    if not made:
        notes.refuse(0, f"{at} holds no messages", "give messages with a role and a content")
    return {"placeholders": placeholders, "messages": made}


class _Text:
    """Langfuse's text as a template: `{{name}}` is a variable, `@@@langfusePrompt:…@@@` another prompt, all else text."""

    def __init__(self, foreign: Foreign, notes: Notes, at: str) -> None:
        self._prefix = foreign.prefix
        self._notes = notes
        self._at = at
        self._fit = noted_variable(notes, f"{at}prompt")

    def __call__(self, text: str) -> str:
        pieces = []
        for index, piece in enumerate(_COMPOSED.split(text)):
            pieces.append(self._include(piece) if index % 2 else with_variables(piece, _VARIABLE, self._variable))
        return joined(pieces)

    def _variable(self, name: str) -> str | None:
        if not name or not name.replace("_", "a").isalnum():
            self._notes.leave(f"{self._at}prompt", "{{" + name + "}}", "no variable's name: it stays as text")
            return None
        return self._fit(name)

    def _include(self, tag: str) -> str:
        name, _, which = tag.removeprefix("name=").partition("|")
        if which != f"label={PRODUCTION}":
            why = "an include takes what the name means when the prompt is pushed"
            self._notes.leave(f"{self._at}prompt", f"{name}: {which}", why)
        return "{% include '" + self._prefix + (fit_name(name) or name) + "' %}"
