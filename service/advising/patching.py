"""A prompt's content as the keys of its file: what an advice proposes can be pushed, or written and committed."""

from __future__ import annotations

from typing import Any

from prompts.prompt import PromptContent


def prompt_keys(content: PromptContent) -> dict[str, Any]:
    """The keys of a `.prompt.yml` that gives this content; includes are resolved, so that it stands alone."""
    data = content.model_dump(mode="json")
    keys = {
        "model": data["model"],
        "modelParameters": data.get("parameters"),
        "variables": data.get("variables"),
        "placeholders": data.get("placeholders"),
        "messages": data["messages"],
        "examples": data.get("examples"),
        "tools": data.get("tools"),
        "toolChoice": data.get("tool_choice"),
        "responseFormat": data.get("response_format"),
        "jsonSchema": data.get("output_schema"),
        "repair": data.get("repair"),
        "cacheSeconds": data.get("cache_s"),
    }
    return {name: value for name, value in keys.items() if value}
