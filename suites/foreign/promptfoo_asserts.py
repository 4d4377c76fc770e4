"""promptfoo's assertions as ours: of those that are not here it is said why, and the case is set aside for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prompts.errors import BadFile, BadInput
from prompts.formats.nunjucks import filled
from prompts.yaml_source import load_yaml
from suites import assertions
from suites.assertions.compared import COMPARED
from suites.assertions.embedded import EMBEDDED
from suites.assertions.judged import JUDGED, RELEVANCE
from suites.assertions.python import PYTHON
from suites.assertions.sets import ASSERT_SET
from suites.assertions.spec import AssertionSpec
from suites.foreign.promptfoo_tests import Files
from suites.foreign.providers import EMBEDDER, GRADER, NONE, Aliases, provider_entries
from suites.specs import CheckedSpec
from suites.values import FILE

_SCRIPTS = (".js", ".cjs", ".mjs", ".ts", ".mts", ".cts")
_IGNORED = {"type", "reason", "description", "label"}  # which decide nothing
_KEPT = {"value", "threshold", "weight", "metric", "transform", "provider", "rubricPrompt", "config", "assert"}
_SPEC: TypeAdapter[AssertionSpec] = TypeAdapter(CheckedSpec)
_WITHOUT_THRESHOLD = frozenset(
    {"equals", "contains", "icontains", "contains-any", "contains-all", "icontains-any", "icontains-all", "starts-with",
     "regex", "is-json", "contains-json"}
)  # fmt: skip
_SCHEMAS = frozenset({"is-json", "contains-json"})
_HOLD_OF_ALL = frozenset({"contains", "icontains", "starts-with"})  # where the text that is looked for is empty
ANY_ANSWER = {
    "type": "word-count",
    "value": {"min": 0},
}  # holds of every answer, as a test without assertions does there


class NotHere(Exception):
    """Why something of theirs cannot be had: `what` it is in few words, `why` with what to do about it."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} ({why})")
        self.what = what
        self.why = why


@dataclass(frozen=True, slots=True)
class Around:
    """What an assertion is read by: the test's variables and options, files, aliases; `models` are asked, for prices.

    `is_compared` tells whether the answers of several variants are there to be compared.
    """

    values: Mapping[str, Any]
    options: Mapping[str, Any]
    files: Files
    aliases: Aliases
    models: tuple[str, ...]
    is_compared: bool = False


def assertion_of(given: Any, around: Around) -> dict[str, Any]:
    """The keys of our assertion; raises NotHere where there is none that judges alike."""
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise NotHere("assertion without a type", "write `type:`")
    kind = given["type"].removeprefix(assertions.NOT)
    _refuse_unknown(given)
    made: dict[str, Any] = {key: given[key] for key in ("type", "threshold", "weight", "metric", "config")
                            if given.get(key) is not None}  # fmt: skip
    _drop_idle(made, kind)
    if kind == ASSERT_SET:
        made["assert"] = [assertion_of(part, around) for part in given.get("assert") or []]
    if given.get("value") is not None:
        made["value"] = _value(given["value"], kind, around)
    if given.get("transform"):
        made["transform"] = script(given["transform"], "transform", around.files)
    if kind in _HOLD_OF_ALL and made.get("value") == "":
        return dict(ANY_ANSWER)
    made |= _judged_by(given, kind, around)
    _refuse_unmeasured(kind, given["type"], around)
    return _checked(made)


def _drop_idle(made: dict[str, Any], kind: str) -> None:
    """Take away what promptfoo lets stand and never looks at: the threshold of a plain check, the config of no script."""
    if kind in _WITHOUT_THRESHOLD:
        made.pop("threshold", None)
    if "config" not in assertions.ASSERTIONS[kind].takes:
        made.pop("config", None)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    kind = str(given["type"])
    try:
        assertions.known_type(kind)
    except Exception as error:
        fix = (getattr(error, "context", None) or {}).get("fix", "")
        why = assertions.NOT_HERE.get(kind.removeprefix(assertions.NOT), "there is no such type here")
        raise NotHere(f"assertion {kind}", why if "did you mean" not in fix else fix) from error
    unread = sorted(given.keys() - _KEPT - _IGNORED)
    if unread:
        raise NotHere(f"assertion with {', '.join(unread)}", "it is not read here: judge by other keys")


def _value(value: Any, kind: str, around: Around) -> Any:
    if isinstance(value, str) and value.startswith(FILE):
        return _from_file(value, kind, around.files)
    if isinstance(value, str) and kind in _SCHEMAS:
        return _schema(_filled(value, kind, around.values), kind)
    if isinstance(value, str):
        return value if kind == PYTHON else _filled(value, kind, around.values)
    if isinstance(value, list):
        return [_value(item, kind, around) if isinstance(item, str) else item for item in value]
    return value


def _schema(text: str, kind: str) -> Any:
    """A schema that is written as text, in JSON or YAML."""
    try:
        return load_yaml(text, kind).data
    except BadFile as error:
        raise NotHere(f"{kind} with a schema that cannot be read", str(error).splitlines()[0]) from error


