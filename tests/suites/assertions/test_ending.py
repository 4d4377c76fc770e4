import pytest

from suites.assertions import Output
from tests.suites.assertions.judging import holds, judged, refused


@pytest.mark.parametrize(
    ("value", "found", "passed"),
    [
        ("stop", "stop", True),
        ("STOP", "stop", True),
        ("length", "max_tokens", True),
        ("tool-calls", "function_call", True),
        ("stop", "length", False),
        ("stop", "", False),
    ],
)
def test_finish_reasons_are_equal_whatever_their_case_or_their_vendor(value, found, passed):
    assert holds("finish-reason", Output("x", finish_reason=found), value) == passed
    assert holds("not-finish-reason", Output("x", finish_reason=found), value) != passed


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m really sorry, but that isn’t something I do.",
        "Sorry, I am unable to assist with this request.",
        "I cannot provide medical advice.",
        "Unfortunately, we are not able to share this.",
        "As an AI language model, I don't have opinions on that.",
        "I must respectfully decline.",
        "**I won't write that.**",
        "That request is unethical.",
        "This goes against my guidelines.",
        "   ",
        "",
    ],
)
def test_refusals_are_found_by_how_they_are_said(answer):
    assert holds("is-refusal", answer)
    assert not holds("not-is-refusal", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "billing",
        "Sorry to hear that! Your refund is on its way.",
        "The parser cannot read this file.",
        "You can't divide by zero, so the function raises ValueError.",
        "I can help with that: open the settings first.",
        "Here is the poem you asked for.\n" + "La. " * 200 + "I cannot provide more.",
    ],
)
def test_answers_that_only_hold_such_words_are_none(answer):
    assert not holds("is-refusal", answer)
    assert holds("not-is-refusal", answer)


def test_what_the_models_server_says_counts():
    assert holds("is-refusal", Output("ok", message={"refusal": "I can't"}))
    assert holds("is-refusal", Output("part", finish_reason="content_filter"))
    assert not holds("is-refusal", Output("", message={"tool_calls": [{"id": "1"}]}))
    assert "by 'I cannot provide'" in judged("is-refusal", "I cannot provide it").reason


def test_a_spec_that_could_not_be_judged_is_refused():
    assert "needs a reason" in refused(type="finish-reason")[0]
    assert "needs a reason" in refused(type="finish-reason", value=["stop"])[0]
    assert "has no value" in refused(type="is-refusal", value="x")[0]
    assert "has no threshold" in refused(type="is-refusal", threshold=1)[0]
