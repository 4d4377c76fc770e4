"""OpenAI's chat completions as the embedded engine speaks them: bodies in, replies and errors out. No torch here."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import msgspec

from prompts.errors import BadInput
from prompts.messages import ROLES
from prompts.parameters import answer_tokens
from service.engine.asks import Answer, Ask, UnknownAdapter

_MOST_STOPS = 4  # as OpenAI has it
_Body = TypeVar("_Body")
Natural = Annotated[int, msgspec.Meta(ge=1)]


class ChatBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`. What can only be done in one way has that one value allowed."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: Natural | None = None
    max_completion_tokens: Natural | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    stream: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None


class LoadBody(msgspec.Struct):
    """The body of vLLM's `POST /v1/load_lora_adapter`."""

    lora_name: str
    lora_path: str


class UnloadBody(msgspec.Struct):
    """The body of vLLM's `POST /v1/unload_lora_adapter`."""

    lora_name: str


# A parameter, the values that change nothing, and what to do instead.
_FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("n", (None, 1), "ask several times"),
    ("stream", (None, False), "leave it out"),
    ("logprobs", (None, False), "leave it out"),
    ("top_logprobs", (None, 0), "leave it out"),
    ("presence_penalty", (None, 0), "leave it out"),
    ("frequency_penalty", (None, 0), "leave it out"),
    ("logit_bias", (None, {}), "leave it out"),
    ("response_format", (None, {"type": "text"}), "ask for the format in the messages, or serve the model with vLLM"),
    ("tools", (None, []), "serve the model with vLLM"),
    ("tool_choice", (None, "none", "auto"), "serve the model with vLLM"),
)


def read_body(raw: bytes, kind: type[_Body]) -> _Body:
    """Raises BadInput that names the parameter."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BadInput(str(error), param=_param(str(error))) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}") from error


def _param(message: str) -> str | None:
    found = re.search(r"`\$\.(\w+)", message) or re.search(r"field `(\w+)`", message)
    return found.group(1) if found else None


def read_ask(raw: bytes, alias: str, adapters: Collection[str]) -> tuple[Ask, str]:
    """What a body asks for, and the name it called the model by.

    Raises BadInput that names the parameter; UnknownAdapter for a model that is neither `alias` nor a loaded adapter.
    """
    body = read_body(raw, ChatBody)
    for param, allowed, fix in _FIXED:
        if getattr(body, param) not in allowed:
            value = str(getattr(body, param))[:80]
            raise BadInput(f"{param} {value!r} is not something the embedded engine can do: {fix}", param=param)
    if body.model != alias and body.model not in adapters:
        raise UnknownAdapter(f"no model {body.model!r} here; there are {', '.join([alias, *sorted(adapters)])}")
    ask = Ask(
        tuple(_checked(body.messages)),
        adapter=None if body.model == alias else body.model,
        max_tokens=answer_tokens({"max_completion_tokens": body.max_completion_tokens, "max_tokens": body.max_tokens}),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=_stops(body.stop),
    )
    return ask, body.model


def _checked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not messages:
        raise BadInput("messages is empty: at least one is needed", param="messages")
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise BadInput(f"messages[{index}].role is {message.get('role')!r}, not one of {ROLES}", param="messages")
        if isinstance(message.get("content"), list) and not all(map(_is_text, message["content"])):
            raise BadInput(f"messages[{index}] holds other than text: this model reads text only", param="messages")
    return messages


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > _MOST_STOPS or "" in stops:
        raise BadInput(f"stop holds {len(stops)} texts: one to {_MOST_STOPS}, none empty, are allowed", param="stop")
    return stops


def make_reply(answer: Answer, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text},
                "finish_reason": answer.finish_reason,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        },
        "turnout": {"asked_again": answer.asked_again},
    }


def make_error(message: str, *, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
