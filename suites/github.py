"""GitHub's `testData` and `evaluators` of a prompt file, as the suite that they are, and a suite as such keys."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.prompt_yml import PromptSource
from prompts.yaml_source import Document
from suites.assertions.spec import AssertionSpec
from suites.case import Case, Suite

_STRING_TESTS = ("equals", "contains", "startsWith", "endsWith")
_NAMED = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_FIX = "write {name: …, string: {equals: …}}, or one of " + ", ".join(_STRING_TESTS[1:])


@dataclass(frozen=True, slots=True)
class GithubSuite:
    """The suite of a prompt file and what could not be made a part of it; no suite where nothing could be tested."""

    suite: Suite | None
    left_out: tuple[Fault, ...] = ()


def suite_of(source: PromptSource) -> GithubSuite:
    """The suite that `source` brings with it: one case a row of `testData`, each judged by every evaluator of text.

    As with GitHub all but `equals` ignore case, `{{name}}` in an evaluator is the row's value, and a row may hold more
    than the prompt's variables. Evaluators that ask a model are left out, and said to be. Raises BadFile where an
    evaluator is none.
    """
    if not source.test_data:
        return GithubSuite(None, tuple(_without_data(source)))
    faults: list[Fault] = []
    left_out: list[Fault] = []
    tests = [test for i in range(len(source.evaluators)) if (test := _read(source, i, faults, left_out))]
    if not tests and not faults:
        fix = "add `evaluators: [{name: right, string: {equals: '{{expected}}'}}]`"
        left_out.append(
            _warning(source, "`testData` has no evaluator of text, and makes no suite", "testData", fix=fix)
        )
        return GithubSuite(None, tuple(left_out))
    cases = [_case(source, index, tests, faults) for index in range(len(source.test_data))]
    if faults:
        raise BadFile(faults)
    data = {"prompt": source.name, "description": source.title or "", "tests": cases}
    return GithubSuite(_suite(source, data), tuple(left_out))


def _without_data(source: PromptSource) -> Iterator[Fault]:
    if source.evaluators:
        fix = "add `testData`, or move them into a suite file"
        yield _warning(source, "`evaluators` without `testData` test nothing", "evaluators", fix=fix)


def _warning(source: PromptSource, message: str, *keys: str | int, fix: str) -> Fault:
    return source.document.fault(message, *keys, fix=fix, level="warning", rule="evaluator")


@dataclass(frozen=True, slots=True)
class _Test:
    name: str
    kind: str
    text: str
    keys: tuple[str | int, ...]


def _read(source: PromptSource, index: int, faults: list[Fault], left_out: list[Fault]) -> _Test | None:
    evaluator, keys = source.evaluators[index], ("evaluators", index)
    name = str(evaluator.get("name") or f"evaluator {index + 1}")
    if "uses" in evaluator or "llm" in evaluator:
        what = evaluator.get("uses") or "llm"
        message = f"evaluator {name!r} ({what}) asks a model and is no part of the suite"
        left_out.append(_warning(source, message, *keys, fix="judge by a model in a suite file"))
        return None
    given = evaluator.get("string")
    kinds = [kind for kind in _STRING_TESTS if isinstance(given, dict) and isinstance(given.get(kind), str)]
    if not kinds or given is None or given.keys() - set(_STRING_TESTS):
        faults.append(source.fault(f"evaluator {name!r} tests nothing that is known", *keys, fix=_FIX))
        return None
    return _Test(name[:100], kinds[0], given[kinds[0]], keys)


def _case(source: PromptSource, index: int, tests: list[_Test], faults: list[Fault]) -> dict[str, Any]:
    row = source.test_data[index]
    asserts = [_assertion(source, test, row, index, faults) for test in tests]
    return {"vars": {name: row[name] for name in source.variables if name in row}, "assert": asserts}


def _assertion(
    source: PromptSource, test: _Test, row: Mapping[str, Any], index: int, faults: list[Fault]
) -> dict[str, Any]:
    for name in sorted(set(_NAMED.findall(test.text)) - row.keys()):
        message = f"evaluator {test.name!r} names {{{{{name}}}}}, which row {index + 1} of `testData` does not have"
        faults.append(source.fault(message, "testData", index, fix=f"add `{name}:` to the row"))
    text = _NAMED.sub(lambda found: _shown(row.get(found[1], "")), test.text)
    forms = {
        "equals": {"type": "equals", "value": text},
        "contains": {"type": "icontains", "value": text},
        "startsWith": {"type": "regex", "value": rf"(?i)\A{re.escape(text)}"},
        "endsWith": {"type": "regex", "value": rf"(?i){re.escape(text)}\Z"},
    }
    return {**forms[test.kind], "metric": test.name}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _suite(source: PromptSource, data: dict[str, Any]) -> Suite:
    """The suite; a fault of a case is told at its row."""
    document = source.document
    lines = {("tests", *keys[1:2]): line for keys, line in document.lines.items() if keys[:1] == ("testData",)}
    return Suite.from_document(Document(document.path, data, {(): document.line("testData"), **lines}))


@dataclass(frozen=True, slots=True)
class GithubKeys:
    """A suite in the keys of GitHub's prompt files, and what it holds that they cannot say, a line each."""

    keys: dict[str, Any]
    left_out: tuple[str, ...] = ()