def _filled(text: str, kind: str, values: Mapping[str, Any]) -> str:
    try:
        return filled(text, values)
    except BadInput as error:
        raise NotHere(f"template in the value of {kind}", str(error)) from error


def _from_file(reference: str, kind: str, files: Files) -> Any:
    suffix = PurePosixPath(reference.rpartition(":")[0] if reference.count(":") > 1 else reference).suffix.lower()
    if kind == PYTHON:
        return _python(reference, files)
    if suffix == ".py" or (suffix in _SCRIPTS and kind != "javascript"):
        raise NotHere(f"{kind} with a value that code makes", "write the value")
    if suffix in _SCRIPTS:
        return script(reference, "javascript", files)
    try:
        found = files.data(reference)
    except BadFile as error:
        raise NotHere(f"{kind} with a file that cannot be read", str(error).splitlines()[0]) from error
    if found is None:
        raise NotHere(f"{kind} with a file", f"{reference.removeprefix(FILE)} is not below the configuration's folder")
    return found


def _python(reference: str, files: Files) -> str:
    try:
        return files.find_script(reference.removeprefix(FILE))
    except ValueError as error:
        raise NotHere("assertion python in a file", str(error)) from error


def script(given: Any, what: str, files: Files) -> str:
    """A script written inline, or that of a JavaScript file with the export that is meant."""
    if not isinstance(given, str):
        raise NotHere(f"{what} that is no text", "write JavaScript")
    if not given.startswith(FILE):
        return given
    name, _, function = given.removeprefix(FILE).partition(":")
    if PurePosixPath(name).suffix.lower() not in (".js", ".cjs", ".mjs"):
        raise NotHere(f"{what} in a {PurePosixPath(name).suffix or 'strange'} file", "write it as JavaScript")
    text = files.text(name)
    if text is None:
        raise NotHere(f"{what} in a file", f"{name} is not below the configuration's folder")
    return text + (f"\nmodule.exports = module.exports.{function};" if function else "")


def _judged_by(given: Mapping[str, Any], kind: str, around: Around) -> dict[str, Any]:
    """Who judges, and by which rubric, from the assertion, else from its test's options."""
    made: dict[str, Any] = {}
    if kind in JUDGED:
        made["provider"] = _alias(given.get("provider", around.options.get("provider")), GRADER, "text", around)
        rubric = given.get("rubricPrompt", around.options.get("rubricPrompt"))
        if rubric is not None:
            made["rubricPrompt"] = _rubric(rubric, around.files)
    if kind in EMBEDDED:
        made["provider"] = _alias(given.get("provider", around.options.get("provider")), EMBEDDER, "embedding", around)
    if kind == RELEVANCE:
        embedder = _alias(given.get("provider", around.options.get("provider")), EMBEDDER, "embedding", around)
        made["config"] = {"embeddings": embedder, **(given.get("config") or {})}
    return made


def _rubric(given: Any, files: Files) -> Any:
    if isinstance(given, str) and given.startswith(FILE):
        found = files.data(given)
        if found is None:
            raise NotHere(
                "rubricPrompt in a file", f"{given.removeprefix(FILE)} is not below the configuration's folder"
            )
        return found
    return given


def _alias(provider: Any, otherwise: str, part: str, around: Around) -> str:
    """The alias of who judges; of a mapping the part for texts or for embeddings."""
    if isinstance(provider, dict) and "id" not in provider:
        provider = provider.get(part, otherwise)
    found, _ = next(iter(provider_entries(provider if provider is not None else otherwise)), ("", {}))
    # a model that answers makes no vectors: the default is meant
    alias = around.aliases.of(found if found and (part == "text" or "embedding" in found) else otherwise)
    if alias == NONE:
        raise NotHere(
            f"assertion that {found or otherwise} judges", f"told by --provider '{found or otherwise}={NONE}'"
        )
    return alias


def _refuse_unmeasured(kind: str, name: str, around: Around) -> None:
    unpriced = [alias for alias in around.models if not around.aliases.has_price(alias)]
    if kind == "cost" and unpriced:
        raise NotHere(f"assertion {name}", f"give {unpriced[0]} a `price` in turnout.yaml")
    if kind in COMPARED and not around.is_compared:
        raise NotHere(
            f"assertion {name}", "it compares answers of several models to one prompt: give it several providers"
        )


def _checked(made: dict[str, Any]) -> dict[str, Any]:
    try:
        _SPEC.validate_python(made)
    except ValidationError as error:
        raise NotHere(f"assertion {made['type']}", _first_message(error)) from error
    return made


def _first_message(error: ValidationError) -> str:
    """What is wrong, and the fix, on one line."""
    first: Any = error.errors(include_url=False)[0]
    fix = (first.get("ctx") or {}).get("fix", "")
    return " ".join(f"{first['msg']}: {fix}".split()).rstrip(": ")[:200]


def kinds_of(asserts: Iterable[Any]) -> set[str]:
    """The types of assertions of theirs, those within sets too, without `not-`."""
    found: set[str] = set()
    for given in asserts:
        if isinstance(given, dict):
            found.add(str(given.get("type")).removeprefix(assertions.NOT))
            found |= kinds_of(given.get("assert") or [])
    return found
