"""JSON that could mean two things to two readers is refused, however large it is."""

from __future__ import annotations

import json
import re

import pytest

from prompts.strict_json import STRICT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "duplicate key 'b'"),
        (r'{"a": 1, "\u0061": 2}', "duplicate key 'a'"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e400]", "1e400 is a number out of range"),
    ],
)
def test_what_means_two_things_or_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        STRICT.decode(text)


def test_a_key_that_stands_twice_is_found_among_very_many() -> None:
    keys = ", ".join(f'"{number}": 1' for number in range(300_000))
    with pytest.raises(ValueError, match="duplicate key 'twice'"):
        STRICT.decode(f'{{{keys}, "twice": 1, "twice": 2}}')


def test_all_else_is_read_as_json_is() -> None:
    text = '{"a": [1, 2.5, 1e300, -0.0, null, true, "NaN", {"a": {}}], "b": {"a": 12345678901234567890123}}'
    assert STRICT.decode(text) == json.loads(text)
