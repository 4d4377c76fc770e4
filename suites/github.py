"""GitHub's `testData` and `evaluators` of a prompt file, as the suite that they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.prompt_yml import PromptSource
from prompts.yaml_source import Document
from suites.case import Suite

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
