"""The only place that knows HTTP statuses: errors as OpenAI's object under `/v1`, as RFC 9457 problems elsewhere."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from prompts import errors as prompt_errors
from prompts.errors import BadFile, BadInput, TurnoutError
from service import errors

STATUS: dict[type[TurnoutError], int] = {
    BadInput: 400,
    errors.TooLarge: 413,
    prompt_errors.ModelUnavailable: 502,
    prompt_errors.ModelRefused: 502,
    prompt_errors.ModelTimeout: 504,
    prompt_errors.ModelOverloaded: 429,
    prompt_errors.ModelError: 502,
    errors.EngineFailed: 502,
    errors.SchemaMismatch: 502,
    errors.NotFound: 404,
    errors.RevisionMismatch: 412,
    errors.IdempotencyMismatch: 409,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.RateLimited: 429,
    errors.NeedsEvidence: 403,
    errors.StorageFailed: 503,
    errors.CannotRun: 503,
    TurnoutError: 500,
}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_OPENAI_CODES = {
    "NotFound": "model_not_found",
    "Unauthenticated": "invalid_api_key",
    "RateLimited": "rate_limit_exceeded",
}
_CALLERS_FAULT = (400, 413, 422)  # what an upstream says of a request that it understood and will not take
_NO_USE = (prompt_errors.ModelRefused, errors.SchemaMismatch, errors.Conflict)  # to ask the same again
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MOST_PATH = 200  # characters of a path that are shown
BODY = "body"
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.{1,80}?)`")
_NO_CHOICE = re.compile(r"Invalid enum value (.{1,80})")
log = structlog.get_logger()


def status_of(error: TurnoutError) -> int:
    """The HTTP status of an error: that of its nearest ancestor in `STATUS`."""
    if isinstance(error, prompt_errors.ModelRefused) and error.status in _CALLERS_FAULT:
        return 400
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body_of(error: TurnoutError, path: str) -> tuple[dict[str, Any], str]:
    """The body and media type of an error for a request to `path`."""
    return shape(path, status_of(error), str(error), _kind(error), getattr(error, "param", None), _more(error))


def _kind(error: TurnoutError) -> str:
    """The error's class, or the upstream's own code where it says what is wrong with the caller's request.

    Frameworks know some of these by name, `context_length_exceeded` above all, and act on them.
    """
    if isinstance(error, errors.RateLimited) and error.is_budget:
        return "InsufficientQuota"
    if isinstance(error, prompt_errors.ModelRefused) and error.status in _CALLERS_FAULT:
        return error.code if error.code and _CODE.fullmatch(error.code) else "ModelRefused"
    return type(error).__name__


def shape(
    path: str, status: int, message: str, kind: str, param: str | None = None, more: dict[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    """An error as OpenAI's object for `/v1`, as a problem for everything else."""
    if path == "/v1" or path.startswith("/v1/"):
        fallback = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": _OPENAI_TYPES.get(status, fallback), "param": param}
        error["code"] = _OPENAI_CODES.get(kind, _code(kind))
        return {"error": error}, "application/json"
    problem = {"type": f"urn:turnout:error:{_code(kind)}", "title": _title(kind), "status": status, "detail": message}
    return problem | ({"param": param} if param else {}) | (more or {}), "application/problem+json"


Answer = tuple[int, dict[str, Any], dict[str, str]]  # a status, a body, headers


def answer_to(error: TurnoutError, path: str) -> Answer:
    """What a request to `path` is answered where it came to `error`."""
    status = status_of(error)
    body, media_type = body_of(error, path)
    headers = {"content-type": media_type}
    if status in (429, 503):
        headers["retry-after"] = str(math.ceil(getattr(error, "retry_after_s", None) or 1))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, _NO_USE) or (isinstance(error, errors.RateLimited) and error.is_budget):
        headers["x-should-retry"] = "false"  # OpenAI's clients ask again after any 409, 429 and 5xx without it
    return status, body, headers


def answer_to_bug(error: Exception, path: str) -> Answer:
    """What is answered where anything else is raised, a fault of ours: logged whole, shown without its content."""
    log.exception("request failed", path=path, exc_info=error)
    body, media_type = shape(path, 500, "an internal error; the log has its cause", "InternalError")
    return 500, body, {"content-type": media_type}


def body_of_any(error: Exception, path: str) -> dict[str, Any]:
    """The body for whatever was raised once the status had been sent."""
    return body_of(error, path)[0] if isinstance(error, TurnoutError) else answer_to_bug(error, path)[1]


def handle_turnout_error(request: Request[Any, Any, Any], error: TurnoutError) -> Response[dict[str, Any]]:
    return _response(answer_to(error, request.url.path))


def _response(answer: Answer) -> Response[dict[str, Any]]:
    status, body, headers = answer
    return Response(body, status_code=status, media_type=headers.pop("content-type"), headers=headers)


def handle_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Litestar's own refusals (no such path, a body that does not validate) in our form."""
    faults = error.extra if isinstance(error.extra, list) else []
    named = [_named(fault, request) for fault in faults if isinstance(fault, dict)]
    message = "; ".join(f"{key}: {reason}" for key, reason in named) or error.detail or "refused"
    param = named[0][0] if named and named[0][0] != BODY else None
    if error.status_code == 413:
        limit = request.app.request_max_body_size
        message = f"the body is larger than {limit:,} bytes: send less, or raise server.max_unpacked_bytes"
    if error.status_code == 404:
        message = f"no such path {request.url.path[:_MOST_PATH]!r}: /schema lists those that are served"
    kind = {404: "NoSuchPath", 405: "MethodNotAllowed", 413: "TooLarge"}.get(error.status_code, "BadInput")
    body, media_type = shape(request.url.path, error.status_code, message, kind, param)
    return Response(body, status_code=error.status_code, media_type=media_type, headers=error.headers)


def _named(fault: dict[str, Any], request: Request[Any, Any, Any]) -> tuple[str, str]:
    """The field that a refusal of Litestar's is about, and the reason; `data` is its name of the whole body."""
    key, reason = str(fault.get("key", BODY)), str(fault.get("message"))
    no_choice = _NO_CHOICE.match(reason)
    if no_choice and (choices := _choices(request, key)):
        return key, f"no such value {no_choice[1]}: expected one of {', '.join(map(repr, choices))}"
    if key != "data":
        return key, reason
    unknown = _UNKNOWN_FIELD.match(reason)
    if unknown:
        return unknown[1], "unknown field: remove it"
    return BODY, "there is none: send a JSON object" if reason == "'data'" else reason


def _choices(request: Request[Any, Any, Any], name: str) -> tuple[Any, ...]:
    """The values that a handler's parameter takes, where its type names them."""
    hint = get_type_hints(request.route_handler.fn).get(name)
    kinds = [hint, *get_args(hint)]  # itself, or what may be left out
    return tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))


def handle_bug(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    return _response(answer_to_bug(error, request.url.path))


def _more(error: TurnoutError) -> dict[str, Any] | None:
    if not isinstance(error, BadFile):
        return None
    return {"faults": [{"path": f.path, "line": f.line, "message": f.message, "fix": f.fix} for f in error.faults]}


def _code(kind: str) -> str:
    return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(kind))


def _title(kind: str) -> str:
    return _code(kind).replace("_", " ").capitalize()
