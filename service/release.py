"""Which release of Turnout this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The installed package's version; "0.0.0" where Turnout runs without being installed."""
    try:
        return version("turnout")
    except PackageNotFoundError:
        return "0.0.0"
