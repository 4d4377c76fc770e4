"""`turnout schema`: an editor accepts what `turnout check` accepts, and refuses the keys that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from prompts.errors import BadFile
from prompts.formats.prompt_yml import SUFFIXES, PromptFile, load_prompt
from prompts.yaml_source import Document, load_yaml
from service.cli.schemas import Kind, config_schema, schema_of
from service.settings import Settings
from suites.assertions import ASSERTIONS
from suites.case import Case, Suite, SuiteHead
from suites.files import load_suite
from tests.service.cli.projects import CONFIG, PROMPT, SUITE, Project

ROOT = Path(__file__).parents[3]
VALIDATORS = {kind: Draft202012Validator(schema_of(kind)) for kind in Kind}


def kind_of(path: Path) -> Kind:
    if path.name.endswith(SUFFIXES):
        return Kind.PROMPT
    return Kind.SUITE if ".suite." in path.name else Kind.CONFIG


def problems(kind: Kind, data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATORS[kind].iter_errors(data)]


@pytest.mark.parametrize("kind", Kind)
def test_it_is_a_schema_of_the_draft_and_every_key_says_what_it_is(kind: Kind) -> None:
    schema = schema_of(kind)
    Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["$id"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        f"urn:turnout:schema:{kind}",
    )
    assert schema["additionalProperties"] is False
    assert "title" in schema
    assert "description" in schema


def test_it_has_the_keys_of_the_models_that_read_the_files() -> None:
    def keys(model: Any) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    assert schema_of(Kind.PROMPT)["properties"].keys() == keys(PromptFile)
    assert all(value.get("description") for value in schema_of(Kind.PROMPT)["properties"].values())
    suite = schema_of(Kind.SUITE)
    assert suite["properties"].keys() == keys(SuiteHead)
    assert suite["$defs"]["Case"]["properties"].keys() == keys(Case)
    assert config_schema()["properties"].keys() == keys(Settings) - {"home", "project"}


def test_an_editor_is_offered_every_assertion_type_role_and_engine() -> None:
    types = schema_of(Kind.SUITE)["$defs"]["AssertionSpec"]["properties"]["type"]["enum"]
    assert set(types) == {prefix + name for name in ASSERTIONS for prefix in ("", "not-")}
    roles = schema_of(Kind.PROMPT)["$defs"]["MessageTemplate"]["properties"]["role"]["enum"]
    assert roles == ["system", "developer", "user", "assistant", "tool"]


@pytest.mark.parametrize(
    "path",
    [
        path
        for pattern in ("*.prompt.yml", "*.suite.yml", "turnout.yaml")
        for path in (ROOT / "examples").rglob(pattern)
    ],
    ids=lambda path: path.name,
)
def test_every_example_satisfies_its_schema(path: Path) -> None:
    assert problems(kind_of(path), load_yaml(path.read_text("utf-8"), str(path)).data) == []


GOOD_PROMPTS = [
    PROMPT,
    "model: m\nmessages: [{role: user, content: [{type: text, text: '{{ a }}'}, {type: x, y: 1}]}]\nresponseFormat: text\n",
    PROMPT + "responseFormat: json_schema\njsonSchema: {type: object}\nlabels: [staging]\ntags: [a]\nnotes: |\n  # A\n",
    PROMPT + "tools: [{type: function, function: {name: f, parameters: {type: object}}}]\ntoolChoice: auto\n",
    PROMPT.replace("messages:\n", "placeholders: {history: {maxMessages: 3, default: []}}\nmessages:\n  - placeholder: history\n"),
    PROMPT + "examples: [{vars: {ticket: a}, expected: {queue: b}}]\ndescription:\nname:\n",
    "model: m\nmessages: [{role: user, content: '{{input}}'}]\ntestData: [{input: a, expected: b}]\nevaluators: []\n",
]  # fmt: skip
BAD_PROMPTS = [
    "messages: [{role: user, content: x}]\n",
    "model: m\n",
    "model: m\nmessages: []\n",
    "model: ''\nmessages: [{role: user, content: x}]\n",
    "model: m\nmessages: [{role: human, content: x}]\n",
    "model: m\nmessages: [{role: user}]\n",
    "model: m\nmessages: [{role: user, content: x, name: y}]\n",
    "model: m\nmessages: [{role: user, content: []}]\n",
    "model: m\nmessages: [{role: user, content: [{text: x}]}]\n",
    "model: m\nmessages: [{role: user, content: [{type: text}]}]\n",
    "model: m\nmessages: [{role: user, content: [{type: image_url, image_url: {}}]}]\n",
    "model: m\nmessages: {role: user, content: x}\n",
    PROMPT + "modelparameters: {}\n",
    PROMPT + "labels: [latest]\n",
    PROMPT + "labels: [Production]\n",
    PROMPT + "tags: one\n",
    PROMPT + "responseFormat: json_schema\n",
    PROMPT + "responseFormat: json\n",
    PROMPT + "jsonSchema: {type: object}\n",
    PROMPT + "toolChoice: maybe\n",
    PROMPT + "tools: [{name: f}]\n",
    PROMPT + "examples: [{vars: {ticket: a}}]\n",
    PROMPT + "placeholders: {history: {max: 3}}\n",
    PROMPT + "placeholders: {history: {maxMessages: -1}}\n",
    PROMPT.replace("ticket: {type: string", "9ticket: {type: string"),
    PROMPT.replace("{type: string, minLength: 1", "{type: text, minLength: 1"),
    PROMPT.replace("minLength: 1", "minLength: '1'"),
]
CASE = "{vars: {ticket: x}, assert: [{type: icontains, value: y}]}"


def suite(more: str = "", case: str = CASE) -> str:
    return f"prompt: support.triage\n{more}\ntests: [{case}]\n"


GOOD_SUITES = [
    SUITE,
    suite("thresholds: {pass_rate: 1, p95_latency_ms: 2000}\ngate: {alpha: 0.1, margin: 0}\nrepeat: 3\npass_k: 2"),
    suite("schedule: '0 3 * * *'\nfallback: {when: never, rollout: [5, 100], base_model: smollm2-135m}"),
    suite("training: {examples: [{vars: {ticket: a}, expected: b}]}\ndefaultTest: {assert: [{type: is-json}]}"),
    suite(case="{vars: {a: 1}, assert: [{type: not-equals, value: 0}], must_pass: true, tags: [a], threshold: 0.5}"),
    suite(case="{assert: [{type: is-json, value: {type: object}}, {type: latency, threshold: 100}, {type: cost, threshold: 1}]}"),
    suite(case="{assert: [{type: contains-any, value: [a, 1]}, {type: regex, value: 'a+', weight: 0, metric: m}]}"),
]  # fmt: skip
BAD_SUITES = [
    "tests: []\n",
    "prompt: support.triage\n",
    "prompt: support.triage\ntests: []\n",
    "prompt: Support/Triage\ntests: [" + CASE + "]\n",
    suite("threshold: {pass_rate: 0.9}"),
    suite("thresholds: {pass_rate: 90}"),
    suite("thresholds: {passrate: 0.9}"),
    suite("thresholds: {p95_latency_ms: 0}"),
    suite("gate: {alpha: 0.9}"),
    suite("gate: {min_cases: 1.5}"),
    suite("gate: {margin: 2}"),
    suite("repeat: 0"),
    suite("fallback: {when: always}"),
    suite("fallback: {rollout: []}"),
    suite("fallback: {rollout: [0, 100]}"),
    suite("training: {example: []}"),
    suite("training: {examples: [{vars: {}}]}"),
    suite("defaultTest: {assertions: []}"),
    suite(case="{var: {ticket: x}}"),
    suite(case="{vars: {ticket: x}, assert: [{type: icontain, value: y}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: icontains}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: icontains, value: [a]}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: icontains, value: ''}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: equals, value: a, threshold: 1}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: contains-any, value: a}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: contains-all, value: []}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: regex, value: 7}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: not-is-json, value: text}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: latency}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: cost, threshold: 1, value: 1}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: equals, value: a, weight: -1}]}"),
    suite(case="{vars: {ticket: x}, assert: [{value: y}]}"),
    suite(case="{vars: {ticket: x}, assert: [{type: equals, value: y}], must_pass: 'yes'}"),
    suite(case="{vars: {ticket: x}, assert: [{type: equals, value: y}], threshold: 3}"),
]
GOOD_CONFIGS = [
    CONFIG,
    "models: {a/b: {engine: openai, base_url: 'http://x/v1', price: {input_per_mtok: 1, output_per_mtok: 2}}}\n",
    "models:\nserver: {port: 1, allowed_hosts: [a]}\nstorage: {url: null}\nretention: {request_days: 3}\n",
    "models: {m: {engine: vllm, base_url: 'http://x/v1', tunable: true, source: 'hf:a/b', adapter_dir: /a}}\n",
]
BAD_CONFIGS = [
    "servr: {}\n",
    "server: {port: 70000}\n",
    "server: {workers: 17}\n",
    "retention: {request_days: 0}\n",
    "home: /tmp\nproject: 7\n",
    "models: {Big: {engine: fake}}\n",
    "models: {m: {engine: magic}}\n",
    "models: {m: {engine: local}}\n",
    "models: {m: {engine: openai}}\n",
    "models: {m: {engine: fake, api_key: x}}\n",
    "models: {m: {engine: openai, base_url: 'ftp://x'}}\n",
    "models: {m: {engine: openai, base_url: 'http://x', tunable: true}}\n",
    "models: {m: {engine: fake, price: {input_per_mtok: -1, output_per_mtok: 1}}}\n",
    "models: {m: {engine: fake, context_tokens: 0}}\n",
]
FILES = {
    Kind.PROMPT: ("prompts/support/triage.prompt.yml", GOOD_PROMPTS, BAD_PROMPTS),
    Kind.SUITE: ("suites/support/triage.suite.yml", GOOD_SUITES, BAD_SUITES),
    Kind.CONFIG: ("turnout.yaml", GOOD_CONFIGS, BAD_CONFIGS),
}


def table(good: bool) -> list[Any]:
    return [
        pytest.param(kind, text, id=f"{kind}-{i}")
        for kind in Kind
        for i, text in enumerate(FILES[kind][1 if good else 2])
    ]


def errors_of_check(project: Project, kind: Kind, text: str) -> list[str]:
    """What `check` says of the keys of one file, written into a project of its own."""
    project.write(FILES[kind][0], text)
    arguments = () if kind is Kind.CONFIG else (FILES[kind][0],)  # turnout.yaml is read by every command
    found = project.json("check", *arguments, exit_code=project.run("check", *arguments)[0])["faults"]
    return [fault["message"] for fault in found if fault["level"] == "error"]


@pytest.mark.parametrize(("kind", "text"), table(good=True))
def test_what_check_accepts_the_schema_accepts(workspace: Project, kind: Kind, text: str) -> None:
    assert errors_of_check(workspace, kind, text) == []
    assert problems(kind, load_yaml(text, "x").data) == []


@pytest.mark.parametrize(("kind", "text"), table(good=False))
def test_what_check_refuses_for_its_keys_the_schema_refuses(workspace: Project, kind: Kind, text: str) -> None:
    assert errors_of_check(workspace, kind, text) != []
    assert problems(kind, load_yaml(text, "x").data) != []


VALUES = st.sampled_from([None, True, 0, 0.5, 3, "", "text", "auto", [], ["a"], {}, {"a": "b"}, "file://x.json"])
KEYS = {
    Kind.PROMPT: [*(f.alias or n for n, f in PromptFile.model_fields.items()), "x"],
    Kind.SUITE: [*(f.alias or n for n, f in SuiteHead.model_fields.items()), "x"],
}
BASES = {Kind.PROMPT: PROMPT, Kind.SUITE: SUITE}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_key_that_the_schema_accepts_check_accepts(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(KEYS)))
    changes = data.draw(st.dictionaries(st.sampled_from(KEYS[Kind(kind)]), VALUES, min_size=1, max_size=2))
    document = {**load_yaml(BASES[Kind(kind)], "x").data, **changes}
    if problems(Kind(kind), document):
        return
    unknown = [fault for fault in _faults(Kind(kind), document) if fault.rule in ("unknown-key", "missing-key")]
    assert unknown == []


def _faults(kind: Kind, document: dict[str, Any]) -> tuple[Any, ...]:
    try:
        if kind is Kind.PROMPT:
            load_prompt(json.dumps(document), "x", "x")
        else:
            Suite.from_document(Document("x", document, {(): 1}))
    except BadFile as error:
        return error.faults
    return ()


def test_values_of_cases_may_come_from_files(workspace: Project) -> None:
    workspace.write("suites/answer.txt", "yes\n")
    workspace.write("suites/list.json", '["yes", "no"]')
    workspace.write("suites/case.yaml", "ticket: x\n")
    text = suite(
        case="{vars: file://case.yaml, assert: [{type: equals, value: file://answer.txt},"
        " {type: contains-any, value: file://list.json}]}"
    )
    path = workspace.write("suites/a.suite.yml", text)
    assert load_suite(path, workspace.folder).suite.tests[0].vars == {"ticket": "x"}
    assert problems(Kind.SUITE, load_yaml(text, "x").data) == []
    assert problems(Kind.SUITE, {"prompt": "a", "tests": "file://cases.jsonl"}) == []


def test_it_is_printed_and_written(workspace: Project) -> None:
    assert workspace.json("schema", "prompt") == schema_of(Kind.PROMPT)
    assert json.loads(workspace.run("schema", "config")[1]) == schema_of(Kind.CONFIG)
    code, out, err = workspace.run("schema", "--write", ".turnout")
    assert (code, out, err.count("wrote")) == (0, "", 3)
    assert json.loads((workspace.folder / ".turnout/suite.schema.json").read_text("utf-8")) == schema_of(Kind.SUITE)
    assert workspace.run("schema")[0] == 2
    assert workspace.run("schema", "prompts")[0] == 2
