from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.formats.writing import prompt_text
from prompts.yaml_source import load_yaml

KEYS = {
    "messages": [
        {"role": "system", "content": "Two lines,\n  one indented\n\nand a last\n"},
        {"placeholder": "history"},
        {"role": "user", "content": [{"type": "text", "text": "{{ q }}"}]},
    ],
    "variables": {"q": {"type": "string", "description": "what is asked: briefly"}, "count": {}},
    "model": "m",
    "name": "A title",
    "tags": ["a", "b, c", "no"],
    "modelParameters": {"temperature": 0.5, "stop": None},
}
TEXT = """\
name: A title
tags: [a, "b, c", "no"]
model: m
modelParameters: {temperature: 0.5, stop: null}
variables:
  q: {type: string, description: "what is asked: briefly"}
  count: {}
messages:
  - role: system
    content: |
      Two lines,
        one indented

      and a last
  - placeholder: history
  - role: user
    content:
      - type: text
        text: "{{ q }}"
"""

MARKS = "ab ,:-{}[]#&*!|>'\"%@`\n\t~?=<1."
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(MARKS, max_size=8)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT
)
DATA = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=12,
)


def test_a_prompt_file_is_written_as_an_author_would():
    assert prompt_text(KEYS) == TEXT


def test_line_ends_and_blanks_at_either_end_of_a_text_stay():
    for text in ("  a\nb", "\na\n", "a\n\n\n", "a \n b\n", "\n", " \n ", "a\r\nb", "a\tb\n\tc\n", "é\u2028ü\n"):
        assert load_yaml(prompt_text({"x": text}), "p").data == {"x": text}


@settings(deadline=None)
@given(st.dictionaries(ANY_TEXT, DATA, min_size=1, max_size=4))
def test_whatever_is_written_reads_back_as_it_was(data):
    assert load_yaml(prompt_text(data), "p").data == data
