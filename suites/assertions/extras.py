"""Packages that only some types need: their absence is a fault of the suite, told before any model is called."""

from __future__ import annotations

from importlib.util import find_spec

from suites.assertions.spec import AssertionSpec, refuse


def need(spec: AssertionSpec, extra: str, *modules: str, what: str = "") -> None:
    """Refuse `spec` where one of `modules` is not installed. Nothing is imported: only looked for.

    `what` names the part of the spec that needs them, where it is not the type.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        refuse(f"`{what or spec.type}` needs the extra `{extra}`", f"pip install 'turnout[{extra}]'")
