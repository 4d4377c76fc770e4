"""The input of OpenAI's Responses API as the messages of a chat completion.

What has no counterpart there is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompts.errors import BadInput

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text")
_HIGHER = ("system", "developer")


def messages_of(given: Any, *, is_prompt: bool) -> list[dict[str, Any]]:
    """The messages that `input` means. With a prompt, which has its own, none may be of a higher role than the user's.

    Raises a BadInput that names the item.
    """
    if given is None:
        return []
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise BadInput(f"input: expected text or a list of items, found {type(given).__name__}", param="input")
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        place = f"input[{index}]"
        if not isinstance(item, Mapping):
            raise BadInput(f"{place}: every item is an object", param=place)
        _add(messages, item, place, is_prompt=is_prompt)
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], place: str, *, is_prompt: bool) -> None:
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        messages.append(_message(item, place, is_prompt=is_prompt))
    elif kind == "function_call":
        _add_call(messages, item, place)
    elif kind == "function_call_output":
        output = _text(item, "output", place, of_parts=True)
        messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output})
    elif kind != "reasoning":  # what a model thought before is not shown to it again
        known = "message, function_call, function_call_output, reasoning"
        raise BadInput(f"{place}: items of type {kind!r:.60} are not supported: send {known}", param=f"{place}.type")


def _message(item: Mapping[str, Any], place: str, *, is_prompt: bool) -> dict[str, Any]:
    role = item.get("role")
    if role not in _ROLES:
        raise BadInput(f"{place}: unknown role {role!r:.60}; there are {', '.join(_ROLES)}", param=f"{place}.role")
    if is_prompt and role in _HIGHER:
        reason = f"{place}: role {role!r} may not follow a prompt; allowed are user, assistant"
        raise BadInput(reason, param=f"{place}.role")
    content = item.get("content")
    if isinstance(content, list):
        content = _parts(content, f"{place}.content", as_text=role == "assistant")
    elif not isinstance(content, str):
        raise BadInput(f"{place}.content: expected text or a list of parts", param=f"{place}.content")
    return {"role": role, "content": content}


def _parts(parts: Sequence[Any], place: str, *, as_text: bool) -> str | list[dict[str, Any]]:
    """Content parts; those of an answer, and one text alone, as text, which every server takes."""
    found = [_part(part, f"{place}[{index}]") for index, part in enumerate(parts)]
    texts = [part["text"] for part in found if part["type"] == "text"]
    return "".join(texts) if len(texts) == len(found) and (as_text or len(found) == 1) else found


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS:
        return {"type": "text", "text": _text(part, "text", place)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", place)}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image = {"url": part["image_url"]} | ({"detail": part["detail"]} if part.get("detail") else {})
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    known = "input_text, output_text, refusal, input_image with image_url, input_file with file_data, input_audio"
    raise BadInput(f"{place}: a part of type {kind!r:.60} is not supported so: send {known}", param=place)


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    """Calls belong to the assistant's message before them."""
    function = {"name": _text(item, "name", place), "arguments": _text(item, "arguments", place)}
    call = {"id": _text(item, "call_id", place), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _text(item: Mapping[str, Any], name: str, place: str, *, of_parts: bool = False) -> str:
    value = item.get(name)
    if isinstance(value, str):
        return value
    if of_parts and isinstance(value, list):
        joined = _parts(value, f"{place}.{name}", as_text=True)
        if isinstance(joined, str):
            return joined
    raise BadInput(f"{place}.{name}: expected text, found {type(value).__name__}", param=f"{place}.{name}")
