import contextlib
import time

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document, load_yaml, parse_model, suggest


def faults_of(text):
    with pytest.raises(BadFile) as raised:
        load_yaml(text, "f.yml")
    return [str(fault) for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("3:00", "3:00"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("0x1F", "0x1F"), (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("'true'", "true"), ('"7"', "7"),
        ("7", 7), ("-7", -7), ("+7", 7), ("007", 7), ("7.5", 7.5), (".5", 0.5), ("1e3", 1000.0), ("7.", 7.0),
        ("9" * 500, "9" * 500), ("|\n a\n b", "a\nb"), (">\n a\n b", "a b"),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(scalar, value):
    found = load_yaml(f"key: {scalar}", "f.yml").data["key"]
    assert (found, type(found)) == (value, type(value))


def test_every_value_knows_its_line():
    document = load_yaml("a:\n  - b: 1\n    c:\n      d: 2\n  - 3\ne: 4\n", "f.yml")
    assert document.data == {"a": [{"b": 1, "c": {"d": 2}}, 3], "e": 4}
    places = [("a",), ("a", 0), ("a", 0, "c"), ("a", 0, "c", "d"), ("a", 1), ("e",)]
    assert [document.line(*place) for place in places] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("held", ["", "\ue000\ue001", "".join(map(chr, range(0xE000, 0xF8FF)))])
def test_a_pasted_separator_of_lines_is_text_as_in_json(sign, held):
    text = f'a: x{sign}y # {sign} z\nb: "q{sign}r {held}"\nc: |\n  s\n  t{sign}u\nd: [v{sign}w]\nk{sign}: 1\ne: 2\n'
    document = load_yaml(text, "f.yml")
    key = f"k{sign}"
    assert document.data == {
        "a": f"x{sign}y", "b": f"q{sign}r {held}", "c": f"s\nt{sign}u\n", "d": [f"v{sign}w"], key: 1, "e": 2
    }  # fmt: skip
    assert [document.line(*place) for place in (("b",), ("d", 0), (key,), ("e",))] == [2, 6, 7, 8]


def test_a_character_that_is_written_as_an_escape_stays_beside_a_separator_of_lines():
    assert load_yaml('a: "\\uE000 \\U0000e001"\nb: x\u2028y', "f.yml").data == {"a": "\ue000 \ue001", "b": "x\u2028y"}


def test_a_text_that_leaves_no_sign_for_separators_of_lines_is_read_or_refused():
    with contextlib.suppress(BadFile):
        load_yaml("a: " + "".join(map(chr, range(0xE000, 0xF900))) + "\u2028b: 1", "f.yml")


def test_what_a_file_does_not_have_stands_where_its_nearest_parent_does():
    document = load_yaml("a:\n  b:\n    c: 1\n", "f.yml")
    assert document.line("a", "b", "gone", 7) == 2
    assert document.fault("what", "a", "b", "c", fix="how") == Fault("f.yml", 3, "what", "how")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1\nb: 2", "f.yml:2: not valid YAML: did not find expected ',' or ']'"),
        ("a: 'x", "f.yml:1: not valid YAML: found unexpected end of stream"),
        ("a: b: c", "f.yml:1: not valid YAML: mapping values are not allowed in this context"),
        ("a:\n\t- 1", "f.yml:2: not valid YAML: found character that cannot start any token"),
        ("a: 1\n---\nb: 2", "f.yml:2: not valid YAML: but found another document"),
        ("a: *gone", "f.yml:1: not valid YAML: found undefined alias"),
        ("a: 1\nb: \0", "f.yml:2: the file holds a NUL byte"),
        ('a: 1\nb: "x\\0y"', "f.yml:2: the text holds a NUL character"),
        ("a: 1\nb: \ud800", "f.yml:2: the file holds half a character"),
        ("a: 1\nb: \x07", "f.yml:2: the file holds the control character U+0007 (remove it, or write it as an escape"),
        ("a: 1\nb: \x92", "f.yml:2: the file holds the control character U+0092"),
        ("a: 1\nb: 2\na: 3", "f.yml:3: duplicate key 'a' (remove one; the first is at line 1)"),
        ("a: {b: 1, 'b': 2}", "f.yml:1: duplicate key 'b'"),
        ("x: &x {a: 1}\ny:\n  <<: *x", "f.yml:3: merge keys (<<) are not read"),
        ("? [a]\n: b", "f.yml:1: a key must be plain text"),
        ("a: !!binary aGk=", "f.yml:1: YAML tag 'tag:yaml.org,2002:binary' is not read"),
        ("a: !secret x", "f.yml:1: YAML tag '!secret' is not read"),
        ("a: 1\nb: !!python/object/apply:os.system ['id']", "python/object/apply:os.system' is not read"),
        ("!!python/object:x.Y {a: 1}", "python/object:x.Y' is not read"),
        ("a: !!set {b, c}", "f.yml:1: YAML tag 'tag:yaml.org,2002:set' is not read"),
        ("a: &x [*x]", "f.yml:1: aliases or nesting unfold too far"),
    ],
)  # fmt: skip
def test_what_is_no_plain_document_is_refused_at_its_line(text, fault):
    assert fault in faults_of(text)[0]


def test_all_that_leaves_the_rest_readable_is_reported_together():
    assert [fault.partition(" (")[0] for fault in faults_of("a: 1\na: 2\nb: !x 3\n<<: {}\nc: [{d: 1, d: 2}]\n")] == [
        "f.yml:2: duplicate key 'a'",
        "f.yml:3: YAML tag '!x' is not read",
        "f.yml:4: merge keys",
        "f.yml:5: duplicate key 'd'",
    ]


def test_a_caller_may_keep_the_faults_to_add_its_own():
    faults = []
    assert load_yaml("a: 1\na: 2\n", "f.yml", faults).data == {"a": 1}
    assert [fault.line for fault in faults] == [2]


def test_aliases_are_read_and_those_that_explode_are_refused_at_once():
    assert load_yaml("a: &x [1, 2]\nb: *x\nc: *x", "f.yml").data == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    start_s = time.process_time()
    assert "aliases or nesting unfold too far" in faults_of(laughs)[0]
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000, "[" * 66 + "]" * 66])
def test_deep_nesting_is_refused_before_it_takes_the_stack(text):
    assert faults_of(text) == ["f.yml:1: aliases or nesting unfold too far (write the values out, less deeply)"]


