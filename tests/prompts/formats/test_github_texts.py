"""GitHub's prompt files are read as GitHub reads them: `{{name}}` is filled in, the rest is text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadFile
from prompts.formats.export import github
from prompts.formats.github_texts import as_template, as_text, is_github
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.writing import prompt_text
from prompts.prompt import compile_prompt
from prompts.template import Template


def file_of(content: str, more: str = "") -> str:
    return f"model: m\nmessages:\n  - role: user\n    content: {content!r}\n{more}"


def rendered(content: str, more: str = "", **variables: str) -> object:
    source = load_prompt(file_of(content, more), "p.prompt.yml", "p")
    return compile_prompt(source.content).render(variables)[0].content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Format {# not a comment #} as {{input}}", "Format {# not a comment #} as J"),
        ("{% done %} {{ input }}", "{% done %} J"),
        ("CSS {#id} a { color } {{input}}", "CSS {#id} a { color } J"),
        ("100{%} {{input}}", "100{%} J"),
        ("{{ input | upper }} {#", "J {#"),
    ],
)
def test_what_opens_a_comment_or_a_block_of_jinja2_is_text(content: str, expected: str) -> None:
    assert rendered(content, input="J") == expected


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("a{# gone #}b{{ input }}", "tags: [x]\n"),
        ("a{# gone #}b{{ input }}", "variables: {input: {type: string}}\n"),
        ("a{# gone #}{% if input %}b{{ input }}{% endif %}", ""),
        ("a{# gone #}{%- set x = input %}b{{ x }}", ""),
    ],
)
def test_a_file_with_a_key_of_ours_or_a_statement_is_jinja2_s(content: str, more: str) -> None:
    assert rendered(content, more, input="J") == "abJ"


def test_names_that_jinja2_would_compute_with_are_refused_all_at_once() -> None:
    with pytest.raises(BadFile) as raised:
        load_prompt(file_of("{{my-var}} {{ user.name }} {{1}} {{my var}} {{ok}}"), "p.yml", "p")
    assert [str(fault) for fault in raised.value.faults] == [
        "p.yml:4: a variable's name has letters, digits and _ alone, not first a digit: write 'my_var' for 'my-var', write"
        " 'user_name' for 'user.name', write 'v1' for '1', write 'my_var' for 'my var'"
        " (rename it in the messages and in `testData`)"
    ]


def test_a_file_is_exported_as_it_was_read() -> None:
    text = file_of("Format {# a #} {% b %} {{ input }}")
    exported = github(load_prompt(text, "p.yml", "p").content)
    assert exported.keys["messages"] == [{"role": "user", "content": "Format {# a #} {% b %} {{ input }}"}]
    assert exported.left_out == ()


def test_an_export_with_statements_keeps_spelt_out_openers() -> None:
    text = file_of("{{ '{#' }} {% if a %}x{% endif %}", "tags: [x]\n")
    content = load_prompt(text, "p.yml", "p").content
    again = load_prompt(prompt_text(github(content).keys), "p.yml", "p").content
    assert compile_prompt(again).render({"a": "1"}) == compile_prompt(content).render({"a": "1"})


@given(st.text(st.sampled_from("{%# }ax")))
def test_text_without_substitutions_renders_as_itself(text: str) -> None:
    if "{{" not in text and is_github({"messages": [{"content": text}]}):
        assert Template(as_template(text)).render({}) == text
        assert as_text(as_template(text)) == text
