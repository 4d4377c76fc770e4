"""Lists of chat messages of other tools as messages of a prompt file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prompts.formats.imported import Notes, fit_variable, shortened
from prompts.formats.literal import literal

ToTemplate = Callable[[str], str]
_ROLES = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant", "tool": "tool",
          "human": "user", "ai": "assistant", "model": "assistant"}  # fmt: skip
_TEXT = ("text", "input_text", "output_text")
_OWN = {"role", "content", "type", "name", "id", "status", "annotations"}


def is_chat(data: Any) -> bool:
    """Whether data is a list of messages with roles."""
    return isinstance(data, list) and bool(data) and all(isinstance(item, Mapping) and "role" in item for item in data)


def chat_messages(data: list[Any], template: ToTemplate, notes: Notes, at: str) -> list[dict[str, Any]]:
    """Messages of a prompt file; `template` makes a text of theirs a Jinja2 template. What is no message is noted."""
    found = []
    for index, item in enumerate(data):
        place = f"{at}.{index}"
        message = _message(item, template, notes, place) if isinstance(item, Mapping) else None
        if message is None:
            notes.leave(place, shortened(item), "only messages with a role and a content can be kept")
        else:
            found.append(message)
    return found


def placeholder(name: str, notes: Notes, at: str) -> tuple[str, dict[str, Any]]:
    """A placeholder's name as ours, and its entry among the messages; noted where the name had to change."""
    fitted = fit_variable(name)
    if fitted != name:
        notes.leave(at, name, f"the placeholder is called {fitted!r} here")
    return fitted, {"placeholder": fitted}


def _message(item: Mapping[str, Any], template: ToTemplate, notes: Notes, at: str) -> dict[str, Any] | None:
    role = _ROLES.get(str(item.get("role", "")).lower())
    if role is None or item.get("type") not in (None, "message", "chatmessage"):
        return None
    content = item.get("content")
    if isinstance(content, list):
        parts = [
            part for index, given in enumerate(content) if (part := _part(given, template, notes, f"{at}.{index}"))
        ]
        content = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    elif content is not None:
        content = template(str(content))
    for key in (key for key in item if key not in _OWN):
        notes.leave(f"{at}.{key}", shortened(item[key]), "a message of a prompt is a role and a content")
    if item.get("name"):
        notes.leave(f"{at}.name", shortened(item["name"]), "a message of a prompt is a role and a content")
    return {"role": role, "content": content} if content else None


def _part(given: Any, template: ToTemplate, notes: Notes, at: str) -> dict[str, Any] | None:
    if isinstance(given, str):
        return {"type": "text", "text": template(given)}
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind in _TEXT and isinstance(given.get("text"), str):
        return {"type": "text", "text": template(given["text"])}
    if kind in ("image_url", "input_image", "image"):
        image = given.get("image_url", given.get("url"))
        url = image.get("url") if isinstance(image, Mapping) else image
        detail = image.get("detail") if isinstance(image, Mapping) else given.get("detail")
        if isinstance(url, str):
            return {
                "type": "image_url",
                "image_url": {"url": template(url)} | ({"detail": literal(detail)} if detail else {}),
            }
    notes.leave(at, shortened(given), "parts are text and images with a URL")
    return None