def test_nesting_within_the_limit_is_read():
    assert load_yaml("[" * 60 + "]" * 60, "f.yml").data is not None


def test_a_huge_file_is_refused_unread():
    assert faults_of("a" * (16 * 1024 * 1024 + 1)) == [
        "f.yml: the file has 16,777,217 characters; 16,777,216 are read (split it)"
    ]


def test_an_empty_file_holds_nothing():
    assert load_yaml("", "f.yml").data is None
    assert load_yaml("# only a remark\n", "f.yml").data is None
    assert load_yaml("\ufeffa: 1\n", "f.yml").data == {"a": 1}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(BadFile):
        assert isinstance(load_yaml(text, "f.yml"), Document)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé _<-?", min_size=1), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3))
def test_what_yaml_writes_is_read_back(data):
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    Dumper.yaml_implicit_resolvers = {}  # quote whatever is not plainly text
    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    Dumper.add_representer(int, lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:str", str(number)))
    Dumper.add_representer(bool, lambda dumper, flag: dumper.represent_scalar("tag:yaml.org,2002:str", str(flag)))
    Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:str", "null"))
    assert load_yaml(yaml.dump(data, Dumper=Dumper, allow_unicode=True), "f.yml").data == data


class Inner(pydantic.BaseModel, extra="forbid"):
    weight: float = pydantic.Field(1.0, ge=0, alias="theWeight")


class Outer(pydantic.BaseModel, extra="forbid"):
    title: str
    inner: list[Inner] = []
    other: Inner | None = None


def test_all_faults_of_a_file_come_together_with_their_lines_and_fixes():
    document = load_yaml("titel: x\ninner:\n  - theWeight: -1\n  - theWait: 1\n  - 7\nother:\n  zzz: 1\n", "f.yml")
    with pytest.raises(BadFile) as raised:
        parse_model(Outer, document)
    assert [str(fault) for fault in raised.value.faults] == [
        "f.yml:1: 'title' is missing (add `title:`)",
        "f.yml:1: unknown key 'titel' (did you mean 'title'?)",
        "f.yml:3: inner.0.theWeight: expected 0 or more, found -1 (write 0 or more)",
        "f.yml:4: unknown key 'inner.1.theWait' (did you mean 'theWeight'?)",
        "f.yml:5: inner.2: expected keys and values, found 7 (write keys and values: theWeight)",
        "f.yml:7: unknown key 'other.zzz' (known here: theWeight)",
    ]


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- 1", r"\[1\]"), ("word", "'word'"), ("7", "7")])
def test_a_file_without_keys_is_told_to_have_some(text, found):
    with pytest.raises(BadFile, match=f"expected keys and values here, found {found}"):
        parse_model(Outer, load_yaml(text, "f.yml"))


class Sorted(pydantic.BaseModel):
    names: list[str] = []

    @pydantic.model_validator(mode="after")
    def _is_sorted(self):
        if self.names != sorted(self.names):
            raise ValueError("Names are in no order")
        return self


def test_what_is_wrong_with_a_part_as_a_whole_is_told_at_its_place():
    with pytest.raises(BadFile, match=r"f.yml:2: x.y: names are in no order"):
        parse_model(Sorted, load_yaml("x:\n  y: {names: [b, a]}\n", "f.yml"), ("x", "y"))
    with pytest.raises(BadFile, match=r"f.yml:1: x: expected keys and values here, found 7 \(write"):
        parse_model(Sorted, load_yaml("x: 7\n", "f.yml"), ("x",))


def test_a_part_of_a_file_is_validated_at_its_place():
    document = load_yaml("x:\n  y:\n    theWeight: 2\n    gone: 1\n", "f.yml")
    with pytest.raises(BadFile, match=r"f.yml:4: unknown key 'x.y.gone'"):
        parse_model(Inner, document, ("x", "y"))


def test_a_long_value_is_shown_shortened():
    with pytest.raises(BadFile) as raised:
        parse_model(Outer, load_yaml(f"title: [{'a' * 500}]", "f.yml"))
    assert len(str(raised.value)) < 150


def test_an_unknown_word_is_told_what_was_likely_meant():
    assert suggest("modle", ["model", "name"]) == "did you mean 'model'?"
    assert suggest("zzz", ["b", "a"]) == "known here: a, b"
