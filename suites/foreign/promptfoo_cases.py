"""promptfoo's tests as cases of one prompt: variables expanded and filled, what cannot be asked set aside with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from prompts.errors import BadFile, BadInput
from prompts.formats.imported import shortened
from prompts.formats.nunjucks import resolved
from prompts.formats.variable_schemas import like
from suites.assertions.judged import NEED_CONTEXT
from suites.case import Case
from suites.case_record import canonical
from suites.foreign.promptfoo_asserts import ANY_ANSWER, Around, NotHere, assertion_of, kinds_of, script
from suites.foreign.promptfoo_tests import Files
from suites.foreign.providers import Aliases
from suites.matrix import MOST_COMBINATIONS, combinations, size_of
from suites.values import FILE

_UNREAD = {  # keys of a test that change what is asked or how it is judged
    "provider": "ask it of all providers, or write a configuration of its own",
    "providerOutput": "an answer comes from a model here",
    "assertScoringFunction": "a `threshold` bounds the weighted score",
}
_UNREAD_OPTIONS = {
    "prefix": "write it into the prompt: what is tested is what is served",
    "suffix": "write it into the prompt: what is tested is what is served",
    "transformVars": "write the values that it makes",
    "storeOutputAs": "no case sees the answer to another",
    "postprocess": "call it `transform`",
}
_CODE = (".js", ".cjs", ".mjs", ".ts", ".mts", ".cts", ".py", ".rb")
_BINARY = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".mp3", ".wav", ".mp4", ".webm", ".pdf", ".ogg", ".flac")
_ASKED = ("vars", "facts", "assert", "options")  # what makes two cases the same
Tell = Callable[[int, NotHere], None]


@dataclass(frozen=True, slots=True)
class Group:
    """What the cases of one suite share.

    `names` are the variables of the prompt's template, `conditions` those that it asks about. `models` are the aliases
    that are asked, `transform` is the providers' own. With `keeps_all` variables that the prompt does not use are facts.
    """

    names: frozenset[str]
    conditions: frozenset[str]
    models: tuple[str, ...]
    transform: str | None
    keeps_all: bool
    is_compared: bool


@dataclass(frozen=True, slots=True)
class Made:
    """Cases as the rows of a suite file, for each test the position of its case, and the schemas of the prompt's variables."""

    rows: tuple[dict[str, Any], ...]
    order: tuple[int, ...]
    variables: dict[str, dict[str, Any]]


def cases_of(tests: list[tuple[int, dict[str, Any]]], group: Group, files: Files, aliases: Aliases, tell: Tell) -> Made:
    """The cases that numbered tests come to. What cannot be carried over is told with its test, and its case set aside.

    Tests that ask and expect the same are one case.
    """
    found: dict[bytes, int] = {}
    rows: list[dict[str, Any]] = []
    order: list[int] = []
    for number, test in tests:
        for row in _rows(test, group, files, aliases, lambda why, number=number: tell(number, why)):  # type: ignore[misc]
            key = canonical({name: row.get(name) for name in _ASKED})
            position = found.setdefault(key, len(rows))
            rows += [row] if position == len(rows) else []
            order.append(position)
    return Made(tuple(rows), tuple(order), _schemas(rows, group))


