"""A model written into turnout.yaml: one line, everything else as it was."""

from __future__ import annotations

import re
from pathlib import Path

from prompts.errors import BadFile, BadInput
from prompts.yaml_source import load_yaml
from service.cli.project import read_text
from service.cli.rewriting import rewrite
from service.engine.presets import PRESETS, Preset

_MODELS = re.compile(r"^models:[ \t]*(?:#.*)?$", re.MULTILINE)


def add_preset(file: Path, name: str) -> Preset:
    """Add the small model called `name` to `file`, which is made where it is not there.

    Raises BadInput where there is no such model, `file` has the alias already, or its `models` are written in a way that
    no line can be added to: the message has the line. Raises BadFile where it is no text.
    """
    preset = next((preset for preset in PRESETS if preset.alias == name), None)
    if preset is None:
        known = ", ".join(preset.alias for preset in PRESETS)
        raise BadInput(f"no small model {name!r}: known are {known}; any other goes into {file.name} by its source")
    is_there = file.is_file()
    added = with_model(read_text(file, str(file)) if is_there else "", preset, file)
    ends_in_crlf = is_there and b"\r\n" in file.read_bytes()
    rewrite(file, added.replace("\n", "\r\n") if ends_in_crlf else added)
    return preset


def with_model(text: str, preset: Preset, file: Path) -> str:
    """`text` with the preset's line as the first of its `models`; raises BadInput as `add_preset` does."""
    held = _models(text, file)
    if preset.alias in held:
        raise BadInput(f"{file} has a model {preset.alias!r} already: take it out first, or give yours another alias")
    found = _MODELS.search(text)
    if found is None and "models" not in _document(text, file):
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}models:\n  {preset.line}\n"
    added = _inserted(text, found.end(), preset) if found else ""
    if not added or _models(added, file) != {**held, preset.alias: {"engine": "local", "source": preset.source}}:
        raise BadInput(f"the models of {file} are not written one a line: add this line yourself:\n  {preset.line}")
    return added


def _inserted(text: str, at: int, preset: Preset) -> str:
    following = re.match(r"(?:[ \t]*(?:#.*)?\n)*([ \t]+)\S", text[at:])
    return f"{text[:at]}\n{following.group(1) if following else '  '}{preset.line}{text[at:]}"


def _models(text: str, file: Path) -> dict[str, object]:
    return _document(text, file).get("models") or {}  # type: ignore[return-value]


def _document(text: str, file: Path) -> dict[str, object]:
    try:
        data = load_yaml(text, str(file), []).data
    except BadFile:
        if text:
            raise
        data = None
    return data if isinstance(data, dict) else {}
