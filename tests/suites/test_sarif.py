"""SARIF by what its schema and GitHub's reader ask of it."""

from __future__ import annotations

import json

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import Fault
from suites.report.sarif import MAX_RESULTS, render_sarif

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
PLACE = {
    "type": "object",
    "required": ["artifactLocation", "region"],
    "properties": {
        "artifactLocation": {
            "type": "object",
            "required": ["uri"],
            "properties": {"uri": {"type": "string", "pattern": r"^[A-Za-z0-9._~%/\-]+$|^file:///"}, "uriBaseId": {}},
            "additionalProperties": False,
        },
        "region": {"type": "object", "required": ["startLine"], "properties": {"startLine": {"minimum": 1}}},
    },
    "additionalProperties": False,
}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
    "properties": {
        "level": {"enum": ["error", "warning"]},
        "message": TEXT,
        "locations": {"minItems": 1, "items": {"type": "object", "properties": {"physicalLocation": PLACE}}},
        "partialFingerprints": {"required": ["primaryLocationLineHash"], "additionalProperties": {"type": "string"}},
    },
}
DRIVER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "rules": {"uniqueItems": True, "items": {"required": ["id"], "properties": {"shortDescription": TEXT}}}
    },
}
SCHEMA = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "tool": {"required": ["driver"], "properties": {"driver": DRIVER}},
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {"items": RESULT},
                },
            },
        },
    },
    "additionalProperties": False,
}
SCHEMA["properties"]["$schema"] = {"type": "string"}
TEXTS = st.text(st.characters(), max_size=40)
FAULTS = st.builds(
    Fault,
    TEXTS.map(lambda text: "suites/" + text.replace("\0", "").encode("utf-8", "replace").decode()),
    st.integers(0, 9),
    TEXTS,
    TEXTS,
    st.sampled_from(["error", "warning"]),
    st.sampled_from(["invalid", "secret", "new-rule"]),
)


def read(faults):
    document = json.loads(render_sarif(faults, "1.2.3"))
    jsonschema.validate(document, SCHEMA)
    [run] = document["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


@given(st.lists(FAULTS, max_size=5))
def test_any_faults_are_a_valid_document(faults):
    assert len(read(faults)["results"]) == len(faults)


def test_a_fault_stands_at_its_line_of_a_relative_path():
    [result] = read([Fault("suites/a b:ü.yml", 7, "wrong", "mend it", "warning", "secret")])["results"]
    place = result["locations"][0]["physicalLocation"]
    uri = {"uri": "suites/a%20b%3A%C3%BC.yml", "uriBaseId": "%SRCROOT%"}
    assert place == {"artifactLocation": uri, "region": {"startLine": 7}}
    assert result["message"] == {"text": "wrong (mend it)"}
    assert result["level"] == "warning"


def test_a_file_makes_no_link_in_a_message():
    [result] = read([Fault("a.yml", 0, "unknown key '[click](http://e)' \x1b")])["results"]
    assert result["message"]["text"] == "unknown key '\\[click\\](http://e)' �"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}


def test_a_fault_that_moves_is_the_same_and_two_alike_are_two():
    def prints(*lines):
        results = read([Fault("a.yml", line, "wrong") for line in lines])["results"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]

    assert prints(3) == prints(9)
    assert len(set(prints(3, 4))) == 2


def test_no_fault_is_a_document_and_too_many_are_cut_and_told():
    assert read([])["results"] == []
    run = read([Fault("a.yml", n, f"wrong {n}") for n in range(MAX_RESULTS + 2)])
    assert len(run["results"]) == MAX_RESULTS
    assert "2 more faults" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