def deduplicated(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows without those that ask and expect the same as one before."""
    seen: set[bytes] = set()
    for row in rows:
        key = canonical({name: row.get(name) for name in _ASKED})
        if key not in seen:
            seen.add(key)
            yield row


def _rows(
    test: Mapping[str, Any], group: Group, files: Files, aliases: Aliases, tell: Callable[[NotHere], None]
) -> Iterator[dict[str, Any]]:
    """The cases of one test: one for each combination of its lists."""
    try:
        axes = _axes(_variables(test, files), test, files)
        if size_of(axes) > MOST_COMBINATIONS:
            raise NotHere(
                f"matrix of {size_of(axes):,} cases", f"shorten its lists: the most are {MOST_COMBINATIONS:,}"
            )
    except NotHere as why:
        tell(why)
        yield _set_aside({}, test, why)
        return
    around = Around({}, test.get("options") or {}, files, aliases, group.models, group.is_compared)
    for values in combinations(axes):
        try:
            filled = {name: _as_printed(name, value, group) for name, value in resolved(values).items()}
            row = _row(test, group, replace(around, values=filled), tell)
            if row["assert"] == [ANY_ANSWER]:
                tell(NotHere("test without an assertion that could fail", "any answer passes it, as in promptfoo"))
            yield row
        except (NotHere, BadInput) as error:
            reason = error if isinstance(error, NotHere) else NotHere("template in a variable", str(error))
            tell(reason)
            yield _set_aside(_apart(values, group)[0], test, reason)


def _row(test: Mapping[str, Any], group: Group, around: Around, tell: Callable[[NotHere], None]) -> dict[str, Any]:
    """One case; raises NotHere where something of it cannot be had, having told what else of its assertions cannot."""
    _refuse_unread(test)
    asserts = _asserts(test["assert"], around, tell) or [ANY_ANSWER]
    values, facts = _apart(around.values, group)
    row = {**_about(test), "vars": values, "assert": asserts}
    if facts:
        row["facts"] = facts
    if test.get("threshold") is not None:
        row["threshold"] = test["threshold"]
    if transform := _transform(test, group, around.files):
        row["options"] = {"transform": transform}
    if kinds_of(test["assert"]) & NEED_CONTEXT and not around.values.get("context"):
        raise NotHere("assertion on a context", "give the test the variable `context`")
    try:
        Case.model_validate(row)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        raise NotHere(f"test with {'.'.join(map(str, first['loc']))}", first["msg"][:160]) from error
    return row


def _asserts(given: Sequence[Any], around: Around, tell: Callable[[NotHere], None]) -> list[dict[str, Any]]:
    made, refused = [], []
    for one in given:
        try:
            made.append(assertion_of(one, around))
        except NotHere as why:
            refused.append(why)
    for other in refused[1:]:
        tell(other)
    if refused:
        raise refused[0]
    return made


def _apart(values: Mapping[str, Any], group: Group) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables that the prompt uses, and the others where something may look at them."""
    own = {name: value for name, value in values.items() if name in group.names}
    return own, {name: value for name, value in values.items() if name not in own} if group.keeps_all else {}


def _refuse_unread(test: Mapping[str, Any]) -> None:
    if not isinstance(test.get("assert"), list):
        raise NotHere("test whose `assert` is no list", "write a list")
    for keys, unread, place in ((test, _UNREAD, ""), (test.get("options") or {}, _UNREAD_OPTIONS, "options.")):
        for key in (key for key in unread if key in keys) if isinstance(keys, dict) else ():
            raise NotHere(f"test with {place}{key}", unread[key])


def _set_aside(values: Mapping[str, Any], test: Mapping[str, Any], why: NotHere) -> dict[str, Any]:
    plain = {name: value for name, value in values.items() if not isinstance(value, str) or FILE not in value[:7]}
    return {**_about(test), "vars": plain, "skip": str(why)}


def _about(test: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a case from others: its description, and its metadata as tags."""
    about: dict[str, Any] = {}
    if isinstance(test.get("description"), str) and test["description"]:
        about["description"] = test["description"]
    plain = {
        key: value
        for key, value in (test.get("metadata") or {}).items()
        if isinstance(value, str | int | float) or (isinstance(value, list) and all(isinstance(x, str) for x in value))
    }
    return {**about, "metadata": plain} if plain else about


def _transform(test: Mapping[str, Any], group: Group, files: Files) -> str | None:
    own = (test.get("options") or {}).get("transform")
    if own and group.transform:
        raise NotHere("transform of a test beside that of its provider", "write both as one")
    return script(own or group.transform, "transform", files) if own or group.transform else None


# ---------------------------------------------------------------------------- variables


def _variables(test: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """The variables of a test, those in the files that it names in their place."""
    given = test.get("vars") or {}
    if isinstance(given, dict):
        return given
    made: dict[str, Any] = {}
    named = [str(reference) for reference in (given if isinstance(given, list) else [given])]
    for reference in [each for pattern in named for each in files.fitting(pattern) or [pattern]]:
        found = _data(reference, files)
        if not isinstance(found, dict):
            raise NotHere("test with vars in a file", f"{reference} holds no keys and values that can be read here")
        made |= found
    return made


def _axes(variables: Mapping[str, Any], test: Mapping[str, Any], files: Files) -> dict[str, list[Any]]:
    """Every variable as a list of its values: a list of texts, and a pattern of files, are several."""
    is_one = (test.get("options") or {}).get("disableVarExpansion") is True
    return {str(name): list(_values(value, files, is_one=is_one)) for name, value in variables.items()}


def _values(value: Any, files: Files, *, is_one: bool) -> Iterator[Any]:
    if isinstance(value, list) and value and isinstance(value[0], str) and not is_one:
        for item in value:
            yield _loaded(item, files)
    elif isinstance(value, str) and value.startswith(FILE):
        found = files.fitting(value)
        if not found:
            raise NotHere("variable with a pattern of files", f"{value.removeprefix(FILE)} fits none that can be read")
        for each in found:
            yield _loaded(each, files)
    else:
        yield value


def _loaded(value: Any, files: Files) -> Any:
    """A text, or what is in the file that it names: YAML as JSON, anything else as it is, without space around it."""
    if not isinstance(value, str) or not value.startswith(FILE):
        return value
    suffix = PurePosixPath(value.partition("://")[2].partition(":")[0]).suffix.lower()
    if suffix in _CODE:
        raise NotHere(f"variable that a {suffix} file makes", "write the value that it makes")
    if suffix in _BINARY:
        raise NotHere(f"variable from a {suffix} file", "give its address, or its text")
    if suffix in (".yaml", ".yml"):
        return json.dumps(_data(value, files), ensure_ascii=False, separators=(",", ":"))
    text = files.text(value)
    if text is None:
        raise NotHere("variable from a file", f"{value.removeprefix(FILE)} is not below the configuration's folder")
    return text.strip()


def _data(reference: str, files: Files) -> Any:
    try:
        found = files.data(reference)
    except BadFile as error:
        raise NotHere("file that cannot be read", shortened(str(error), 120)) from error
    if found is None:
        raise NotHere("file", f"{reference.removeprefix(FILE)} is not below the configuration's folder")
    return found


def _as_printed(name: str, value: Any, group: Group) -> Any:
    """A value as JavaScript prints it, where the prompt only prints it."""
    if name not in group.names or name in group.conditions:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _schemas(rows: list[dict[str, Any]], group: Group) -> dict[str, dict[str, Any]]:
    """A schema for each variable: of its kind where all cases agree; one that some case lacks may be left out."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(group.names):
        values = [row["vars"][name] for row in rows if name in row["vars"]]
        kinds = [like(value) for value in values]
        schema = (
            dict(kinds[0]) if kinds and all(kind == kinds[0] for kind in kinds) else {} if kinds else {"type": "string"}
        )
        if len(values) < len(rows):
            schema = {**schema, "default": ""} if schema.get("type", "string") == "string" else {"default": ""}
        found[name] = schema
    return found
