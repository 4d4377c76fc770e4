"""The body of OpenAI's Responses API as an `Ask`: a prompt by its id, version and variables, or a model with its input."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from prompts.errors import BadInput
from service.api.exchange import Exchange
from service.api.fields import given, needed, refuse_unknown
from service.api.response_input import messages_of
from service.choosing import Ask
from service.errors import NotFound

_OURS = frozenset(
    {
        "include", "input", "instructions", "max_output_tokens", "model", "parallel_tool_calls", "placeholders", "prompt",
        "reasoning", "safety_identifier", "stream", "stream_options", "temperature", "text", "tool_choice", "tools",
        "top_logprobs", "top_p", "truncation", "user", "variables",
    }
)  # fmt: skip
_IGNORED = frozenset(  # what is between the client and OpenAI's own service; nothing is stored here
    {
        "metadata", "moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier",
        "store",
    }
)  # fmt: skip
_REFUSED = {  # and what to do instead
    "access_programs": "leave it out",
    "background": "leave it out: the answer comes with the reply",
    "context_management": "leave it out, and shorten `input` yourself",
    "conversation": "send the conversation as `input`",
    "image": "leave it out",
    "max_tool_calls": "leave it out: only functions are called, by you",
    "previous_response_id": "send the conversation as `input`: no response is stored",
}
_KNOWN = _OURS | _IGNORED | _REFUSED.keys()
_AS_THEY_ARE = ("temperature", "top_p", "top_logprobs", "parallel_tool_calls")
_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (_LOGPROBS, "reasoning.encrypted_content")  # the second holds nothing where nothing is stored
_INPUTS = ("input_image", "input_file")


def ask_of(body: Mapping[str, Any], exchange: Exchange) -> Ask:
    """What the body asks for. Raises a BadInput that names its field, or NotFound where `prompt` names none."""
    for name, fix in _REFUSED.items():
        if body.get(name) not in (None, False):
            raise BadInput(f"{name} is not supported: {fix}", param=name)
    refuse_unknown(body, _KNOWN)
    model, variables, named = _model(body)
    prompts: Collection[str] = exchange.context.snapshot.view.newest
    name = model.partition("@")[0]
    is_prompt = name in prompts
    if body.get("prompt") is not None and not is_prompt:
        raise NotFound("prompt", name, "`GET /v1/models` lists those that exist")
    messages = messages_of(body.get("input"), is_prompt=is_prompt)
    instructions = given(body, "instructions", str)
    if instructions is not None:
        if is_prompt:
            raise BadInput("instructions: a prompt has its own: leave them out, or name a model", param="instructions")
        messages.insert(0, {"role": "system", "content": instructions})
    if not is_prompt and body.get("input") is None:
        raise BadInput("input: a model needs some", param="input")
    return Ask(
        model,
        messages,
        variables,
        given(body, "placeholders", dict),
        _parameters(body),
        given(body, "safety_identifier", str) or given(body, "user", str) or "",
        exchange.header(b"x-turnout-session"),
        exchange.header(b"x-turnout-variant"),
        named,
    )


def _model(body: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None, str]:
    """The name of the prompt or the model, the variables (of `prompt`, or beside `model`), and a model named beside a prompt."""
    prompt = given(body, "prompt", dict)
    if prompt is None:
        return needed(body, "model", str), given(body, "variables", dict), ""
    refuse_unknown(prompt, {"id", "version", "variables"})
    name, version = prompt.get("id"), prompt.get("version")
    if not isinstance(name, str) or not name:
        raise BadInput("prompt.id: expected the name of a prompt", param="prompt.id")
    if version is not None and (type(version) not in (str, int) or version == ""):
        raise BadInput(f"prompt.version: expected a number or a label, found {version!r:.60}", param="prompt.version")
    if body.get("variables") is not None:
        raise BadInput("variables beside prompt: leave them out, write them into it", param="variables")
    named = given(body, "model", str) or ""
    asked = name if version is None else f"{name}@{version}"
    return asked, _variables(prompt.get("variables")), "" if named == name else named


def _variables(variables: Any) -> dict[str, Any] | None:
    if variables is not None and not isinstance(variables, dict):
        found = type(variables).__name__
        raise BadInput(f"prompt.variables: expected an object, found {found}", param="prompt.variables")
    return None if variables is None else {name: _value(name, value) for name, value in variables.items()}


def _value(name: str, value: Any) -> Any:
    """A variable's value; OpenAI's may be parts of a message, of which a text is one."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "input_text" and value.keys() == {"type", "text"}:
        return value["text"]
    if kind in _INPUTS:
        raise BadInput(f"variable {name!r}: a {kind} is no value: send it in `input`", param=f"variables.{name}")
    return value


# -------------------------------------------------------------------------------- parameters


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the words of a chat completion."""
    found = {name: body[name] for name in _AS_THEY_ARE if body.get(name) is not None}
    for convert in (_limit, _text, _reasoning, _tools, _tool_choice, _include):
        found |= convert(body)
    if body.get("truncation") not in (None, "disabled"):
        raise BadInput("truncation: only `disabled` is supported: shorten `input` yourself", param="truncation")
    if "top_logprobs" in found:
        found["logprobs"] = True
    return found


def _limit(body: Mapping[str, Any]) -> dict[str, Any]:
    most = given(body, "max_output_tokens", int)
    return {} if most is None else {"max_completion_tokens": most}


def _text(body: Mapping[str, Any]) -> dict[str, Any]:
    text = given(body, "text", dict) or {}
    refuse_unknown(text, {"format", "verbosity"})
    found = {"verbosity": text["verbosity"]} if text.get("verbosity") is not None else {}
    form = text.get("format")
    if form is None:
        return found
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        return {**found, "response_format": {"type": kind, kind: {k: v for k, v in form.items() if k != "type"}}}
    if kind not in ("text", "json_object"):
        reason = f"text.format: expected text, json_object or json_schema, found {kind!r:.60}"
        raise BadInput(reason, param="text.format")
    return {**found, "response_format": {"type": kind}}


def _reasoning(body: Mapping[str, Any]) -> dict[str, Any]:
    effort = (given(body, "reasoning", dict) or {}).get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = given(body, "tools", list) or []
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            reason = f"tools[{index}]: tools of type {kind!r:.60} are not supported: only functions are"
            raise BadInput(reason, param=f"tools[{index}].type")
    functions = [{key: tool[key] for key in _FUNCTION if tool.get(key) is not None} for tool in tools]
    return {"tools": [{"type": "function", "function": function} for function in functions]} if functions else {}


def _tool_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    choice = body.get("tool_choice")
    if choice is None or choice in ("auto", "none", "required"):
        is_told = choice is not None and (choice != "auto" or body.get("tools"))
        return {"tool_choice": choice} if is_told else {}
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"tool_choice": {"type": "function", "function": {"name": choice["name"]}}}
    reason = "tool_choice: expected auto, none, required or {type: function, name: …}"
    raise BadInput(reason, param="tool_choice")


def _include(body: Mapping[str, Any]) -> dict[str, Any]:
    included = given(body, "include", list) or []
    for name in included:
        if name not in _INCLUDED:
            raise BadInput(f"include: {name!r:.60} is not supported; there is {_LOGPROBS}", param="include")
    return {"logprobs": True} if _LOGPROBS in included else {}


_FUNCTION = ("name", "description", "parameters", "strict")
