"""`python`: a function in a file of a folder that an admin has listed, run in a process apart."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from suites.assertions.children import CHILDREN, ScriptDied, ScriptTimedOut
from suites.assertions.folders import REFERENCE, SWITCH_ON, ScriptFolders
from suites.assertions.scripts import context_of, outcome_of, output_of, time_limit
from suites.assertions.spec import (
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Scene,
    SceneAssertion,
    refuse,
    shorten,
)

PYTHON = "python"
DEFAULT_S = 10.0
MOST_S = 60.0
DEFAULT_FUNCTION = "get_assert"
_WORDS = {"true": True, "false": False}


async def _python(scene: Scene, spec: AssertionSpec) -> Outcome:
    file, function = _found(spec, scene.folders or ScriptFolders(Path()))
    request = {"function": function, "output": output_of(scene), "context": await context_of(scene, spec)}
    return outcome_of(_as_data(await _run(file, request, time_limit(spec, DEFAULT_S, MOST_S))), spec)


def _found(spec: AssertionSpec, folders: ScriptFolders) -> tuple[Path, str]:
    reference = REFERENCE.fullmatch(str(spec.value))
    if reference is None:
        raise AssertionErrored(f"{shorten(spec.value)} names no Python file")
    try:
        return folders.find(reference["path"]), reference["function"] or DEFAULT_FUNCTION
    except ValueError as error:
        raise AssertionErrored(str(error)) from error


async def _run(file: Path, request: dict[str, Any], limit_s: float) -> Any:
    try:
        reply = await CHILDREN.ask(("python_child.py", str(file), _edition(file)), request, limit_s)
    except ScriptTimedOut as error:
        raise AssertionErrored(f"{file.name} took more than {limit_s:g} s and was stopped") from error
    except ScriptDied as error:
        raise AssertionErrored(f"{file.name} ended Python: {error}") from error
    if "error" in reply:
        raise AssertionErrored(f"{file.name} failed: {reply['error']}")
    return reply["value"]


def _edition(file: Path) -> str:
    """What tells a file from what it was: one that was changed is read anew, by another child."""
    return str(file.stat().st_mtime_ns)


def _as_data(value: Any) -> Any:
    """promptfoo also takes the words true and false."""
    return _WORDS.get(value.lower(), value) if isinstance(value, str) else value


def check_folders(spec: AssertionSpec, folders: ScriptFolders) -> None:
    """Refuse a Python file that could not be run here; specs of other types are let through."""
    reference = REFERENCE.fullmatch(str(spec.value)) if spec.type.removeprefix("not-") == PYTHON else None
    if reference is None:
        return
    try:
        folders.find(reference["path"])
    except ValueError as error:
        message, _, fix = str(error).partition(": ")
        refuse(f"`{spec.type}`: {message}", fix)


def _check(spec: AssertionSpec) -> None:
    fix = f"write `value: file://checks/tone.py:{DEFAULT_FUNCTION}`; {SWITCH_ON}"
    if not isinstance(spec.value, str) or not REFERENCE.fullmatch(spec.value):
        refuse(f"`{spec.type}` takes a file, Python within a suite is never run", fix)
    path = PurePosixPath(spec.value)
    if path.is_absolute() or ".." in path.parts:
        refuse(f"`{spec.type}`: {shorten(spec.value)} is no path within the project", fix)
    try:
        time_limit(spec, DEFAULT_S, MOST_S)
    except ValueError as error:
        refuse(f"`{spec.type}`: {error}", f"the default is {DEFAULT_S * 1000:g}")


FAMILY: Family = {PYTHON: SceneAssertion(_python, _check, takes=frozenset({"transform", "config"}))}
