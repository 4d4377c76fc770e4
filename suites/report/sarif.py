"""Faults of files as SARIF 2.1.0, as GitHub's and GitLab's code scanning read it.

Every result has a place with a relative URI and a line, which forges ask for, and a fingerprint that does not depend on
the line, so that a finding that moves stays the same finding. Texts hold no links, whatever files say.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from prompts.errors import Fault

SCHEMA_URI = "https://json.schemastore.org/sarif-2.1.0.json"
MAX_RESULTS = 5_000  # GitHub shows as many of a run
MAX_MESSAGE_CHARACTERS = 1_000
ROOT = "%SRCROOT%"

_RULES: Mapping[str, str] = {
    "invalid": "What a file may not hold",
    "yaml": "What is no YAML",
    "json": "What is no JSON",
    "csv": "What is no CSV",
    "duplicate-key": "A key that stands twice",
    "unknown-key": "A key that nothing reads",
    "missing-key": "A key that is needed",
    "template": "A template that cannot be read",
    "include": "An include that names nothing, or leads in a circle",
    "file": "A file that is named and cannot be read",
    "cases": "Cases that are the same, or are none",
    "variable": "A value that the variable's schema refuses",
    "undeclared-variable": "A name that a template uses and no variable declares",
    "output-schema": "A schema of the answer that is none",
    "no-assertion": "A case that asserts nothing",
    "name": "A name outside the grammar, or one that two files share",
    "secret": "What looks like a key or a password",
    "context-length": "A prompt that is longer than its model's context",
    "empty-message": "A message that some values of the variables leave without any text",
    "unknown-parameter": "A model parameter that no known server has",
    "unused-variable": "A declared variable that nothing uses",
    "protected-label": "A label whose push is refused unless the version has passed its gate",
    "unknown-model": "A model that turnout.yaml does not have",
    "unknown-prompt": "A suite's prompt that is not in the working tree",
    "evaluator": "An evaluator of GitHub's that tests nothing, or is no part of the suite",
}
_SECRET: Mapping[str, Any] = {"tags": ["security"], "security-severity": "8.0"}


def render_sarif(faults: Sequence[Fault], version: str) -> str:
    """The document. Paths of `faults` are relative to the repository, with slashes; absolute ones stay as they are.

    A fault of a whole file stands at its first line. No fault at all is a document, too: it closes what was open.
    """
    shown = faults[:MAX_RESULTS]
    rules = sorted({fault.rule for fault in shown})
    seen: Counter[str] = Counter()
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "Turnout", "semanticVersion": version, "rules": [_rule(rule) for rule in rules]}},
        "automationDetails": {"id": "turnout/check/"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The root of the repository."}}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notes(len(faults))}],
        "results": [_result(fault, rules.index(fault.rule), seen) for fault in shown],
    }
    return json.dumps({"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _notes(count: int) -> list[dict[str, Any]]:
    left = count - MAX_RESULTS
    told = f"{left} more faults are left out: `turnout check` tells all of them"
    return [{"level": "warning", "message": {"text": told}}] if left > 0 else []


def _rule(rule: str) -> dict[str, Any]:
    about = _RULES.get(rule, f"Turnout's rule {rule}")
    found: dict[str, Any] = {"id": rule, "shortDescription": {"text": f"{about}."}}
    return {**found, "properties": dict(_SECRET)} if rule == "secret" else found


def _result(fault: Fault, rule_index: int, seen: Counter[str]) -> dict[str, Any]:
    found = hashlib.sha256("\0".join((fault.rule, fault.path, fault.message)).encode("utf-8", "replace")).hexdigest()[
        :32
    ]
    seen[found] += 1
    return {
        "ruleId": fault.rule,
        "ruleIndex": rule_index,
        "level": fault.level,
        "message": {"text": _plain(fault.message + (f" ({fault.fix})" if fault.fix else ""))},
        "locations": [{"physicalLocation": _place(fault)}],
        "partialFingerprints": {"primaryLocationLineHash": f"{found}:{seen[found]}"},
    }


def _place(fault: Fault) -> dict[str, Any]:
    path = fault.path.replace("\\", "/")
    where = {"uri": f"file://{quote(path)}"} if path.startswith("/") else {"uri": quote(path), "uriBaseId": ROOT}
    return {"artifactLocation": where, "region": {"startLine": max(1, fault.line)}}


def _plain(text: str) -> str:
    """`text` without what SARIF reads as a link (§3.11.6), and without control characters; never empty."""
    shown = "".join(character if character.isprintable() or character == "\n" else "�" for character in text)
    cut = shown if len(shown) <= MAX_MESSAGE_CHARACTERS else shown[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    return cut.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]") or "-"
