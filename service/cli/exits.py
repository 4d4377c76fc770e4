"""Exit codes: the only place that knows them."""

from __future__ import annotations

from collections.abc import Iterable

from prompts import errors as prompt_errors
from prompts.errors import TurnoutError
from service import errors

PASSED, FAILED, BAD_USAGE, INCONCLUSIVE, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 3, 4, 130
OF_VERDICT = {"pass": PASSED, "fail": FAILED, "inconclusive": INCONCLUSIVE, "could_not_run": COULD_NOT_RUN}
OF_ERROR: dict[type[TurnoutError], int] = {
    prompt_errors.BadInput: BAD_USAGE,
    errors.NotFound: BAD_USAGE,
    errors.Conflict: BAD_USAGE,
    errors.Forbidden: BAD_USAGE,
    errors.NeedsEvidence: BAD_USAGE,
    TurnoutError: COULD_NOT_RUN,
}
_FIRST = (BAD_USAGE, COULD_NOT_RUN, FAILED, INCONCLUSIVE, PASSED)


def of_error(error: TurnoutError) -> int:
    """The exit code of an error: that of its nearest ancestor in `OF_ERROR`."""
    return next(OF_ERROR[kind] for kind in type(error).__mro__ if kind in OF_ERROR)


def of_several(codes: Iterable[int]) -> int:
    """Of several: the first of 2, 4, 1, 3, 0."""
    found = set(codes)
    return next((code for code in _FIRST if code in found), PASSED)
