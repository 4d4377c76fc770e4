"""What the engine's faults are in HTTP: statuses, and bodies of OpenAI's form. No torch here."""

from __future__ import annotations

import logging
from typing import Any

from litestar.exceptions import HTTPException

from prompts.errors import BadInput, TurnoutError
from service.engine.asks import ContextOverflow, DeadlinePassed, OutOfMemory, QueueFull, UnknownAdapter
from service.engine.leases import Closing
from service.engine.replies import make_error

_LOG = logging.getLogger(__name__)


class HungUp(TurnoutError):
    """The client closed its connection before the answer was there."""


_KNOWN: tuple[tuple[type[Exception], int, str | None], ...] = (
    (UnknownAdapter, 404, "model_not_found"),
    (QueueFull, 429, "queue_full"),
    (OutOfMemory, 503, "out_of_memory"),
    (DeadlinePassed, 504, "deadline"),
    (ContextOverflow, 400, "context_length_exceeded"),  # OpenAI's word, which frameworks look for
    (BadInput, 400, None),
    (Closing, 503, "closing"),
    (HungUp, 499, None),
)


def body_of(error: BaseException) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for `error`; one that is not known is a fault of ours, and logged."""
    status, code = _status(error)
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = getattr(error, "detail", "") or str(error) or type(error).__name__
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, QueueFull | OutOfMemory) else {}
    return status, make_error(message, kind=kind, code=code, param=getattr(error, "param", None)), headers


def _status(error: BaseException) -> tuple[int, str | None]:
    if isinstance(error, HTTPException):
        return error.status_code, "invalid_api_key" if error.status_code == 401 else None
    return next(((status, code) for kind, status, code in _KNOWN if isinstance(error, kind)), (500, None))
