"""Parameters of a chat completion, as `modelParameters` holds them: one table for `check`, `push` and editors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.yaml_source import suggest

# GitHub's spelling of what OpenAI's protocol calls otherwise
OF_GITHUB = {
    "maxTokens": "max_tokens",
    "maxCompletionTokens": "max_completion_tokens",
    "topP": "top_p",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter may be: in words for authors, as a JSON Schema for editors. Null leaves it to the model."""

    expected: str
    schema: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True)
class ParameterFault:
    name: str
    message: str
    fix: str


def _number(low: float, high: float, description: str = "") -> Parameter:
    return Parameter(f"a number from {low} to {high}", {"type": "number", "minimum": low, "maximum": high}, description)


def _count(low: int, high: int | None = None, description: str = "") -> Parameter:
    schema: dict[str, Any] = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
    expected = f"a whole number, {low} or more" if high is None else f"a whole number from {low} to {high}"
    return Parameter(expected, schema, description)


_TEXT = Parameter("text", {"type": "string"})
_BOOLEAN = Parameter("true or false", {"type": "boolean"})
_MAPPING = Parameter("keys and values", {"type": "object"})
_TEXTS = {"type": "array", "items": {"type": "string"}}

PARAMETERS: Mapping[str, Parameter] = {
    "temperature": _number(0, 2, "0 answers the same each time, as far as the model can"),
    "top_p": _number(0, 1),
    "max_tokens": _count(1, description="the longest answer, in tokens"),
    "max_completion_tokens": _count(1, description="the longest answer with what the model thinks, in tokens"),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "seed": Parameter("a whole number", {"type": "integer"}),
    "stop": Parameter("text or a list of texts", {"anyOf": [{"type": "string"}, _TEXTS]}, "where an answer ends"),
    "n": Parameter("1, for one answer is asked for", {"enum": [1]}, "a suite asks several times with `repeat`"),
    "logit_bias": Parameter("tokens and numbers from -100 to 100", {"type": "object", "additionalProperties":
                            {"type": "number", "minimum": -100, "maximum": 100}}),
    "structured_outputs": Parameter("one of choice, regex, json, grammar with its value", {"type": "object"},
                                    "the form of an answer, for the embedded engine and vLLM: {choice: [yes, no]}"),
    "logprobs": _BOOLEAN,
    "top_logprobs": _count(0, 20),
    "parallel_tool_calls": _BOOLEAN,
    "store": _BOOLEAN,
    "reasoning_effort": _TEXT,
    "verbosity": _TEXT,
    "service_tier": _TEXT,
    "user": _TEXT,
    "safety_identifier": _TEXT,
    "prompt_cache_key": _TEXT,
    "prompt_cache_retention": _TEXT,
    "modalities": Parameter("a list of texts", _TEXTS),
    "metadata": _MAPPING,
    "prediction": _MAPPING,
    "audio": _MAPPING,
    "web_search_options": _MAPPING,
}  # fmt: skip
# of vLLM, llama.cpp and others: passed on as they are
_OF_SERVERS = frozenset([
    "top_k", "min_p", "typical_p", "top_a", "tfs_z", "repetition_penalty", "repeat_penalty", "length_penalty",
    "min_tokens", "best_of", "use_beam_search", "early_stopping", "ignore_eos", "stop_token_ids",
    "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
    "truncate_prompt_tokens", "prompt_logprobs", "add_generation_prompt", "continue_final_message",
    "add_special_tokens", "chat_template", "chat_template_kwargs", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "guided_decoding_backend", "guided_whitespace_pattern",
    "grammar", "json_schema", "mirostat", "mirostat_tau", "mirostat_eta", "cache_prompt",
    "num_ctx", "keep_alive", "options", "thinking", "enable_thinking", "reasoning", "provider", "priority",
    "logits_processors", "safe_prompt", "random_seed", "extra_body",
])  # fmt: skip
ELSEWHERE: Mapping[str, str] = {  # what has a key of its own, or is not a prompt's to say; and what to do
    "model": "write `model:` beside modelParameters",
    "messages": "write `messages:` beside modelParameters",
    "tools": "write `tools:` beside modelParameters",
    "functions": "write `tools:` beside modelParameters",
    "tool_choice": "write `toolChoice:` beside modelParameters",
    "function_call": "write `toolChoice:` beside modelParameters",
    "response_format": "write `responseFormat:` beside modelParameters, with `jsonSchema:` for a schema",
    "variables": "write `variables:` beside modelParameters",
    "stream": "remove it: each request says whether it is answered as a stream",
    "stream_options": "remove it: each request says whether it is answered as a stream",
}


DEFAULT_ANSWER_TOKENS = 512  # of an answer from the embedded engine where nobody says more or less


def answer_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The longest answer that these parameters ask for: `max_completion_tokens` before `max_tokens`; None where neither is set."""
    given = (parameters.get(name) for name in ("max_completion_tokens", "max_tokens"))
    return next((value for value in given if isinstance(value, int) and value > 0), None)


def parameter_faults(parameters: Mapping[str, Any]) -> Iterator[ParameterFault]:
    """Parameters that no model takes so, by the names that the file gives them."""
    for name, value in parameters.items():
        own = OF_GITHUB.get(name, name)
        known = PARAMETERS.get(own)
        if name in ELSEWHERE:
            yield ParameterFault(name, f"{name} is no parameter of a prompt", ELSEWHERE[name])
        elif own != name and own in parameters:
            yield ParameterFault(name, f"{name} and {own} are the same parameter", "remove one of the two")
        elif known is not None and value is not None and not _holds(known.schema, value):
            yield ParameterFault(name, f"{name}: {_shown(value)} is not {known.expected}", f"write {known.expected}")


def unknown_parameters(parameters: Mapping[str, Any]) -> Iterator[ParameterFault]:
    """Names that neither OpenAI's protocol nor a server that we know of has: likely misspelt."""
    known = {*PARAMETERS, *_OF_SERVERS, *OF_GITHUB}
    for name in sorted(parameters.keys() - known - ELSEWHERE.keys()):
        meant = suggest(name, known)
        fix = meant if meant.startswith("did you mean") else "mend the name; what the model's server knows may stay"
        yield ParameterFault(name, f"{name} is no parameter of OpenAI's protocol", fix)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


_KINDS: Mapping[str, tuple[type, ...]] = {"number": (int, float), "integer": (int,), "string": (str,),
                                          "object": (dict,), "array": (list, tuple), "boolean": (bool,)}  # fmt: skip


def _holds(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether `value` satisfies a schema of the table: the few words in use there, without the library's 100 ms."""
    if "anyOf" in schema:
        return any(_holds(one, value) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"] and not isinstance(value, bool)
    kind = schema["type"]
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind in ("number", "integer"):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    inner = schema.get("items") or schema.get("additionalProperties")
    return inner is None or all(_holds(inner, each) for each in _within(value))


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
