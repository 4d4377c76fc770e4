from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadName
from prompts.names import (
    LABEL,
    NAME,
    Selector,
    Variant,
    check_label,
    check_name,
    name_from_path,
    parse_selector,
    parse_variant,
)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "support.ticket-triage", "a.b.c.d", "a" * 200])
def test_a_name_of_the_grammar_is_returned(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "A",
        "é",
        "a b",
        "a/b",
        "a\n",
        "-a",
        "_a",
        "a.-b",
        "../a",
        "a@1",
        "a+b",
        "a\0",
        "a" * 201,
    ],
)
def test_a_name_outside_the_grammar_is_refused(name):
    with pytest.raises(BadName, match="is no suite name: lower-case letters, digits, _ and -") as raised:
        check_name(name, "suite")
    assert raised.value.param == "name"


@pytest.mark.parametrize("label", ["production", "a", "a.b-c_9", "a" * 64])
def test_a_label_of_the_grammar_is_returned(label):
    assert check_label(label) == label


@pytest.mark.parametrize("label", ["", "A", "7", "-a", "a b", "a\n", "é", "a" * 65])
def test_a_label_outside_the_grammar_is_refused(label):
    with pytest.raises(BadName, match="is no label"):
        check_label(label)


def test_latest_is_no_label_that_one_may_move():
    with pytest.raises(BadName, match="'latest' moves by itself"):
        check_label("latest")


def test_a_file_is_called_by_its_path():
    assert name_from_path(PurePosixPath("support/ticket-triage.prompt.yml"), ".prompt.yml", "prompt") == (
        "support.ticket-triage"
    )
    with pytest.raises(BadName):
        name_from_path(PurePosixPath("Support/x.prompt.yml"), ".prompt.yml", "prompt")
    with pytest.raises(BadName):
        name_from_path(PurePosixPath("../x.prompt.yml"), ".prompt.yml", "prompt")


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("a.b", Selector("a.b")),
        ("a@7", Selector("a", version=7)),
        ("a@007", Selector("a", version=7)),
        ("a@production", Selector("a", label="production")),
        ("a@latest", Selector("a", label="latest")),
        ("a@v7", Selector("a", label="v7")),
    ],
)
def test_a_selector_is_a_name_a_version_or_a_label(text, selector):
    assert parse_selector(text) == selector


@pytest.mark.parametrize(
    "text", ["", "@1", "a@", "a@0", "a@-1", "a@1.5", "a@1 ", "a@²", "a@٧", "a@1@2", "a@1234567890", "A@1"]
)
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(BadName):
        parse_selector(text)


def test_a_variant_is_a_version_on_a_model_with_an_adapter_or_none():
    assert parse_variant("a.b@3+smollm2-135m") == Variant("a.b", 3, "smollm2-135m")
    assert parse_variant("a@3+m+ad_1") == Variant("a", 3, "m", "ad_1")


@pytest.mark.parametrize("text", ["a@3", "a@3+", "a@3+m+", "a@3+m+a+b", "a+m", "a@production+m", "+m", ""])
def test_what_is_no_variant_is_refused(text):
    with pytest.raises(BadName):
        parse_variant(text)


def test_a_variant_without_a_version_is_told_how_to_write_one():
    with pytest.raises(BadName, match=r"names no version number: write a@N\+m\+x"):
        parse_variant("a+m+x")


NAMES = st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name) <= 200)


@given(NAMES, st.integers(1, 999_999_999), st.from_regex(r"[a-z0-9-]{1,9}", fullmatch=True), st.none() | st.just("x1"))
def test_a_variant_is_read_as_it_is_written(name, version, model, adapter):
    variant = Variant(name, version, model, adapter)
    assert parse_variant(str(variant)) == variant


@given(NAMES, st.none() | st.integers(1, 999_999_999) | st.from_regex(LABEL, fullmatch=True))
def test_a_selector_is_read_as_it_is_written(name, which):
    number = which if isinstance(which, int) else None
    selector = Selector(name, number, which if number is None else None)
    assert parse_selector(str(selector)) == selector
