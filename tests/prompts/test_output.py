from __future__ import annotations

from typing import Any

import pytest

from prompts.errors import BadFile
from prompts.formats.prompt_yml import load_prompt
from prompts.messages import Message
from prompts.output import OutputCheck, repair_messages
from prompts.prompt import PromptContent, compile_prompt

SCHEMA = {"type": "object", "required": ["queue"], "properties": {"queue": {"enum": ["billing", "other"]}}}
FILE = """\
model: m
messages:
  - {role: user, content: hello}
"""


@pytest.mark.parametrize("text", ['{"queue": "billing"}', ' {"queue": "other", "why": 1}\n'])
def test_an_answer_that_fits_has_no_fault(text: str) -> None:
    assert OutputCheck(SCHEMA).fault(text) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("billing", "it is no JSON: Expecting value"),
        ("", "it is no JSON: Expecting value"),
        ('{"queue": NaN}', "it is no JSON: it holds NaN"),
        ("[" * 100_000, "it is no JSON"),
        ("{}", "'queue' is a required property"),
        ('{"queue": "sales"}', "'sales' is not one of ['billing', 'other']"),
        ("[]", "[] is not of type 'object'"),
    ],
)
def test_the_fault_says_what_is_wrong(text: str, fault: str) -> None:
    assert (OutputCheck(SCHEMA).fault(text) or "").startswith(fault)


def test_a_schema_that_is_not_open_to_strangers_judges_nothing() -> None:
    check = OutputCheck({"patternProperties": {"a": {}}})

    assert "patternProperties" in check.unusable
    assert check.fault("no JSON") is None


def test_the_model_is_told_its_answer_and_its_fault() -> None:
    answer, told = repair_messages("{}", "'queue' is a required property")

    assert answer == Message("assistant", "{}")
    assert told.role == "user"
    assert "'queue' is a required property" in str(told.content)


def content(**more: Any) -> PromptContent:
    return PromptContent.model_validate({"messages": [{"role": "user", "content": "hello"}], "model": "m", **more})


def test_a_compiled_prompt_holds_its_parameters_and_its_output_schema() -> None:
    structured = {"response_format": "json_schema", "output_schema": {"name": "route", "schema": SCHEMA}}
    prompt = compile_prompt(content(parameters={"temperature": 0}, **structured))

    assert prompt.output is not None
    assert prompt.output.fault("{}") is not None
    assert prompt.parameters == prompt.content.request_parameters()
    assert compile_prompt(content()).output is None


def test_repair_is_part_of_the_digest_only_where_it_is_used() -> None:
    assert "repair" not in content().model_dump()
    assert content(repair=0).digest == content().digest
    assert content(repair=1).digest != content().digest


def test_a_file_says_how_often_to_repair() -> None:
    text = FILE + "responseFormat: json_schema\njsonSchema: {type: object}\nrepair: 2\n"

    assert load_prompt(text, "a.prompt.yml", "a").content.repair == 2
    assert load_prompt(FILE, "a.prompt.yml", "a").content.repair == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("repair: 4\n", "expected 3 or less"),
        ("repair: -1\n", "expected 0 or more"),
        ("repair: 1\n", "there is no schema that answers could miss"),
        ("responseFormat: json_object\nrepair: 1\n", "there is no schema that answers could miss"),
        ("responseFormat: json_schema\njsonSchema: {patternProperties: {a: {}}}\nrepair: 1\n", "'patternProperties'"),
    ],
)
def test_a_file_whose_repair_cannot_be_is_refused_at_its_line(more: str, message: str) -> None:
    with pytest.raises(BadFile) as caught:
        load_prompt(FILE + more, "a.prompt.yml", "a")

    (fault,) = caught.value.faults
    assert (fault.line, message in fault.message) == (3 + len(more.splitlines()), True)
