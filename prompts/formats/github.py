"""GitHub's `.prompt.yml`: our own format, so that reading one is little more than checking it."""

from __future__ import annotations

from collections.abc import Mapping

from prompts.formats.imported import Foreign, Imported, Notes
from prompts.formats.parameters import model_parameters
from prompts.formats.prompt_yml import load_prompt
from prompts.yaml_source import load_yaml

_CAMEL = ("maxTokens", "maxCompletionTokens", "topP", "frequencyPenalty", "presencePenalty")


def read_github(foreign: Foreign) -> Imported:
    """The keys of a prompt file; `maxTokens` and `topP`, which GitHub has in its own spelling, in OpenAI's.

    Raises BadFile with all of its faults; a file without `model` is read, and whoever writes it says which.
    """
    notes = Notes(foreign.path)
    data = load_yaml(foreign.text, foreign.path).data
    if not isinstance(data, dict) or "model" in data:
        load_prompt(foreign.text, foreign.path, foreign.name)
    settings = data.get("modelParameters")
    if isinstance(settings, Mapping) and settings.keys() & set(_CAMEL):
        named = {key: value for key, value in settings.items() if key in _CAMEL}
        rest = {key: value for key, value in settings.items() if key not in _CAMEL}
        data = {**data, "modelParameters": rest | model_parameters(named, notes, "modelParameters.")}
    return Imported({foreign.name: data}, left_out=notes.found)
