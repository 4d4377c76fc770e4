"""OpenAI's chat completions as the embedded engine reads them, with vLLM's words beside. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import msgspec

from prompts.errors import BadInput
from prompts.messages import ROLES
from prompts.parameters import answer_tokens
from service.engine.asks import Ask, UnknownAdapter
from service.engine.forms import read_guide

_MOST_STOPS = 4  # as OpenAI has it
_Body = TypeVar("_Body")
Natural = Annotated[int, msgspec.Meta(ge=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How a stream is to be."""

    include_usage: bool | None = None


class ChatBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`. What can only be done in one way has that one value allowed.

    `priority` is vLLM's: the lower the earlier, and nobody waits for what is above 0. Requests of the same
    `prompt_cache_key` share the engine fairly with others. `timeout_s` is ours: after it nobody waits any more.
    """

    model: str
    messages: list[dict[str, Any]]
    max_tokens: Natural | None = None
    max_completion_tokens: Natural | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_choice: list[str] | None = None
    guided_regex: str | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_grammar: str | None = None
    priority: int | None = None
    prompt_cache_key: str | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_retention: str | None = None


class LoadBody(msgspec.Struct):
    """The body of vLLM's `POST /v1/load_lora_adapter`."""

    lora_name: str
    lora_path: str


class UnloadBody(msgspec.Struct):
    """The body of vLLM's `POST /v1/unload_lora_adapter`."""

    lora_name: str


# A parameter, the values that change nothing, and what to do instead.
_FIXED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("tools", (None, []), "serve the model with vLLM"),
    ("tool_choice", (None, "none", "auto"), "serve the model with vLLM"),
    ("functions", (None, []), "serve the model with vLLM"),
    ("function_call", (None, "none", "auto"), "serve the model with vLLM"),
    ("modalities", (None, [], ["text"]), "leave it out"),
    ("audio", (None,), "leave it out"),
)


def read_body(raw: bytes, kind: type[_Body]) -> _Body:
    """Raises BadInput that names the parameter."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BadInput(_said(str(error)), param=_param(str(error))) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}") from error


def _said(message: str) -> str:
    unknown = re.fullmatch(r"Object contains unknown field `(\w+)`", message)
    return _cannot(unknown.group(1), "leave it out, or serve the model with vLLM") if unknown else message


def _cannot(what: str, fix: str) -> str:
    return f"{what} is not something the embedded engine can do: {fix}"


def _param(message: str) -> str | None:
    found = re.search(r"`\$\.(\w+)", message) or re.search(r"field `(\w+)`", message)
    return found.group(1) if found else None


def read_chat(raw: bytes) -> ChatBody:
    """Raises BadInput that names the parameter, also for what this engine cannot do."""
    body = read_body(raw, ChatBody)
    for param, allowed, fix in _FIXED:
        if getattr(body, param) not in allowed:
            value = json.dumps(getattr(body, param), ensure_ascii=False)[:80]
            raise BadInput(_cannot(f"{param} {value}", fix), param=param)
    if body.top_logprobs and not body.logprobs:
        raise BadInput("top_logprobs needs logprobs: set it to true", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise BadInput("stream_options needs stream: set it to true", param="stream_options")
    return body


def as_ask(body: ChatBody, alias: str, adapters: Collection[str], size_bytes: int) -> Ask:
    """What a body of `size_bytes` asks for.

    Raises BadInput that names the parameter; UnknownAdapter for a model that is neither `alias` nor a loaded adapter.
    """
    if body.model != alias and body.model not in adapters:
        raise UnknownAdapter(f"no model {body.model!r} here; there are {', '.join([alias, *sorted(adapters)])}")
    return Ask(
        tuple(_checked(body.messages)),
        adapter=None if body.model == alias else body.model,
        max_tokens=answer_tokens({"max_completion_tokens": body.max_completion_tokens, "max_tokens": body.max_tokens}),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=_stops(body.stop),
        n=body.n or 1,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_biases(body.logit_bias),
        guide=read_guide(body),
        priority=body.priority or 0,
        flow=body.prompt_cache_key or "",
        timeout_s=body.timeout_s,
        size_bytes=size_bytes,
    )


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


def _biases(biases: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    try:
        return tuple((int(token), bias) for token, bias in (biases or {}).items())
    except ValueError as error:
        raise BadInput(f"logit_bias: its keys are ids of tokens ({error})", param="logit_bias") from error
