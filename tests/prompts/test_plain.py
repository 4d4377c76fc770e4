"""Templates of text and `{{ name }}` alone give, filled by joining, what Jinja2 gives: text, budget and errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts import template as module
from prompts.errors import BudgetExceeded, MissingVariable, RenderError
from prompts.segments import segments
from prompts.template import MAX_OUTPUT_CHARACTERS, Template, one_budget

PIECES = st.sampled_from(
    ["Hello ", "{{ a }}", "{{b}}", "{{- a -}}", "\n", "{# note #}", "{% raw %}{{ a }}{% endraw %}", "ü"]
)
VALUES = st.fixed_dictionaries({name: st.text(max_size=250) for name in "ab"})


def rendered(template: Template, values: dict[str, Any], plain: bool) -> tuple[str, int, int]:
    """The text, and what is left of the budget's steps and characters."""
    parts = template.plain
    template.plain = parts if plain else None
    try:
        with one_budget():
            text = template.render(values)
            budget = module._budget_under_way()
            return text, budget.steps, budget.characters
    finally:
        template.plain = parts


@given(st.lists(PIECES, max_size=6).map("".join), VALUES)
def test_text_and_budget_are_those_of_jinja2(source: str, values: dict[str, str]) -> None:
    template = Template(source)
    assert template.plain is not None
    assert rendered(template, values, plain=True) == rendered(template, values, plain=False)


@pytest.mark.parametrize(
    "source", ["{{ a|upper }}", "{{ a.b }}", "{% if a %}x{% endif %}", "{{ 'a' }}", "{{ varargs }}", "{{ range(2) }}"]
)
def test_what_is_more_than_plain_is_left_to_jinja2(source: str) -> None:
    assert Template(source).plain is None


def test_values_that_are_no_text_print_as_before() -> None:
    assert Template("{{ a }}, {{ b }}").render({"a": 1.0, "b": None}) == "1.0, None"


def test_a_missing_value_and_half_a_character_are_refused_as_before() -> None:
    with pytest.raises(MissingVariable, match="'a' is undefined"):
        Template("{{ a }}").render({})
    with pytest.raises(RenderError, match="half a character"):
        Template("{{ a }}").render({"a": "\ud83d"})


def test_a_prompt_that_gives_too_much_is_refused_as_before() -> None:
    template = Template("{{ a }}")
    with one_budget():
        assert len(template.render({"a": "x" * MAX_OUTPUT_CHARACTERS})) == 2_097_152
        with pytest.raises(BudgetExceeded, match="more than 2,097,152 characters"):
            template.render({"a": "x"})


def test_code_is_made_of_a_plain_template_only_where_a_value_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = module._code
    monkeypatch.setattr(module, "_code", lambda *given: made.append(given) or make(*given))
    template = Template("Team 7 {{ a }} reads this alone")

    assert template.names == {"a"}
    assert template.render({"a": "x"}) == "Team 7 x reads this alone"
    assert not made
    assert [template.render({"a": 7}), template.render({"a": None})] == [
        "Team 7 7 reads this alone",
        "Team 7 None reads this alone",
    ]
    assert len(made) == 1


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_plain_template_uses_the_names_that_its_code_asks_for(source: str) -> None:
    undeclared, _ = module.generated(module.syntax_tree(source), module._environment)
    assert Template(source).names == undeclared


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_client_is_given_the_pieces_that_jinja2_reads(source: str) -> None:
    template = Template(source)
    known = segments(template)
    template.plain = None
    assert known == segments(template)
