"""Packages that only some types need: their absence is a fault of the suite, told before any model is called."""

from __future__ import annotations

from importlib.util import find_spec

from suites.assertions.spec import AssertionSpec, refuse

_there: set[str] = set()  # looked for once: a suite asks for each of its assertions, and a look walks the whole path


def _is_there(module: str) -> bool:
    """Whether `module` is installed; one that is missing may come while we run, and is looked for anew."""
    if module not in _there and find_spec(module) is not None:
        _there.add(module)
    return module in _there


def need(spec: AssertionSpec, extra: str, *modules: str, what: str = "") -> None:
    """Refuse `spec` where one of `modules` is not installed. Nothing is imported: only looked for.

    `what` names the part of the spec that needs them, where it is not the type.
    """
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        refuse(f"`{what or spec.type}` needs the extra `{extra}`", f"pip install 'turnout[{extra}]'")
