"""The formats that are read, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.chat import is_chat
from prompts.formats.dotprompt import read_dotprompt
from prompts.formats.github import read_github
from prompts.formats.imported import Foreign, Imported, json_data
from prompts.formats.langfuse import read_langfuse
from prompts.formats.mlflow import TEXT_TAG, read_mlflow
from prompts.formats.openai_playground import read_openai
from prompts.formats.prompt_yml import SUFFIXES as GITHUB
from prompts.formats.promptfoo_prompts import SUFFIXES as PROMPTFOO
from prompts.formats.promptfoo_prompts import read_promptfoo
from prompts.formats.prompty import read_prompty
from prompts.yaml_source import load_yaml

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Format:
    """A format's reader, and the suffixes of its files in a folder."""

    read: Callable[[Foreign], Imported]
    suffixes: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    "github": Format(read_github, GITHUB),
    "prompty": Format(read_prompty, (".prompty",)),
    "dotprompt": Format(read_dotprompt, (".prompt",)),
    "promptfoo": Format(read_promptfoo, (*PROMPTFOO, ".js", ".py")),
    "mlflow": Format(read_mlflow, (".json", "meta.yaml")),
    "langfuse": Format(read_langfuse, (".json",)),
    "openai": Format(read_openai, (".json",)),
}
# what a folder holds beside prompts (README.md, package.json) is no prompt without being named
AUTO_SUFFIXES = (*GITHUB, ".prompty", ".prompt", "promptfooconfig.yaml", "promptfooconfig.yml")


def read(format_name: str, foreign: Foreign) -> Imported:
    """Read a file in the named format, or in the one that `auto` finds. Raises BadFile."""
    return FORMATS[detect(foreign.text, foreign.path) if format_name == AUTO else format_name].read(foreign)


def detect(text: str, path: str) -> str:
    """The format of a file by its suffix, and for JSON and YAML by what is in it. Raises BadFile where it is none."""
    name = PurePosixPath(path).name.lower()
    for format_name in ("github", "prompty", "dotprompt"):
        if name.endswith(FORMATS[format_name].suffixes):
            return format_name
    if name.endswith(".json"):
        return _of_data(json_data(text, path), path)
    if name.endswith((".yaml", ".yml")):
        data = load_yaml(text, path).data
        is_mlflow = isinstance(data, Mapping) and "prompts" not in data and {"name", "version"} <= data.keys()
        return "mlflow" if is_mlflow else "promptfoo"
    if name.endswith((*PROMPTFOO, ".js", ".py")):
        return "promptfoo"
    known = ", ".join(FORMATS)
    raise BadFile([Fault(path, 0, "no format of prompts has this suffix", f"say which it is: {known}")])


def _of_data(data: Any, path: str) -> str:
    if is_chat(data) or (isinstance(data, Mapping) and "prompts" in data and "data" not in data):
        return "promptfoo"
    first = data.get("data", data) if isinstance(data, Mapping) else data
    first = first[0] if isinstance(first, list) and first else first
    if isinstance(first, Mapping):
        if (
            "template" in first
            or TEXT_TAG in str(first.get("tags", ""))
            or first.keys() & {"model_version", "prompt_version"}
        ):
            return "mlflow"
        if isinstance(first.get("prompt"), str | list) and first.keys() & {
            "name",
            "type",
            "labels",
            "config",
            "version",
        }:
            return "langfuse"
        if first.keys() & {"messages", "input", "instructions", "prompt", "body"}:
            return "openai"
    raise BadFile([Fault(path, 1, "its JSON is none of the formats of prompts", "say which format it is, not auto")])
