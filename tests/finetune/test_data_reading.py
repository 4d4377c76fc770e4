"""Files of examples: ours, and OpenAI's chat messages read back into a prompt's variables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import Example, digest, parse_examples, read_examples
from prompts.errors import BadFile
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt


def ticket(text: str, expected: str = "billing") -> Example:
    return Example({"ticket": text}, expected)


def test_examples_are_read_one_a_line():
    lines = ['{"vars": {"ticket": "I was charged twice"}, "expected": "billing"}\n', "\n"]
    assert parse_examples(lines, "train.jsonl") == [ticket("I was charged twice")]


def test_all_faults_of_a_file_are_reported_together_with_line_and_fix():
    lines = [
        "not json",
        '{"vars": {"ticket": "a"}, "expected": "x"}',
        '{"vars": [], "expected": 7, "label": "x"}',
        '{"expected": "  "}',
        "[]",
    ]
    with pytest.raises(BadFile) as caught:
        parse_examples(lines, "train.jsonl")
    faults = caught.value.faults
    assert [(fault.path, fault.line) for fault in faults] == [
        ("train.jsonl", 1),
        ("train.jsonl", 3),
        ("train.jsonl", 3),
        ("train.jsonl", 3),
        ("train.jsonl", 4),
        ("train.jsonl", 4),
        ("train.jsonl", 5),
    ]
    assert {fault.message for fault in faults if fault.line == 3} == {
        "unknown key 'label'",
        "`vars` is an object, not a list",
        "`expected` is a text, not a number",
    }
    assert {fault.message for fault in faults if fault.line == 4} == {"missing key 'vars'", "`expected` is empty"}
    assert all(fault.fix for fault in faults)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"vars": {"ticket": "a"}, "expected": "x", "expected": "y"}', "duplicate key 'expected'"),
        ('{"vars": {"ticket": "a", "ticket": "b"}, "expected": "x"}', "duplicate key 'ticket'"),
        ('{"vars": {"ticket": NaN}, "expected": "x"}', "NaN is not JSON"),
        ('{"vars": {"ticket": 1e400}, "expected": "x"}', "1e400 is a number out of range"),
        (r'{"vars": {"ticket": "a"}, "expected": "half \ud83d"}', "half of a pair"),
        (r'{"vars": {"half \ud83d": "a"}, "expected": "x"}', "half of a pair"),
    ],
)
def test_a_line_that_could_mean_two_things_is_a_fault(line, message):
    with pytest.raises(BadFile) as caught:
        parse_examples(['{"vars": {"ticket": "a"}, "expected": "x"}', f"{line}\n"], "train.jsonl")
    [fault] = caught.value.faults
    assert (fault.line, message in fault.message) == (2, True)


def test_no_depth_of_nesting_is_more_than_a_fault():
    values = ["[" * depth + "]" * depth for depth in range(500, 1_100, 5)]
    lines = [f'{{"vars": {{"ticket": {value}}}, "expected": "x"}}' for value in values]
    with pytest.raises(BadFile) as caught:
        parse_examples(lines, "train.jsonl")
    assert {fault.message for fault in caught.value.faults} == {"JSON nested too deeply"}


def test_a_chat_line_with_half_a_character_is_a_fault():
    line = r'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ud83d"}]}'
    with pytest.raises(BadFile, match="half of a pair"):
        read_examples([line], "chat.jsonl", prompt_of({"role": "user", "content": "{{ ticket }}"}))


def test_a_file_without_examples_is_a_fault():
    with pytest.raises(BadFile, match="no examples"):
        parse_examples(["\n"], "train.jsonl")


def test_digest_depends_on_content_not_on_the_order_of_keys():
    one, other = Example({"a": 1, "b": 2}, "x"), Example({"b": 2, "a": 1}, "x")
    assert digest([one]) == digest([other])
    assert digest([one]).startswith("sha256:")
    assert digest([one, ticket("b")]) != digest([ticket("b"), one])


# ---- OpenAI's chat form

SYSTEM = {"role": "system", "content": "Name the queue."}


def prompt_of(*messages: dict[str, Any], **content: Any) -> CompiledPrompt:
    content.setdefault("variables", {"ticket": {"type": "string", "maxLength": 200}})
    return compile_prompt(PromptContent(messages=messages, model="m", **content))


TRIAGE = prompt_of(SYSTEM, {"role": "user", "content": "Ticket: {{ ticket }}\n"})


def chat(*pairs: tuple[str, Any], **extra: Any) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs], **extra})


def faults_of(lines: list[str], prompt: CompiledPrompt | None = TRIAGE, **options: Any) -> list[tuple[int, str]]:
    with pytest.raises(BadFile) as caught:
        read_examples(lines, "chat.jsonl", prompt, **options)
    return [(fault.line, fault.message) for fault in caught.value.faults]


ASKED = (("system", "Name the queue."), ("user", "Ticket: It broke"))


def test_chat_messages_become_the_variables_of_the_prompt():
    lines = [
        chat(*ASKED, ("assistant", "returns")),
        "",
        chat(*ASKED[:1], ("user", "Ticket: Hi\n"), ("assistant", "sales")),
    ]
    assert read_examples(lines, "chat.jsonl", TRIAGE) == [ticket("It broke", "returns"), ticket("Hi", "sales")]


def test_text_parts_and_weights_of_one_are_read():
    parts = [{"type": "text", "text": "Ticket: "}, {"type": "text", "text": "It broke"}]
    line = json.dumps({"messages": [SYSTEM, {"role": "user", "content": parts},
                                    {"role": "assistant", "content": "returns", "weight": 1}]})  # fmt: skip
    assert read_examples([line], "chat.jsonl", TRIAGE) == [ticket("It broke", "returns")]


def test_another_system_message_is_refused_unless_it_is_ignored():
    lines = [chat(("system", "Be nice."), ("user", "Ticket: It broke"), ("assistant", "returns"))]
    assert faults_of(lines) == [
        (1, "messages[0]: the system message differs from the prompt's: make them the same, "
            "or leave system messages out with --ignore-system")
    ]  # fmt: skip
    assert read_examples(lines, "chat.jsonl", TRIAGE, ignore_system=True) == [ticket("It broke", "returns")]
    without = [chat(("user", "Ticket: It broke"), ("assistant", "returns"))]
    assert "--ignore-system" in faults_of(without)[0][1]
    assert read_examples(without, "chat.jsonl", TRIAGE, ignore_system=True) == [ticket("It broke", "returns")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "an example is an object"),
        ('{"messages": []}', "`messages` is not a list with messages in it"),
        (chat(*ASKED), "the last message is the user's"),
        (chat(*ASKED, ("assistant", " ")), "the answer is empty"),
        (chat(*ASKED, ("assistant", "x"), ("user", "y"), ("assistant", "z")), "before the answer stand"),
        (
            chat(("system", "Name the queue."), ("user", "It broke"), ("assistant", "x")),
            "not what the prompt's template",
        ),
        (chat(*ASKED, ("assistant", None)), "messages[2]: `content` is not text"),
        (chat(*ASKED, ("assistant", "x"), metadata={}), "unknown key 'metadata'"),
        (chat(*ASKED, ("assistant", "x"), tools=[{"type": "function"}]), "`tools` are not those of the prompt"),
        (chat(*ASKED[:1], ("user", "Ticket: " + "a" * 201), ("assistant", "x")), "201 characters"),
        ('{"input": {}, "preferred_output": [], "non_preferred_output": []}', "(DPO)"),
        ('{"prompt": "a", "completion": "b"}', "OpenAI's old form"),
        ('{"messages": [{"role": "assistant", "content": "x", "weight": 0}]}', "weight 0"),
        ('{"messages": [{"role": "assistant", "content": "x", "weight": 2}]}', "`weight` is 2"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{}]}]}', "call tools"),
        ('{"messages": [{"role": "user", "content": "x", "name": "Al"}]}', "unknown key 'name'"),
        ('{"vars": {}, "expected": "x"}', "this line has vars and expected, and line 1, the first, has chat messages"),
    ],
)
def test_each_bad_chat_line_is_named(line, message):
    good = chat(*ASKED, ("assistant", "returns"))
    found = faults_of([good, line, good, "{"])
    assert [number for number, _ in found] == [2, 4]
    assert message in found[0][1]


def test_a_chat_line_in_a_file_of_variables_is_refused_with_all_other_faults():
    lines = [
        '{"vars": {"ticket": "a"}, "expected": "x"}',
        chat(*ASKED, ("assistant", "x")),
        '{"vars": 1, "expected": "x"}',
    ]
    assert [number for number, _ in faults_of(lines, None)] == [2, 3]
    assert read_examples(lines[:1], "train.jsonl", None) == [ticket("a", "x")]


def test_few_shot_examples_may_stand_in_the_file_or_be_left_out():
    prompt = prompt_of(
        SYSTEM, {"role": "user", "content": "{{ ticket }}"}, examples=[{"vars": {"ticket": "a"}, "expected": "b"}]
    )
    shots = (("user", "a"), ("assistant", "b"))
    for given_shots in (shots, ()):
        line = chat(ASKED[0], *given_shots, ("user", "It broke"), ("assistant", "returns"))
        assert read_examples([line], "chat.jsonl", prompt) == [ticket("It broke", "returns")]
    wrong = chat(ASKED[0], ("user", "c"), ("assistant", "b"), ("user", "It broke"), ("assistant", "returns"))
    assert faults_of([wrong], prompt) == [(1, "messages[1]: the user message differs from the prompt's")]


TWO = {"a": {"type": "string"}, "b": {"type": "string"}}
PAIR = prompt_of({"role": "user", "content": "A: {{ a }}\nB: {{ b }}"}, variables=TWO)


def test_a_message_that_can_be_split_in_two_ways_is_refused():
    line = chat(("user", "A: one\nB: two\nB: three"), ("assistant", "x"))
    assert "in more than one way" in faults_of([line], PAIR)[0][1]


@given(st.text(alphabet="AB: \nxy", max_size=12), st.text(alphabet="AB: \nxy", max_size=12))
def test_what_is_read_back_is_what_was_rendered_or_is_refused(a, b):
    rendered = PAIR.render({"a": a, "b": b})[0].content
    line = chat(("user", rendered), ("assistant", "x"))
    if rendered.count("\nB: ") > 1:
        assert "in more than one way" in faults_of([line], PAIR)[0][1]
    else:
        assert read_examples([line], "chat.jsonl", PAIR) == [Example({"a": a, "b": b}, "x")]


def test_a_variable_of_two_messages_has_one_value():
    prompt = prompt_of({"role": "system", "content": "About {{ a }}."}, {"role": "user", "content": "{{ a }}: {{ b }}"},
                       variables=TWO)  # fmt: skip
    line = chat(("system", "About x: y."), ("user", "x: y: z"), ("assistant", "x"))
    assert read_examples([line], "chat.jsonl", prompt) == [Example({"a": "x: y", "b": "z"}, "x")]
    other = chat(("system", "About x."), ("user", "y: z"), ("assistant", "x"))
    assert "not what the prompt's template renders" in faults_of([other], prompt)[0][1]


@pytest.mark.parametrize(
    ("template", "variables", "reason"),
    [
        ("{% if a %}{{ a }}{% endif %}", {"a": {"type": "string"}}, "loops, conditions or filters"),
        ("{{ a | upper }}", {"a": {"type": "string"}}, "loops, conditions or filters"),
        ("{{ a }}{{ b }}", TWO, "side by side"),
        ("{{ a }}", TWO, "'b' stands in no message"),
        ("{{ a }}", {"a": {"type": "integer"}}, "'a' is not plain text"),
    ],
)
def test_a_prompt_that_cannot_be_read_backwards_is_refused_with_the_reason(template, variables, reason):
    prompt = prompt_of({"role": "user", "content": template}, variables=variables)
    found = faults_of([chat(("user", "x"), ("assistant", "y"))] * 2, prompt)
    assert len(found) == 1
    assert reason in found[0][1]
    assert '{"vars": {…}, "expected": "…"}' in found[0][1]


def test_chat_files_need_a_prompt():
    assert "none is given" in faults_of([chat(*ASKED, ("assistant", "x"))], None)[0][1]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_file():
    line = chat(*ASKED, ("assistant", "returns"))
    assert read_examples(["\ufeff" + '{"vars": {"ticket": "a"}, "expected": "x"}'], "t.jsonl", None) == [
        ticket("a", "x")
    ]
    assert read_examples(["\ufeff" + line], "t.jsonl", TRIAGE) == [ticket("It broke", "returns")]
    assert read_examples(["\ufeff", '{"vars": {"ticket": "a"}, "expected": "x"}'], "t.jsonl", None) == [
        ticket("a", "x")
    ]
