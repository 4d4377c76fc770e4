"""One table of parameters holds files, pushes and editors to the same."""

from __future__ import annotations

from typing import Any

import pytest

from prompts.editor_schema import prompt_schema
from prompts.errors import BadFile
from prompts.formats.prompt_yml import load_prompt
from prompts.lint import lint_prompt
from prompts.parameters import ELSEWHERE, OF_GITHUB, PARAMETERS, parameter_faults
from prompts.schemas import Schema

HEAD = "model: m\nmessages: [{role: user, content: 'x {{ a }}'}]\n"
BAD: list[tuple[str, Any]] = [
    ("temperature", "hot"), ("temperature", 2.1), ("temperature", True), ("max_tokens", -5), ("max_tokens", 1.5),
    ("maxTokens", 0), ("top_p", 1.01), ("topP", "1"), ("n", 0), ("n", 2), ("n", True), ("stop", {"a": 1}), ("stop", [1]),
    ("seed", "7"), ("logit_bias", {"5": 101}), ("logprobs", 1), ("top_logprobs", 21), ("presence_penalty", -3),
    ("stream", True), ("model", "gpt-5"), ("messages", []), ("tools", []), ("tool_choice", "auto"), ("response_format", {}),
]  # fmt: skip
GOOD: list[tuple[str, Any]] = [
    ("temperature", 0), ("temperature", 1.5), ("temperature", None), ("max_tokens", 1), ("stop", "."), ("stop", ["a", "b"]),
    ("n", 1), ("seed", -3), ("logit_bias", {"5": -100}), ("top_k", 40), ("guided_json", {"type": "object"}), ("of_ours", 7),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_parameter_that_no_model_takes_is_a_fault_here_and_in_editors(name: str, value: Any) -> None:
    [found] = parameter_faults({name: value})
    assert found.name == name
    assert found.fix
    with pytest.raises(ValueError, match=r"."):
        Schema(prompt_schema()["properties"]["modelParameters"]).check({name: value})


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_parameter_that_models_take_is_none(name: str, value: Any) -> None:
    assert list(parameter_faults({name: value})) == []
    Schema(prompt_schema()["properties"]["modelParameters"]).check({name: value})


def test_a_fault_names_the_value_and_the_fix_at_its_line() -> None:
    with pytest.raises(BadFile) as raised:
        load_prompt(HEAD + "modelParameters:\n  temperature: hot\n  stream: true\n", "p.yml", "p")
    assert [str(fault) for fault in raised.value.faults] == [
        "p.yml:4: modelParameters.temperature: 'hot' is not a number from 0 to 2 (write a number from 0 to 2)",
        "p.yml:5: modelParameters.stream is no parameter of a prompt"
        " (remove it: each request says whether it is answered as a stream)",
    ]


def test_an_unknown_name_is_a_warning_with_the_name_that_was_meant() -> None:
    source = load_prompt(HEAD + "modelParameters: {topp: 1, xtc: 1, top_k: 1}\n", "p.yml", "p")
    assert [str(fault) for fault in lint_prompt(source, source.content)] == [
        "p.yml:3: warning: modelParameters.topp is no parameter of OpenAI's protocol (did you mean 'top_p'?)",
        "p.yml:3: warning: modelParameters.xtc is no parameter of OpenAI's protocol"
        " (mend the name; what the model's server knows may stay)",
    ]


def test_editors_know_every_parameter() -> None:
    known = prompt_schema()["properties"]["modelParameters"]["properties"]
    assert known.keys() == {*PARAMETERS, *OF_GITHUB, *ELSEWHERE}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("required", "toolChoice: required, and there are no `tools`"),
        ("{type: function, function: {name: f}}", "toolChoice: `tools` does not declare 'f'"),
        ("{type: function, function: {}}", "toolChoice: no choice of a tool"),
    ],
)
def test_a_tool_choice_names_a_tool_that_there_is(choice: str, message: str) -> None:
    with pytest.raises(BadFile) as raised:
        load_prompt(f"{HEAD}toolChoice: {choice}\n", "p.yml", "p")
    assert raised.value.faults[0].message.startswith(message)
