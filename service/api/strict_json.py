"""JSON bodies are held to what files are held to: UTF-8, no key twice, no depth or number of values without end.

`parse_json` reads one fast: msgspec says what it means, but keeps the last of two equal keys in silence. Every key stands
before a colon, so a body with no more colons than the keys that were kept holds none twice; one that has more (a text
with a colon in it) is read once more, slowly, by a parser that sees every key.

What is kept holds no NUL, either; a request whose body is kept nowhere may hold one, as any other character.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec
from litestar import Request

from prompts.errors import BadInput
from prompts.strict_json import HALF, Ambiguity, hooks
from service.computing import compute

FORM = "form"
MAX_JSON_DEPTH = 100
MAX_JSON_VALUES = 250_000
_QUICK_BYTES = 64 * 1024  # more is looked at in a thread, while others are served
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # the only way in which JSON can hold one
# possessive: a text of many escapes would else be remembered piece by piece, ten times its bytes
_SIGNS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]', re.DOTALL)


async def refuse_ambiguous_json(request: Request[Any, Any, Any]) -> None:
    """Before every request: raise BadInput where its body is no JSON, or could mean two things to two readers.

    Whatever its Content-Type says: handlers read JSON under any name. Those that read a form themselves say so in their `opt`.
    """
    if request.method in ("GET", "HEAD", "DELETE") or request.scope["route_handler"].opt.get("body") == FORM:
        return
    body = await request.body()
    if len(body) > _QUICK_BYTES:
        await compute(check_json, body)
    elif body:
        check_json(body)
    found = rb"\u0000" in body and _NUL.search(body)
    if found:
        raise BadInput(
            f"the body holds a NUL (\\u0000) at byte {found.end() - 6}, which databases cannot keep: remove it"
        )


async def parsed_json(body: bytes) -> Any:
    """`parse_json`, in a thread where that takes long."""
    return parse_json(body) if len(body) <= _QUICK_BYTES else await compute(parse_json, body)


def parse_json(body: bytes) -> Any:
    """What `body` means; raises BadInput as `check_json` does."""
    _refuse_extent(body)
    try:
        found = _fast.decode(body)
    except (ValueError, RecursionError):  # it is no JSON, or a number that is beyond msgspec
        return check_json(body)
    return found if body.count(b":") == _count_keys(found) else check_json(body)


def _count_keys(value: Any) -> int:
    """The keys of all objects within plain data."""
    count = 0
    if type(value) is dict:
        count = len(value)
        value = value.values()
    elif type(value) is not list:
        return 0
    for each in value:
        if type(each) is dict or type(each) is list:
            count += _count_keys(each)
    return count


def check_json(body: bytes) -> Any:
    """What `body` means; raises BadInput, saying where and why, where it is not one unambiguous JSON document."""
    _refuse_extent(body)
    try:
        found = _decoder.decode(body.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"the body is not UTF-8: byte {error.start}; send JSON as UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise BadInput(f"the body is not JSON: {error.msg} at {place}") from error
    except ValueError as error:  # more digits than Python reads
        raise BadInput("the body holds a number of too many digits: send it as text") from error
    if rb"\u" in body and HALF.search(json.dumps(found, ensure_ascii=False)):
        raise BadInput("the body holds half a character (\\ud800 to \\udfff alone): send whole ones")
    return found


def _refuse_extent(body: bytes) -> None:
    """Before anything is parsed: parsers recurse, and values take many times their bytes."""
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH and body.count(b",") < MAX_JSON_VALUES:
        return
    depth, values = 0, 1
    for match in _SIGNS.finditer(body):
        sign = match[0]
        depth += (sign in b"[{") - (sign in b"]}")
        values += sign in b",[{"
        if depth > MAX_JSON_DEPTH:
            raise BadInput(f"the body nests deeper than {MAX_JSON_DEPTH} levels at byte {match.start()}: flatten it")
        if values > MAX_JSON_VALUES:
            fix = "send them in several requests, or a suite's cases as lines of `tests_jsonl`"
            raise BadInput(f"the body has more than {MAX_JSON_VALUES:,} values: {fix}")


def _refuse(what: Ambiguity, value: str) -> NoReturn:
    if what == "repeated":
        key = value[:80]
        raise BadInput(f"the body gives {key!r} twice in one object: remove one", param=key)
    if what == "constant":
        raise BadInput(f"the body holds {value}, which is not JSON: send a number, or text")
    raise BadInput(f"the body holds {value[:40]}, a number out of range: send it as text")


_decoder = json.JSONDecoder(**hooks(_refuse))
_fast: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
