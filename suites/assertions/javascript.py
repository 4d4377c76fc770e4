"""`javascript`, and `transform`: scripts of authors, run by V8 with no host, in a process apart (extra `javascript`)."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from prompts.messages import nothing
from suites.assertions.children import CHILDREN, ScriptDied, ScriptTimedOut
from suites.assertions.extras import need
from suites.assertions.scripts import context_of, outcome_of, output_of, time_limit
from suites.assertions.spec import (
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    Scene,
    SceneAssertion,
    refuse,
    shorten,
)
from suites.assertions.text import as_text

DEFAULT_S = 1.0
MOST_S = 10.0
MAX_CODE_CHARACTERS = 1_000_000
_GRACE_S = 2.0  # V8 is asked to stop first; its process is killed where it does not
_COMMAND = ("javascript_child.py",)
_QUOTED = re.compile(r"//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`", re.DOTALL)
_HOST = re.compile(
    r"(?<![\w$.])(?:(?P<call>require|fetch)\s*\(|(?P<object>process)\s*\.|(?P<word>import)\s*(?:[({*'\w]|$)|new\s+(?P<new>XMLHttpRequest|WebSocket)\b)",
    re.MULTILINE,
)
_EXPORTS = re.compile(r"\bmodule\.exports\b|(?<![\w$.])exports\.\w|^\s*export\s", re.MULTILINE)
_NO_HOST = "scripts have no modules, no files and no network"

# ------------------------------------------------------------------------------------ assertion


async def _javascript(scene: Scene, spec: AssertionSpec) -> Outcome:
    limit_s = time_limit(spec, DEFAULT_S, MOST_S)
    reply = await _run(str(spec.value), output_of(scene), await context_of(scene, spec), limit_s)
    if reply["kind"] == "undefined":
        raise AssertionErrored("the script gave nothing: `return` what it found")
    return outcome_of(reply.get("value"), spec)


async def _run(code: str, output: Any, context: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """The value of a script and its kind; raises AssertionErrored for whatever keeps it from giving one."""
    given = {"code": _as_script(code), "isModule": is_module(code), "output": output, "context": context}
    request = {"op": "run", "input": given, "timeout_s": limit_s}
    try:
        reply = await CHILDREN.ask(_COMMAND, request, limit_s + _GRACE_S)
    except ScriptTimedOut:
        reply = {"error": "timeout"}
    except ScriptDied as error:
        reply = {"error": f"it ended V8: {error}"}
    if "error" in reply:
        raise AssertionErrored(_explained(str(reply["error"]), limit_s))
    return reply


def _explained(error: str, limit_s: float) -> str:
    if error == "timeout":
        return f"the script took more than {limit_s:g} s and was stopped"
    missing = re.search(r"ReferenceError: (?:require|fetch|process|XMLHttpRequest) is not defined", error)
    return f"the script failed: {shorten(error, 300)[1:-1]}" + (f" ({_NO_HOST})" if missing else "")


def is_module(code: str) -> bool:
    """Whether `code` exports its function, as a file of its own does."""
    return _EXPORTS.search(_QUOTED.sub("", code)) is not None


def _as_script(code: str) -> str:
    """ES modules' `export` as CommonJS has it: V8 runs a text here, not a module."""
    code = re.sub(r"(?m)^(\s*)export\s+default\s+", r"\1module.exports.default = ", code)
    code = re.sub(r"(?m)^(\s*)export\s+((?:async\s+)?function\s*\*?\s*(\w+))", r"\1module.exports.\3 = \3; \2", code)
    return re.sub(r"(?m)^(\s*)export\s+(?:const|let|var)\s+(\w+)\s*=", r"\1const \2 = module.exports.\2 =", code)


# ------------------------------------------------------------------------------------ transform


async def transformed(scene: Scene, code: str) -> Scene:
    """The scene with what `code` makes of the answer in its place; each code runs once for an answer.

    Raises AssertionErrored where it fails, or gives nothing.
    """
    if code not in scene.transformed:
        scene.transformed[code] = await _transform(scene, code)
    return replace(scene, output=scene.transformed[code], transformed={})


async def _transform(scene: Scene, code: str) -> Output:
    try:
        reply = await _run(code, output_of(scene), await context_of(scene), DEFAULT_S)
    except AssertionErrored as error:
        raise AssertionErrored(f"transform: {error}") from error
    value = reply.get("value")
    if value is None:
        raise AssertionErrored("transform: it gave nothing: `return` what is to be judged")
    data = value if isinstance(value, dict | list) else None
    return scene.output._replace(text=as_text(value), data=data, message=nothing())


# ------------------------------------------------------------------------------------ check


def check_code(code: str, what: str) -> None:
    """Refuse a script that cannot run: wrong syntax, or a call of what scripts do not have."""
    if len(code) > MAX_CODE_CHARACTERS:
        refuse(f"the script of `{what}` has {len(code):,} characters", f"keep it below {MAX_CODE_CHARACTERS:,}")
    plain = _QUOTED.sub("''", code)
    for host in _HOST.finditer(plain):
        name = next(name for name in host.groupdict().values() if name)
        if not re.search(rf"\b(?:function|const|let|var)\s+{name}\b", plain):
            refuse(f"the script of `{what}` uses `{name}`", f"{_NO_HOST}: put what it needs into the file itself")
    if fault := _syntax_fault(_as_script(code), is_module(code)):
        refuse(f"the script of `{what}` is no JavaScript: {fault}", "mend the script")


@lru_cache(maxsize=1024)
def _syntax_fault(code: str, module: bool) -> str:
    """What V8 says against `code`; "" where it parses."""
    try:
        reply = CHILDREN.ask_now(
            _COMMAND, {"op": "check", "code": code, "isModule": module, "timeout_s": MOST_S}, 2 * MOST_S
        )
    except ScriptTimedOut:
        return f"it is not parsed within {MOST_S:g} s"
    except ScriptDied as error:
        return f"it ended V8: {error}"
    return str(reply.get("error", ""))


def check_transform(spec: AssertionSpec) -> None:
    """Refuse a `transform` that cannot run."""
    if spec.transform is not None:
        need(spec, "javascript", "py_mini_racer", what="transform")
        check_code(spec.transform, "transform")


def _check(spec: AssertionSpec) -> None:
    need(spec, "javascript", "py_mini_racer")
    if not isinstance(spec.value, str) or not spec.value.strip():
        refuse(f"`{spec.type}` needs a script", "write `value: output.includes('x')`, or `value: file://check.js`")
    try:
        time_limit(spec, DEFAULT_S, MOST_S)
    except ValueError as error:
        refuse(f"`{spec.type}`: {error}", f"the default is {DEFAULT_S * 1000:g}")
    check_code(spec.value, spec.type)


FAMILY: Family = {"javascript": SceneAssertion(_javascript, _check, takes=frozenset({"transform", "config"}))}
