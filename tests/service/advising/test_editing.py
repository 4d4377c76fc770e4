"""A prompt's file with more in it: what its author wrote stays as it is, byte for byte."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from prompts.yaml_source import load_yaml
from service.advising.editing import NotEditable, edited

SHOTS: list[dict[str, Any]] = [
    {"vars": {"ticket": "refund"}, "expected": "billing"},
    {"vars": {"ticket": "on: two\nlines"}, "expected": "yes"},
]
PLAIN = """\
# the triage of support
name: Triage   # a title
model: small
messages:
  - role: system
    content: |
      Route it.

      {% include 'tone' %}

# what follows is not for the model
labels: [staging]
"""


def added(before: str, after: str) -> list[str]:
    """The lines that are new; fails where one is gone."""
    lines = [line for line in difflib.ndiff(before.split("\n"), after.split("\n")) if line[0] in "+-"]
    assert all(line[0] == "+" for line in lines), lines
    return [line[2:] for line in lines]


def data(text: str) -> Any:
    return load_yaml(text, "a file").data


def test_examples_and_parameters_are_added_behind_the_keys_they_go_with():
    found = edited(PLAIN, {"temperature": 0}, SHOTS)
    assert found == PLAIN.replace("model: small\n", "model: small\nmodelParameters: {temperature: 0}\n").replace(
        "{% include 'tone' %}\n",
        """\
{% include 'tone' %}
examples:
  - vars: {ticket: refund}
    expected: billing
  - vars:
      ticket: |-
        on: two
        lines
    expected: "yes"
""",
    )
    assert data(found) == {**data(PLAIN), "modelParameters": {"temperature": 0}, "examples": SHOTS}


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("{temperature: 0.7, maxTokens: 9}  # warm", "{temperature: 0, maxTokens: 24, top_p: 0.5}  # warm"),
        ('{"temperature": 0.7}', '{"temperature": 0, "max_tokens": 24, "top_p": 0.5}'),
        ("{ }", "{temperature: 0, max_tokens: 24, top_p: 0.5 }"),
        ("\n  temperature:   # warm\n  seed: 7 # ours\n", "\n  temperature: 0   # warm\n  seed: 7 # ours\n"
         "  max_tokens: 24\n  top_p: 0.5\n"),
        ("\n    seed: 7\n    stop:\n    - a\n\n# next", "\n    seed: 7\n    stop:\n    - a\n"
         "    temperature: 0\n    max_tokens: 24\n    top_p: 0.5\n\n# next"),
    ],
)  # fmt: skip
def test_a_parameter_is_changed_where_it_stands_and_another_is_added_behind_them(written: str, becomes: str):
    text = PLAIN.replace("messages:", "modelParameters: {}\nmessages:")
    before, after = text.replace("{}", written), text.replace("{}", becomes)
    assert edited(before, {"temperature": 0, "max_tokens": 24, "top_p": 0.5}, ()) == after


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("[]", '[{"vars": {"ticket": "a\\u2028b"}, "expected": "x"}]'),
        ("[{expected: y}, # first\n  ]", '[{expected: y}, {"vars": {"ticket": "a\\u2028b"}, "expected": "x"}, # first\n  ]'),
        ("\n- expected: y  # first\n\n# end", '\n- expected: y  # first\n- vars: {ticket: "a\\u2028b"}\n  expected: x\n\n# end'),
        ("\n    -\n      expected: >+\n        y\n", '\n    -\n      expected: >+\n        y\n\n'
         '    - vars: {ticket: "a\\u2028b"}\n      expected: x'),
    ],
)  # fmt: skip
def test_examples_are_added_behind_those_that_there_are_in_their_way_of_writing(written: str, becomes: str):
    text = PLAIN.replace("labels:", "examples: []\nlabels:")
    before, after = text.replace("[]", written), text.replace("[]", becomes)
    assert edited(before, {}, [{"vars": {"ticket": "a\u2028b"}, "expected": "x"}]) == after


def test_ends_of_lines_are_those_of_the_file():
    text = PLAIN.replace("\n", "\r\n")
    found = edited(text, {}, SHOTS[:1])
    assert found.count("\r\n") == found.count("\n") == PLAIN.count("\n") + 3


def test_a_file_without_a_last_end_of_line_gets_one_before_what_is_added():
    text = "model: small\nmessages: [{role: user, content: hi}]"
    assert edited(text, {}, SHOTS[:1]).startswith(f"{text}\nexamples:\n  - vars: {{ticket: refund}}\n")


def test_json_stays_json():
    text = '{"model": "small", "messages": [{"role": "user", "content": "{{ ticket }}"}], "labels": []}\n'
    found = edited(text, {"temperature": 0}, SHOTS[:1])
    assert found == (
        '{"model": "small", "modelParameters": {"temperature": 0}, "messages": [{"role": "user", "content": "{{ ticket }}"}], '
        '"examples": [{"vars": {"ticket": "refund"}, "expected": "billing"}], "labels": []}\n'
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model: m\nmodelParameters: {stop: &s [a]}\ntags: *s\nmessages: []\n", "YAML"),
        (
            "model: m\nmodelParameters:\n  stop:\n  - a # first\nmessages: []\n",
            "line 4: the value is written on several",
        ),
        (
            "model: m\nmodelParameters: {stop: [a, # first\n  b]}\nmessages: []\n",
            "line 2: the value is written on several",
        ),
        ("model: m\nmessages: []\nexamples: &e\n- expected: y\n", "line 3: examples have an anchor"),
        ("model: m\nmessages:\n- role: user\n  content: |\n    hi", "with them messages would change, too"),
    ],
)
def test_what_cannot_be_added_to_is_refused_with_its_place(text: str, why: str):
    with pytest.raises(NotEditable, match=why):
        edited(text, {"stop": ["b"]}, SHOTS[:1])


def test_nothing_but_what_is_added_is_new():
    assert added(PLAIN, edited(PLAIN, {"top_p": 0.5}, SHOTS[:1])) == [
        "modelParameters: {top_p: 0.5}", "examples:", "  - vars: {ticket: refund}", "    expected: billing",
    ]  # fmt: skip
