"""Chat templates of strangers: rendered as transformers renders them, without what could hang or spy."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from prompts.chat_template import render_chat
from prompts.errors import BadInput

MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Ünïcode & <b>\n"},
    {"role": "assistant", "content": "<think>hm</think>\n\nYes"},
    {"role": "user", "content": "And now?"},
]
TALK = MESSAGES[1:]  # of those whose templates have no place for a system message
# the parts of the families' templates that need more than text and loops
LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{% set system_message = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" + date_string + system_message + eos_token }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.tool_calls|length != 1 %}{{- raise_exception("one tool call!") }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{% endif %}"""
QWEN = """\
{%- if tools %}{{- tools|tojson }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<t>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {%- set reasoning = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
        {{- '<|im_start|>' + message.role + '\\n' + reasoning.strip('\\n') + content + ns.last_query_index|string }}
        {%- if message.tool_calls %}{{- message.tool_calls | tojson }}{%- endif %}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content.replace('<', '[') ~ '<|im_end|>' ~ '\\n' }}
    {%- endif %}
{%- endfor %}
{{- {'b': 1, 'a': '<&>'} | tojson }}{{- {'b': [1]} | tojson(indent=2) }}
{%- if enable_thinking is defined and enable_thinking is false %}no{%- endif %}"""
GEMMA = """\
{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("alternate!") }}{%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (message['content'] | trim if message['content'] is string else '') }}
    {%- if loop.last %}{% break %}{% endif %}
{%- endfor -%}"""
PHI = """\
{% for message in messages %}
    {% if message['role'] in ['system', 'user'] %}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
    {% else %}
{% generation %}{% set seen = true %}{{ message.content.split('</think>') | last }}{% endgeneration %}
    {% endif %}
{% endfor %}
{% if seen is defined %}leaked{% endif %}{{ unknown }}{{ messages[0].nothing.more if messages[0].nothing else 'none' }}
"""
FAMILIES = {"llama": (LLAMA, MESSAGES), "qwen": (QWEN, MESSAGES), "gemma": (GEMMA, TALK), "phi": (PHI, MESSAGES)}


def tokenizer(template: Any) -> Any:
    return SimpleNamespace(chat_template=template, special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.integration
@pytest.mark.parametrize("opens_answer", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_gives_the_text_that_transformers_gives(family: str, opens_answer: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template, messages = FAMILIES[family]
    named = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": opens_answer}
    (expected,), _ = render_jinja_template([messages], chat_template=template, **named)
    assert len(expected) > 50
    assert render_chat(tokenizer(template), messages, opens_answer=opens_answer) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__ }}", "'__class__' is not open"),
        ("{{ ''['__cla' ~ 'ss__'] }}", "'__class__' of str is not open"),
        ("{{ messages.append(1) }}", "attribute 'append' of list is not open"),
        ("{{ messages[0].content.format(messages) }}", "attribute 'format' of str is not open"),
        ("{{ '' | attr('__class__') }}", "No filter named 'attr'"),
        ("{{ raise_exception.__globals__ }}", "'__globals__' is not open"),
        ("{{ dict }}", "a function is no text"),
        ("{% include 'x' %}", "include"),
        ("{% for %}", "the model's chat template is none: line 1"),
    ],
)
def test_a_template_reaches_nothing_but_the_messages(template: str, said: str) -> None:
    with pytest.raises(BadInput, match="chat template") as refused:
        render_chat(tokenizer(template), MESSAGES, opens_answer=True)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{% set ns = namespace(a='aaaaaaaa') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ [messages] | tojson(indent=10 ** 9) }}",
        "{{ 2 ** 9999 ** 9999 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}",
    ],
)
def test_a_template_cannot_hang_the_engine_or_fill_its_memory(template: str) -> None:
    started = time.process_time()
    with pytest.raises(BadInput, match="the model's chat template"):
        render_chat(tokenizer(template), MESSAGES, opens_answer=True)
    assert time.process_time() - started < 2.0


def test_a_conversation_of_a_thousand_messages_is_no_attack() -> None:
    messages = [{"role": ("user", "assistant")[number % 2], "content": "hello " * 20} for number in range(1000)]
    assert render_chat(tokenizer(QWEN), messages, opens_answer=True).count("hello") == 30_000  # answers twice


def test_what_a_template_refuses_is_said_in_its_words() -> None:
    with pytest.raises(BadInput, match=r"refused the messages.*System role not supported"):
        render_chat(tokenizer(GEMMA), MESSAGES, opens_answer=True)


@pytest.mark.parametrize("template", [None, "", {"tool_use": "x"}])
def test_without_a_template_the_setting_that_gives_one_is_named(template: Any) -> None:
    with pytest.raises(BadInput, match=r"no chat template.*`chat_template` of the model in turnout\.yaml"):
        render_chat(tokenizer(template), MESSAGES, opens_answer=True)


def test_of_several_templates_the_default_is_taken() -> None:
    named = {"tool_use": "tools", "default": "{{ messages | length }}"}
    assert render_chat(tokenizer(named), MESSAGES, opens_answer=True) == "4"