def github_keys(suite: Suite) -> GithubKeys:
    """`testData` and `evaluators` for `suite`: what `suite_of` makes of them tests the same.

    Every evaluator judges every row, so an assertion that only some cases have is left out. A text that is not the same
    in all rows goes into a column, `expected` where that is free.
    """
    left_out = [f"suite {key}: GitHub has none" for key in suite.as_data() if key not in _HELD_OF_SUITE]
    said = [dict(_said(case, f"tests.{index}", left_out)) for index, case in enumerate(suite.tests)]
    rows = [dict(case.vars) for case in suite.tests]
    evaluators = []
    for key in dict.fromkeys(key for texts in said for key in texts):
        texts_of_key = [texts[key] for texts in said if key in texts]
        if len(texts_of_key) < len(rows):
            left_out.append(
                f"assertion {key[0]!r} ({key[1]}): GitHub's evaluators judge every row, and not all have it"
            )
        else:
            evaluators.append({"name": key[0], "string": {key[1]: _text_of_rows(texts_of_key, rows)}})
    if not evaluators:
        return GithubKeys({}, (*left_out, "suite tests: nothing in them can be said by an evaluator of text"))
    return GithubKeys({"testData": rows, "evaluators": evaluators}, tuple(left_out))


_HELD_OF_SUITE = frozenset({"prompt", "description", "tests"})
_HELD_OF_CASE = frozenset({"vars", "assert"})
_STARTS = re.compile(r"\(\?i\)\\A(.*)", re.DOTALL)
_ENDS = re.compile(r"\(\?i\)(.*)\\Z", re.DOTALL)
_Key = tuple[str, str, int]  # the evaluator's name, its kind, and which of those that are alike


def _said(case: Case, at: str, left_out: list[str]) -> Iterator[tuple[_Key, str]]:
    """The case's assertions in GitHub's words."""
    held = case.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    left_out += [f"{at}.{key}: GitHub has none" for key in held if key not in _HELD_OF_CASE]
    seen: list[tuple[str, str]] = []
    for index, spec in enumerate(case.asserts):
        found = _in_words(spec)
        if found is None:
            left_out.append(f"{at}.assert.{index}: GitHub has no evaluator like {spec.type}")
            continue
        kind, text = found
        name = spec.metric or kind
        yield (name, kind, seen.count((name, kind))), text
        seen.append((name, kind))


def _in_words(spec: AssertionSpec) -> tuple[str, str] | None:
    """The kind of GitHub's evaluator that `spec` is, and its text; None where there is none."""
    if not isinstance(spec.value, str) or spec.threshold is not None or spec.weight != 1:
        return None
    if spec.type in ("equals", "icontains"):
        return {"equals": "equals", "icontains": "contains"}[spec.type], spec.value
    for kind, pattern in (("startsWith", _STARTS), ("endsWith", _ENDS)) if spec.type == "regex" else ():
        found = pattern.fullmatch(spec.value)
        text = re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL) if found else ""
        if found and re.escape(text) == found[1]:
            return kind, text
    return None


def _text_of_rows(texts: list[str], rows: list[dict[str, Any]]) -> str:
    """What an evaluator is to say: the text that all rows share, or the name of a new column that holds each row's."""
    if len(set(texts)) == 1:
        return texts[0]
    taken = {name for row in rows for name in row}
    column = next(name for name in _columns() if name not in taken)
    for row, text in zip(rows, texts, strict=True):
        row[column] = text
    return f"{{{{{column}}}}}"


def _columns() -> Iterator[str]:
    yield "expected"
    for number in itertools.count(2):
        yield f"expected_{number}"
