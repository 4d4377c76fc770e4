"""What changed between two contents of a prompt."""

from __future__ import annotations

import difflib
from typing import Any

from prompts.prompt import PromptContent


def diff(before: PromptContent, after: PromptContent) -> dict[str, Any]:
    """The messages as unified diff lines, and every other field that differs as `{field: [before, after]}`."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    fields = {name: [old[name], new[name]] for name in old if name != "messages" and old[name] != new[name]}
    lines = difflib.unified_diff(_lines(before), _lines(after), "before", "after", lineterm="", n=3)
    return {"messages": list(lines), "fields": fields, "same": before == after}


def _lines(content: PromptContent) -> list[str]:
    return [f"[{m.role}] {line}" for m in content.messages for line in m.content.split("\n")]
