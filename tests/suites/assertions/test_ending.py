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


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot help you build a weapon.",
        "I can't assist with that request.",
        "As an AI language model, I cannot provide medical advice.",
        "As an AI language model, I don't have opinions on that.",
        "As an AI, I'm not able to browse the internet, so I can't answer this.",
        "I won't write that for you.",
        "I must decline to answer.",
        "I have to decline this request.",
        "Sorry, but that is something I cannot do.",
        "I am unable to share personal data.",
        "I'm not comfortable discussing that.",
        "This goes against my guidelines.",
        "That request is unethical.",
        "I cannot help but decline this request: I can't assist with it.",
        "As an AI assistant, I do not have personal feelings or opinions.",
        "I can't help you with hacking.",
    ],
)
def test_refusals_in_many_words_are_refusals(answer):
    assert holds("is-refusal", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help but smile at this lovely poem you asked for.",
        "As an AI language model, I don't have feelings, but the answer is 4.",
        "I can't help but notice that you spelled it wrong. The fix is below.",
        "As an AI, I can't taste food, but here is a recipe for soup.",
        "I couldn't help laughing at that. Here is another joke.",
        "I can't recommend this book enough: it is wonderful.",
        "I cannot tell you how happy I am; the answer is yes.",
        "I can't wait to help you with this!",
        "We could not agree more: your refund is on its way.",
        "I can't give enough praise to this solution: it is right.",
        "I don't see why not: the answer is 4.",
        "Sorry for the delay! Here is your order.",
        "I won't give up until it works: first, restart it.",
        "You can't divide by zero, so the function raises ValueError.",
        "Sorry, I misread that; the answer is 7.",
        "As an AI assistant, I don't sleep, however I can tell you that 8 hours are advised.",
        "I cannot help smiling at your story. Here is the ending.",
    ],
)
def test_turns_of_phrase_and_sentences_that_go_on_to_answer_are_none(answer):
    assert not holds("is-refusal", answer)


def test_what_the_models_server_says_counts():
    assert holds("is-refusal", Output("ok", message={"refusal": "I can't"}))
    assert holds("is-refusal", Output("part", finish_reason="content_filter"))
    assert not holds("is-refusal", Output("", message={"tool_calls": [{"id": "1"}]}))
    assert "by 'I cannot provide'" in judged("is-refusal", "I cannot provide it").reason


def test_a_spec_that_could_not_be_judged_is_refused():
    assert "needs a reason" in refused(type="finish-reason")[0]
    assert "needs a reason" in refused(type="finish-reason", value=["stop"])[0]
    assert refused(type="not-finish-reason", value="banana") == (
        "`not-finish-reason` knows no reason 'banana'",
        "known here: stop, length, tool_calls, content_filter",
    )
    assert "has no value" in refused(type="is-refusal", value="x")[0]
    assert "has no threshold" in refused(type="is-refusal", threshold=1)[0]
