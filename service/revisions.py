"""Conditional writes: the revision that a caller believes in, against the one that is."""

from __future__ import annotations

from service.errors import RevisionMismatch

ANY_REVISION = -1  # `If-Match: *`: whatever it is, as long as there is one
NO_REVISION = -2  # an ETag of something else: matches nothing


def check_revision(what: str, expected: int | None, current: int | None) -> None:
    """Raise RevisionMismatch unless `expected` (0: none yet; None: unconditional) is what `what` has now."""
    if expected is None or expected == (current or 0) or (expected == ANY_REVISION and current is not None):
        return
    found = f"is at revision {current}" if current is not None else "does not exist"
    raise RevisionMismatch(f"{what} {found}: read it again")
