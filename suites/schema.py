"""The JSON Schema of suite files, for editors: made from the models that read them and the table of assertions."""

from __future__ import annotations

from typing import Any

from prompts.editor_schema import Overlay, described, published
from prompts.names import NAME
from suites.assertions import ASSERTIONS, NOT
from suites.case import Case, SuiteHead
from suites.values import FILE

_FILE = {"type": "string", "pattern": f"^{FILE}", "description": "the content of a file, relative to this one"}
_SHARE = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
_SCALAR = {"type": ["string", "number", "boolean"]}
_LIST = {"anyOf": [{"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}}, _FILE]}
_JSON_SCHEMA = {"anyOf": [{"type": ["object", "null"]}, _FILE]}
_NOTHING = {"type": "null"}
_SHAPES = (  # assertion types, what their `value` is, what they must have, what they must not have
    (("equals",), {"not": {"type": "null"}}, ("value",), "threshold"),
    (("iequals",), _SCALAR, ("value",), "threshold"),
    (("contains", "icontains", "starts-with", "ends-with"), {**_SCALAR, "not": {"const": ""}}, ("value",), "threshold"),
    (("contains-any", "contains-all", "icontains-any", "icontains-all"), _LIST, ("value",), "threshold"),
    (("regex",), {"type": "string"}, ("value",), "threshold"),
    (("is-json", "contains-json"), _JSON_SCHEMA, (), "threshold"),
    (("latency", "cost"), _NOTHING, ("threshold",), ""),
)


def suite_schema() -> dict[str, Any]:
    """The schema of `*.suite.yml`, as the command line reads it: `file://` is resolved there."""
    schema = published(SuiteHead, "suite", "A suite (*.suite.yml)", _SUITE)
    case = published(Case, "case", "A case", {})
    schema["$defs"]["Case"] = {key: case[key] for key in ("type", "description", "properties", "additionalProperties")}
    for name in ("Case", "DefaultTest"):
        properties = schema["$defs"][name]["properties"]
        schema["$defs"][name]["properties"] = {key: _or_file(value) for key, value in properties.items()}
    for key in ("vars", "assert", "threshold"):
        schema["$defs"]["Case"]["properties"][key].update(_CASE[key])
        schema["$defs"]["DefaultTest"]["properties"][key].update(_CASE[key])
    for key in _CASE.keys() & schema["$defs"]["Case"]["properties"].keys():
        schema["$defs"]["Case"]["properties"][key].update(_CASE[key])
    schema["required"] = ["prompt", "tests"]
    return schema


def _or_file(schema: dict[str, Any]) -> dict[str, Any]:
    """Any value within a case may stand in a file of its own."""
    if schema.get("type") == "string" or not schema:
        return schema
    kept: dict[str, Any] = {key: schema.pop(key) for key in ("description", "default", "examples") if key in schema}
    return {**kept, "anyOf": [schema, _FILE]}


def _assertion_types() -> list[str]:
    return [*ASSERTIONS, *(NOT + name for name in ASSERTIONS)]


def _conditions() -> list[dict[str, Any]]:
    """What each type of assertion needs; a type that is not in the table is held to the common keys alone."""
    found = []
    for names, value, needed, unwanted in _SHAPES:
        known = [prefix + name for name in names for prefix in ("", NOT) if name in ASSERTIONS]
        properties = {"value": value} | ({unwanted: _NOTHING} if unwanted else {})
        then = {"properties": properties, "required": list(needed)}
        found.append({"if": {"properties": {"type": {"enum": known}}, "required": ["type"]}, "then": then})
    return found


_CASE = {
    "vars": described("Values of the prompt's variables.", {"ticket": "I was charged twice"}),
    "assert": described("What must hold of the answer.", [{"type": "icontains", "value": "paris"}]),
    "threshold": {
        **described("Where given, the weighted score decides; else every assertion must hold."),
        "anyOf": [*_SHARE["anyOf"], _FILE],
    },
    "must_pass": described("A failure of this case alone fails the gate."),
    "description": described("What the case is about."),
    "tags": described("Words to group cases by."),
}
_SUITE: Overlay = {
    "": {
        "description": "Held-out cases for one prompt, what they must reach, and what happens when they do not. Called"
        " by its path below suites/, dots for folders."
    },
    "properties/prompt": described(
        "The prompt under test: its path below prompts/.", "support.ticket-triage", pattern=f"^{NAME.pattern}$"
    ),
    "properties/thresholds": described("What a run must reach; any subset.", {"pass_rate": 0.9}),
    "properties/gate": described("How sure a gate must be."),
    "properties/repeat": described("How often each case is asked."),
    "properties/pass_k": described("Of the repeats, how many must pass; by default all."),
    "properties/schedule": described("Five cron fields: the service runs the suite on production.", "0 3 * * *"),
    "properties/defaultTest": described("What every case starts from."),
    "properties/tests": {
        "description": "Cases, or files of them (.jsonl, .csv, .json, .yaml). They are never trained on.",
        "anyOf": [{"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/Case"}, _FILE]}}, _FILE],
    },
    "properties/fallback": described("What happens when the gate fails."),
    "$defs/CaseOptions/properties/provider": {
        **described("The alias of the model that judges.", "gpt-4o-mini"),
        "anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/Provider"}, {"type": "null"}],
    },
    "$defs/Thresholds/properties/pass_rate": {**described("Share of cases that pass, 0 to 1.", 0.9), **_SHARE},
    "$defs/Thresholds/properties/p95_latency_ms": described("Milliseconds.", 2000),
    "$defs/Thresholds/properties/cost_per_1k_usd": described("US dollars for a thousand completions.", 0.5),
    "$defs/GateSettings/properties/margin": described("Loss that is tolerated, 0 to 1.", minimum=0, maximum=1),
    "$defs/GateSettings/properties/max_error_share": described("Cases that may error.", minimum=0, maximum=1),
    "$defs/Training/properties/examples": {
        "description": "What an adapter learns from; a line of a file is {\"vars\": {…}, \"expected\": \"…\"}.",
        "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Example"}}, _FILE],
    },
    "$defs/Fallback/properties/rollout": described(
        "Percent of the traffic, step by step.", [5, 25, 100], minItems=1,
        items={"type": "integer", "minimum": 1, "maximum": 100}, uniqueItems=True,
    ),
    "$defs/AssertionSpec": {"allOf": _conditions()},
    "$defs/AssertionSpec/properties/type": described("What is asserted; `not-` turns it round.", enum=_assertion_types()),
    "$defs/AssertionSpec/properties/value": described("What is looked for; {{ name }} is the case's variable."),
    "$defs/AssertionSpec/properties/threshold": described("Of `latency` milliseconds, of `cost` US dollars."),
    "$defs/AssertionSpec/properties/weight": described("Its share in the case's score; 0 reports without deciding."),
    "$defs/AssertionSpec/properties/metric": described("Its score is summed over the suite under this name."),
}  # fmt: skip
