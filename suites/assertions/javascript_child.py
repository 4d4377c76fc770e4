"""Runs JavaScript for `suites.assertions.javascript`, as a child process: started by its path, imports nothing of ours.

Each evaluation has a V8 isolate of its own, with nothing of the host in it. V8 aborts its process where it finds no
memory: that is why it is not run in ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import sys
from functools import lru_cache
from typing import Any

IDLE_S = 120.0
HEAP_BYTES = 64 * 1024 * 1024
DATA_BYTES = 768 * 1024 * 1024  # of the process: what V8 keeps outside of its heap counts here alone
_RUN = """
(function () {
  "use strict";
  delete globalThis.WebAssembly;  // its memory lies outside of the heap
  const compile = Function, parse = JSON.parse, write = JSON.stringify;
  const parses = (parameters, body) => { try { compile(...parameters, body); return ""; } catch (e) { return String(e); } };
  const names = ["output", "context"];
  const returned = (code) => "return (\\n" + code.replace(/[;\\s]+$/, "") + "\\n)";
  const forms = {
    expression: (code) => parses(names, returned(code)),
    program: (code) => parses(names, "class C { static {\\n" + code + "\\n} }"),
    body: (code) => parses(names, code),
    module: (code) => parses(["module", "exports"], code),
  };
  const formOf = (code, isModule) => {
    if (isModule) return ["module", forms.module(code)];
    for (const form of ["expression", "program"]) if (!forms[form](code)) return [form, ""];
    return ["body", forms.body(code)];
  };
  const runModule = (code) => {
    const module = { exports: {} };
    compile("module", "exports", code)(module, module.exports);
    const made = module.exports;
    return typeof made === "function" ? made : (made.default ?? made.get_assert ?? Object.values(made)[0]);
  };
  const valueOf = (form, code, output, context) => {
    if (form === "module") return runModule(code);
    if (form === "expression") return compile(...names, returned(code))(output, context);
    if (form === "body") return compile(...names, code)(output, context);
    return compile(...names, "code", "return eval(code)")(output, context, code);
  };
  const answer = (value) => write({ kind: value === null ? "null" : typeof value, value }) ?? write({ kind: typeof value });
  globalThis.__check = (code, isModule) => formOf(code, isModule)[1];
  globalThis.__run = (input) => {
    const { code, isModule, output, context } = parse(input);
    const [form, fault] = formOf(code, isModule);
    if (fault) throw fault;
    let value = valueOf(form, code, output, context);
    if (typeof value === "function") value = value(output, context);
    return value instanceof Promise || typeof value?.then === "function" ? Promise.resolve(value).then(answer) : answer(value);
  };
})();
"""


def _serve() -> None:
    _write({"ready": True})
    for line in iter(_line, b""):
        reply = _answer(json.loads(line))
        _write(reply)
        if reply.get("last"):
            return


def _line() -> bytes:
    """The next request; nothing where the parent is gone or has asked nothing for long."""
    ready, _, _ = select.select([sys.stdin.buffer], [], [], IDLE_S)
    return sys.stdin.buffer.readline() if ready else b""


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the script gave, or what was wrong with it; `last` where V8 is not to be trusted with another."""
    from py_mini_racer import JSEvalException, JSOOMException, JSParseException, JSPromiseError, JSTimeoutException

    try:
        return _evaluate(request)
    except JSOOMException:
        return {"error": f"it took more than {HEAP_BYTES >> 20} MiB", "last": True}
    except (JSTimeoutException, TimeoutError):
        return {"error": "timeout", "last": True}
    except (JSEvalException, JSParseException, JSPromiseError) as error:
        return {"error": _first_line(str(error))}
    except (TypeError, ValueError) as error:
        return {"error": f"its answer cannot be read: {error}", "last": True}


def _evaluate(request: dict[str, Any]) -> dict[str, Any]:
    from py_mini_racer import JSPromise

    if request["op"] == "check":
        call = f"__check({json.dumps(request['code'])}, {json.dumps(request['isModule'])})"
        fault = _checker().eval(call, timeout_sec=request["timeout_s"])
        return {"error": str(fault)} if fault else {}
    racer = _isolate()
    try:
        call = f"__run({json.dumps(json.dumps(request['input']))})"
        found = racer.eval(call, timeout_sec=request["timeout_s"])
        if isinstance(found, JSPromise):
            found = found.get(timeout=request["timeout_s"])
        return dict(json.loads(str(found)))
    finally:
        racer.close()


def _isolate() -> Any:
    from py_mini_racer import MiniRacer

    racer = MiniRacer()
    racer.set_hard_memory_limit(HEAP_BYTES)
    racer.eval(_RUN)
    return racer


@lru_cache(maxsize=1)
def _checker() -> Any:
    """One isolate for all checks: they parse scripts and run none."""
    return _isolate()


def _first_line(message: str) -> str:
    """What V8 says, without the place in our own code and the source that it repeats."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return _PLACE.sub("", lines[0]) if lines else "an error without a message"


_PLACE = re.compile(r"^(?:JavaScript rejected promise with reason: |(?:<anonymous>|undefined):\d+: )+")


def _write(reply: dict[str, Any]) -> None:
    os.write(_OUT, json.dumps(reply).encode() + b"\n")


def _limit() -> None:
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_DATA, DATA_BYTES)):
        with contextlib.suppress(OSError, ValueError):  # a system may know no such limit, or have set a lower one
            resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    _OUT = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not be read as an answer
    _limit()
    _serve()
