"""What OpenAI's replies mean: completions, embeddings and errors, read from bytes. Pure."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from prompts.errors import (
    NO_COMPLETION,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
)
from prompts.messages import Completion
from prompts.redaction import redacted
from service.upstream.whole import usage_of

_MOST_MESSAGE = 500  # characters of an upstream's message that are passed on
_MOST_SEARCHED = 4 * _MOST_MESSAGE  # characters in which secrets are looked for: more than are shown, so none is cut
_MOST_PARAM = 200
_MOST_SHOWN = 80  # characters of an answer that is no completion
_FIXES = {  # of what is wrong for every question to this model; all are keys of its entry in turnout.yaml
    401: " (check the key that api_key_env names)",
    403: " (check what the key that api_key_env names may do)",
    404: " (check base_url and the model's name)",
}
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Place:
    """One address of an upstream, and the key that no error repeats. `called` is what errors name it by, if not its URL."""

    url: str
    path: str
    api_key: str | None = None
    called: str | None = None

    @property
    def shown(self) -> str:
        return self.called or self.url

    def clean(self, message: str) -> str:
        """Without the key, which an upstream may echo, nor what looks like another, and not too long."""
        hidden = message.replace(self.api_key, "…") if self.api_key else message
        return redacted(hidden[:_MOST_SEARCHED])[:_MOST_MESSAGE]

    def no_completion(self, what: str, raw: bytes, kind: str) -> ModelRefused:
        """The refusal for a good status whose body is of no use: what came, and where to look."""
        shown = " ".join(self.clean(raw[:4096].decode("utf-8", "replace")).split())[:_MOST_SHOWN]
        came = f"{kind or 'no content type'} came, beginning {shown!r}" if shown else "the body is empty"
        fix = f"check that base_url is the address before {self.path} of a server that speaks OpenAI's API, often …/v1"
        return ModelRefused(f"{self.shown}: {what}: {came} ({fix})", status=200, code=NO_COMPLETION)

    def error(self, status: int, headers: Mapping[str, str], raw: bytes) -> ModelError:
        """What a status other than 200 means."""
        message, code, param = upstream_error(raw)
        said = f"{self.shown}: HTTP {status}: {self.clean(message)}"
        if status in (429, 503):
            return ModelOverloaded(said, retry_after_s=retry_after_s(headers.get("retry-after")), status=status)
        if status in (408, 504):
            return ModelTimeout(said)
        if status >= 500:
            return ModelUnavailable(said)
        return ModelRefused(said + _FIXES.get(status, ""), status=status, code=code, param=param)

    def completion(self, raw: bytes, headers: Mapping[str, str], latency_s: float) -> Completion:
        """A good reply; raises ModelRefused where it is no chat completion."""
        reply = json_object(raw)
        try:
            return _completion(reply, latency_s)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self.no_completion("not a chat completion", raw, kind_of(headers)) from error


def kind_of(headers: Mapping[str, str]) -> str:
    """The media type of a reply, and how it is packed where it is: nothing asked for that."""
    packed = headers.get("content-encoding", "identity")
    kind = headers.get("content-type", "").partition(";")[0].strip()
    return kind if packed == "identity" else f"{kind} packed as {packed}"


def json_object(raw: bytes) -> Mapping[str, Any]:
    """An object, or an empty one for whatever else came. `NaN` and the like are taken as Python's own json does; half of a
    character, which no UTF-8 has, becomes U+FFFD."""
    try:
        value = _decode(raw)
    except (ValueError, RecursionError):
        value = _leniently(raw)
    return value if isinstance(value, dict) else {}


def _leniently(raw: bytes) -> Any:
    try:
        return _of_whole_characters(json.loads(raw))
    except (ValueError, RecursionError):
        return None


def _of_whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_of_whole_characters(each) for each in value]
    if isinstance(value, dict):
        return {_of_whole_characters(name): _of_whole_characters(each) for name, each in value.items()}
    return value


def _completion(reply: Mapping[str, Any], latency_s: float) -> Completion:
    choices = reply["choices"]
    messages = [dict(choice["message"]) for choice in choices]
    choice, message = choices[0], messages[0]
    content = message.get("content") or ""
    details = reply.get("turnout")
    details = dict(details) if isinstance(details, dict) else {}
    logprobs = _logprobs(choice)
    return Completion(
        text=content if isinstance(content, str) else "".join(part.get("text", "") for part in content),
        finish_reason=str(choice.get("finish_reason") or "stop"),
        usage=usage_of(reply.get("usage")),
        latency_s=latency_s,
        message=message,
        details={**details, "logprobs": logprobs} if logprobs else details,
        choices=tuple(choices),
        extra=_extra(reply),
    )


def _extra(reply: Mapping[str, Any]) -> dict[str, Any]:
    """What applications may count on besides: under which build and tier it was answered, and what its usage is made of."""
    extra = {name: reply[name] for name in ("system_fingerprint", "service_tier") if name in reply}
    usage = reply.get("usage")
    if isinstance(usage, dict):
        parts = {name: value for name, value in usage.items() if name.endswith("_details") and isinstance(value, dict)}
        if parts:
            extra["usage"] = parts
    return extra


def upstream_error(raw: bytes) -> tuple[str, str | None, str | None]:
    """The message, code and param of OpenAI's error body, or the start of whatever else it is."""
    error = json_object(raw).get("error")
    return parts_of(error or raw.decode("utf-8", "replace"))


def parts_of(error: Any) -> tuple[str, str | None, str | None]:
    """The message, code and param of OpenAI's error object, or whatever else stands in its place."""
    if not isinstance(error, dict):
        return str(error), None, None
    code, param = error.get("code"), error.get("param")
    shown = param[:_MOST_PARAM] if isinstance(param, str) and param else None
    return str(error.get("message") or error), str(code) if code is not None else None, shown


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    """The natural log-probability of each token of an answer; none where they were not asked for, or not given."""
    given = choice.get("logprobs")
    tokens = given.get("content") if isinstance(given, dict) else None
    found = [token.get("logprob") for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    return [float(value) for value in found if isinstance(value, int | float)]


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date (RFC 9110 §10.2.3); None where it says neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value)
    return seconds if 0 <= seconds < 86400 * 365 else None


def _until(date: str) -> float:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, TypeError):
        return float("nan")
