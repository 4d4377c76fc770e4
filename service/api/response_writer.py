"""A chat completion's chunks as OpenAI's response object, and as the events of its stream.

The events and their order are those of https://developers.openai.com/api/reference/resources/responses/streaming-events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prompts.messages import Usage

Event = dict[str, Any]
_ENDS = {"length": "max_output_tokens", "content_filter": "content_filter"}  # why an answer is incomplete
_TEXT, _REFUSAL = "output_text", "refusal"


class ResponseWriter:
    """Builds one response from the deltas of its first choice. Every method gives the events that what it took means."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = head
        self._suffix = str(head["id"]).rpartition("_")[2]
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the message that text is added to
        self._calls: dict[int, int] = {}  # the upstream's number of a call → its place in the output
        self._finish_reason = "stop"
        self._sequence = 0

    def begin(self) -> Iterator[Event]:
        """To be told first, before any delta."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response={**self._head, "status": "in_progress"})

    def add(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """One chunk."""
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # there is one answer to a response
            delta = choice.get("delta") or {}
            if isinstance(delta.get("content"), str) and delta["content"]:
                yield from self._add_text(_TEXT, delta["content"], _logprobs(choice.get("logprobs")))
            if isinstance(delta.get("refusal"), str) and delta["refusal"]:
                yield from self._add_text(_REFUSAL, delta["refusal"], [])
            for number, call in enumerate(delta.get("tool_calls") or ()):
                yield from self._add_call(call, call.get("index", number))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def end(self, usage: Usage, more: Mapping[str, Any]) -> Iterator[Event]:
        """The answer is whole; `more` are fields that only now are known. The last event holds the whole response."""
        yield from self._close_message()
        for place in self._calls.values():
            yield from self._close_call(place)
        if not self._items:  # an answer of no words is a message, too
            yield from self._open_message(_TEXT)
            yield from self._close_message()
        whole = self.response(usage, more)
        yield self._event(f"response.{whole['status']}", response=whole)

    def response(self, usage: Usage, more: Mapping[str, Any]) -> dict[str, Any]:
        """The whole response, once `end` was called."""
        reason = _ENDS.get(self._finish_reason)
        status = "incomplete" if reason else "completed"
        details = {"reason": reason} if reason else None
        shown = {**self._head, "status": status, "incomplete_details": details, "output": self._items}
        return {**shown, "usage": _usage(usage), **more}

    def fail(self, error: Mapping[str, Any]) -> Iterator[Event]:
        """The answer was broken off by `error`, OpenAI's object of it."""
        told = {"code": error["code"], "message": error["message"]}
        yield self._event("error", **told, param=error["param"])
        for item in self._items:
            if item["status"] == "in_progress":
                item["status"] = "incomplete"
        response = {**self._head, "status": "failed", "output": self._items, "error": told | {"code": "server_error"}}
        yield self._event("response.failed", response=response)

    # ---------------------------------------------------------------------------- text

    def _add_text(self, kind: str, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if self._open is not None and self._open["content"][-1]["type"] != kind:
            yield from self._close_message()
        if self._open is None:
            yield from self._open_message(kind)
        part = self._part()
        part[_word(kind)] += text
        if logprobs:
            part["logprobs"].extend(logprobs)
        more = {"logprobs": [_short(each) for each in logprobs]} if kind == _TEXT else {}
        yield self._at(f"response.{kind}.delta", delta=text, **more)

    def _open_message(self, kind: str) -> Iterator[Event]:
        item: dict[str, Any] = {
            "id": self._new_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._items.append(item)
        self._open = item
        yield self._event("response.output_item.added", output_index=len(self._items) - 1, item=_copied(item))
        empty: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == _TEXT else {}
        item["content"].append({"type": kind, _word(kind): "", **empty})
        yield self._at("response.content_part.added", part=_copied(self._part()))

    def _close_message(self) -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        part = self._part()
        kind = part["type"]
        more = {"logprobs": [_short(each) for each in part["logprobs"]]} if kind == _TEXT else {}
        yield self._at(f"response.{kind}.done", **{_word(kind): part[_word(kind)]}, **more)
        yield self._at("response.content_part.done", part=_copied(part))
        item["status"] = "incomplete" if self._finish_reason in _ENDS else "completed"
        self._open = None
        yield self._event("response.output_item.done", output_index=self._items.index(item), item=_copied(item))

    def _part(self) -> dict[str, Any]:
        part: dict[str, Any] = self._items[self._message_place()]["content"][-1]
        return part

    def _message_place(self) -> int:
        return next(place for place in reversed(range(len(self._items))) if self._items[place]["type"] == "message")

    def _at(self, kind: str, **fields: Any) -> Event:
        """An event of the message that is open."""
        place = self._message_place()
        return self._event(kind, item_id=self._items[place]["id"], output_index=place, content_index=0, **fields)

    # ---------------------------------------------------------------------------- calls

    def _add_call(self, call: Mapping[str, Any], number: int) -> Iterator[Event]:
        function = call.get("function") or {}
        if number not in self._calls:
            yield from self._close_message()
            self._calls[number] = len(self._items)
            item_id = self._new_id("fc")
            item = {"id": item_id, "type": "function_call", "status": "in_progress", "arguments": "",
                    "call_id": call.get("id") or f"call_{item_id[3:]}", "name": function.get("name") or ""}  # fmt: skip
            self._items.append(item)
            yield self._event("response.output_item.added", output_index=self._calls[number], item=_copied(item))
        place = self._calls[number]
        more = function.get("arguments")
        if more:
            item = self._items[place]
            item["arguments"] += more
            yield self._event(
                "response.function_call_arguments.delta", item_id=item["id"], output_index=place, delta=more
            )

    def _close_call(self, place: int) -> Iterator[Event]:
        item = self._items[place]
        item["status"] = "incomplete" if self._finish_reason in _ENDS else "completed"
        yield self._event("response.function_call_arguments.done", item_id=item["id"], output_index=place,
                          arguments=item["arguments"], name=item["name"])  # fmt: skip
        yield self._event("response.output_item.done", output_index=place, item=_copied(item))

    # ---------------------------------------------------------------------------- events

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self._suffix}{len(self._items):02x}"

    def _event(self, kind: str, **fields: Any) -> Event:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **fields}


def _word(kind: str) -> str:
    """The field that a part of a kind has its words in."""
    return "text" if kind == _TEXT else kind


def _copied(item: Mapping[str, Any]) -> dict[str, Any]:
    """As it is now: it goes on changing."""
    return {name: list(value) if isinstance(value, list) else value for name, value in item.items()}


def _logprobs(given: Any) -> list[dict[str, Any]]:
    """The log-probabilities of a chat completion's tokens, as a response has them."""
    tokens = given.get("content") if isinstance(given, Mapping) else None
    return [_token(token) | {"top_logprobs": [_token(top) for top in token.get("top_logprobs") or ()]}
            for token in tokens or () if isinstance(token, Mapping)]  # fmt: skip


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token", ""), "logprob": token.get("logprob", 0.0), "bytes": token.get("bytes") or []}


def _short(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token of a delta, which has no bytes."""
    tops = [{"token": top["token"], "logprob": top["logprob"]} for top in token["top_logprobs"]]
    return {"token": token["token"], "logprob": token["logprob"], "top_logprobs": tops}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
