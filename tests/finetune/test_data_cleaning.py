"""What is left out: held-out cases, repetitions, contradictions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import Example, HeldOut, clean, input_key, likeness, shown_in, similar
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt


def ticket(text: str, expected: str = "billing") -> Example:
    return Example({"ticket": text}, expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I was charged twice for my order", "held-out"),
        ("  i WAS charged\ttwice for my order ", "held-out"),
        ("Ｉ was charged twice for my order", "held-out"),  # a full-width I, equal under NFKC
        ("I was char\u200bged twice for\u200b my order", "held-out"),  # zero-width spaces
        ("\u202eI was charged\u202c twice for my order", "held-out"),  # marks of direction
        ("I was char\u00adged twice for my order", "held-out"),  # a soft hyphen
        ("I was charged\U000e0041 twice for my order\ufe0f", "held-out"),  # a tag, a variation selector
        ("I wa\u0301s chárged twice for my o\u0338rder", "held-out"),  # accents
        ("I wаs сhаrgеd twiсе fоr my оrdеr", "held-out"),  # Cyrillic letters
        ("Ι was charged twice fοr my οrder", "held-out"),  # Greek ones
        ("Iwaschargedtwiceformyorder", "held-out"),
        ("I_was_charged_twice_for_my_order", "held-out"),
        ("I was charged twice for my order!", "held-out-near"),
        ("For my order I was charged twice", "held-out-near"),  # the same words
        ("I was charged twice for my orders", "held-out-near"),
    ],
)
def test_what_repeats_a_heldout_case_is_dropped(text, reason):
    report = clean([ticket(text), ticket("Where is my parcel?")], [{"ticket": "I was charged twice for my order"}])
    assert report.kept == (ticket("Where is my parcel?"),)
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [(0, reason, 0)]


def test_another_question_with_some_of_the_same_words_is_kept():
    report = clean([ticket("I was not charged for the parcel that you lost")], [{"ticket": "I was charged twice"}])
    assert len(report.kept) == 1


def test_of_repeated_examples_the_earliest_stays():
    report = clean([ticket("My parcel is late"), ticket("my parcel is LATE"), ticket("My parcel is late!")], [])
    assert report.kept == (ticket("My parcel is late"),)
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [
        (1, "duplicate", 0),
        (2, "near-duplicate", 0),
    ]


def test_an_input_with_two_answers_is_a_conflict_and_dropped():
    report = clean([ticket("It broke", "returns"), ticket("Hello", "sales"), ticket("it  broke", "technical")], [])
    assert report.kept == (ticket("Hello", "sales"),)
    assert [(conflict.indexes, conflict.outputs) for conflict in report.conflicts] == [
        ((0, 2), ("returns", "technical"))
    ]


def test_long_texts_are_compared_by_words():
    words = [f"word{number}" for number in range(60)]
    changed = [*words[:-1], "other"]  # 55 of 57 five-word shingles shared
    spread = [word if number % 6 else "other" for number, word in enumerate(words)]  # the same words, no long runs
    assert similar({"t": " ".join(words)}, {"t": " ".join(changed)})
    assert not similar({"t": " ".join(words)}, {"t": " ".join(spread)})


def test_values_that_are_not_text_count():
    assert input_key({"n": 1, "t": "A"}) == input_key({"t": "a", "n": 1})
    assert input_key({"n": 1}) != input_key({"n": 2})


def test_marks_that_make_another_syllable_count():
    for one, other in (("कि", "कु"), ("か", "が"), ("ดี", "ดู")):
        assert input_key({"t": one}) != input_key({"t": other})


texts = st.text(alphabet="abc AB\u00e9\ufb01\u0130", max_size=12)


@given(st.lists(st.tuples(texts, st.sampled_from("xy")), max_size=12), st.lists(texts, max_size=6))
def test_no_example_kept_equals_a_heldout_case_or_another_and_none_is_lost(pairs, heldout):
    examples = [ticket(text, expected) for text, expected in pairs]
    report = clean(examples, [{"ticket": text} for text in heldout])
    kept = [input_key(example.vars) for example in report.kept]
    assert not set(kept) & {input_key({"ticket": text}) for text in heldout}
    assert len(set(kept)) == len(kept)
    conflicting = sum(len(conflict.indexes) for conflict in report.conflicts)
    assert len(report.kept) + len(report.drops) + conflicting == len(examples)


@pytest.mark.integration
@given(st.lists(st.text(alphabet="ab ", min_size=1, max_size=20), min_size=2, max_size=8))
def test_the_index_finds_what_comparing_all_pairs_finds(found):
    examples = [ticket(text) for text in found]
    kept: list[Example] = []
    for example in examples:
        if not any(input_key(example.vars) == input_key(one.vars) or similar(example.vars, one.vars) for one in kept):
            kept.append(example)
    assert clean(examples, []).kept == tuple(kept)


@pytest.mark.integration
def test_of_a_thousand_examples_and_a_thousand_cases_few_pairs_are_compared(monkeypatch):
    chance = random.Random(7)  # noqa: S311  a repeatable test, no secret
    words = ["".join(chance.choices("etaoinshrdlu", k=5)) for _ in range(800)]

    def text() -> str:
        return " ".join(chance.choices(words, k=20))

    compared = 0

    def counted(one, other):
        nonlocal compared
        compared += 1
        return _similar(one, other)

    _similar = likeness._similar
    monkeypatch.setattr(likeness, "_similar", counted)
    report = clean([ticket(text()) for _ in range(1000)], [{"ticket": text()} for _ in range(1000)])
    assert len(report.kept) == 1000
    assert compared < 2000 * 2000 / 2 / 20


# ---- passages

SIGNATURE = " ".join(f"signature{number}" for number in range(30))


def words(start: int, count: int) -> str:
    return " ".join(f"w{number}" for number in range(start, start + count))


def test_thirteen_shared_words_in_a_row_are_a_leak_and_twelve_are_not():
    case = HeldOut({"ticket": words(0, 80)}, "support.triage@3", "case-7")
    thirteen = ticket(f"{words(500, 60)} {words(20, 13)} {words(700, 60)}")
    twelve = ticket(f"{words(500, 60)} {words(20, 12)} {words(900, 60)}")
    report = clean([thirteen, twelve], [case])
    assert [(drop.index, drop.reason, drop.repeats) for drop in report.drops] == [
        (0, "held-out-13-gram", "support.triage@3 case case-7")
    ]
    assert report.kept == (twelve,)


def test_a_shared_passage_is_found_whatever_its_case_and_punctuation():
    case = {"ticket": f"{words(0, 40)}"}
    shouted = ", ".join(words(5, 13).split()).upper()
    assert clean([ticket(f"{words(900, 40)} {shouted}")], [case]).drops[0].reason == "held-out-13-gram"


def test_examples_may_share_thirteen_words_with_each_other():
    examples = [ticket(f"{words(1000 * number, 50)} {SIGNATURE}") for number in range(3)]
    assert len(clean(examples, []).kept) == 3


def test_a_signature_of_many_inputs_on_both_sides_is_boilerplate():
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(20)]
    examples = [ticket(f"{words(100_000 + 1000 * number, 50)} {SIGNATURE}") for number in range(20)]
    assert len(clean(examples, heldout).kept) == 20


@pytest.mark.parametrize(("heldout_count", "train_count"), [(9, 200), (200, 9), (1, 40)])
def test_a_passage_of_few_inputs_on_either_side_is_never_boilerplate(heldout_count, train_count):
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(heldout_count)]
    examples = [ticket(f"{words(10**6 + 1000 * number, 50)} {SIGNATURE}") for number in range(train_count)]
    assert clean(examples, heldout).kept == ()


def test_repeating_one_example_does_not_make_its_passage_boilerplate():
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(20)]
    again = [ticket(f"{words(10**6, 50)} {SIGNATURE}")] * 30
    assert clean(again, heldout).kept == ()


def test_what_boilerplate_parts_is_compared_without_it():
    other = " ".join(f"footer{number}" for number in range(60))
    question = "why was my invoice charged twice in march"
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(20)]
    heldout += [{"ticket": f"{words(50_000 + 1000 * number, 50)} {other}"} for number in range(20)]
    examples = [ticket(f"{words(10**6 + 1000 * number, 50)} {SIGNATURE}") for number in range(20)]
    examples += [ticket(f"{words(2 * 10**6 + 1000 * number, 50)} {other}") for number in range(20)]
    report = clean([*examples, ticket(f"{question} {other}")], [*heldout, {"ticket": f"{question} {SIGNATURE}"}])
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [(40, "held-out-near", 40)]


# ---- short cases in longer examples

QUESTION = "Why was my card charged twice?"
LONGER = f"Hello, I have a question about the order of last week. {QUESTION} Thank you for looking into it"


@pytest.mark.parametrize(
    "text",
    [
        LONGER,
        LONGER.replace(QUESTION, "why was my card, charged twice"),
        LONGER.replace(QUESTION, "Whywasmycardchargedtwice?"),
        LONGER.replace(QUESTION, "Why was my c\u200bard сharged twice?"),
    ],
)
def test_a_short_case_that_stands_whole_in_a_longer_example_is_a_leak(text):
    report = clean([ticket(text)], [HeldOut({"ticket": QUESTION}, "support.triage@3", "c1")])
    assert [(drop.reason, drop.repeats) for drop in report.drops] == [("held-out-within", "support.triage@3 case c1")]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("Why was it charged", "Hello, I wonder: why was it charged, and who is it that I have to ask about it"),
        ("is it up to me", "Hello, I wonder whether this it up to merge is something that you know, as I do not"),
        (QUESTION, LONGER.replace("charged twice", "charged once and refunded twice")),
    ],
)
def test_a_case_of_few_words_or_not_whole_is_no_leak(case, text):
    assert clean([ticket(text)], [{"ticket": case}]).drops == ()


def test_of_several_values_all_must_stand_in_the_example():
    case = {"language": "en", "ticket": QUESTION}
    whole, other = (
        Example({"language": "EN", "ticket": LONGER}, "x"),
        Example({"language": "fr", "ticket": LONGER}, "x"),
    )
    report = clean([whole, Example({"language": "fr", "ticket": LONGER.replace("question", "matter")}, "x")], [case])
    assert [(drop.index, drop.reason) for drop in report.drops] == [(0, "held-out-within")]
    assert clean([other], [case]).drops == ()


@pytest.mark.parametrize(("heldout_count", "leaks"), [(20, 0), (5, 20)])
def test_a_case_that_many_inputs_of_both_sides_hold_is_boilerplate(heldout_count, leaks):
    chance = random.Random(7)  # noqa: S311  a repeatable test, no secret

    def text() -> str:
        return f"{QUESTION} {' '.join(''.join(chance.choices('etaoinshrdlu', k=6)) for _ in range(30))}"

    heldout = [{"ticket": text()} for _ in range(heldout_count)]
    report = clean([ticket(text()) for _ in range(20)], [*heldout, {"ticket": QUESTION}])
    assert [drop.reason for drop in report.drops] == ["held-out-within"] * leaks


# ---- names and contradictions


def test_a_drop_names_what_it_repeats():
    cases = [HeldOut({"ticket": "Where is it?"}, "support.triage@3", "a"), {"ticket": "My parcel is late"}]
    report = clean([ticket("where is it?"), ticket("my parcel is late!"), ticket("Hi"), ticket("hi")], cases)
    assert [drop.repeats for drop in report.drops] == ["support.triage@3 case a", "held-out case 1", "example 2"]


def test_near_duplicates_with_different_answers_are_told_and_the_first_stays():
    examples = [
        ticket("My parcel is late", "shipping"),
        ticket("My parcel is late!", "billing"),
        ticket("My parcel is late.", "shipping"),
    ]
    report = clean(examples, [])
    assert report.kept == (examples[0],)
    assert [(one.indexes, one.outputs) for one in report.near_conflicts] == [((0, 1), ("shipping", "billing"))]


def test_contradicting_examples_that_repeat_a_heldout_case_are_told_as_leaks():
    report = clean([ticket("It broke", "returns"), ticket("it broke", "sales")], [{"ticket": "It broke"}])
    assert [drop.reason for drop in report.drops] == ["held-out", "held-out"]
    assert report.conflicts == ()


sentences = st.lists(st.sampled_from(["late", "parcel", "refund", "the"]), max_size=40).map(" ".join)


@given(
    st.lists(st.tuples(sentences, st.sampled_from("xy")), max_size=8),
    st.lists(sentences, max_size=4),
)
def test_no_example_kept_shares_a_passage_with_a_heldout_case(pairs, heldout):
    def passages(text: str) -> set[tuple[str, ...]]:
        found = text.split()
        return {tuple(found[at : at + 13]) for at in range(len(found) - 12)}

    report = clean([ticket(text, expected) for text, expected in pairs], [{"ticket": text} for text in heldout])
    leaked = {passage for text in heldout for passage in passages(text)}
    assert not any(passages(example.vars["ticket"]) & leaked for example in report.kept)


def test_a_word_shared_before_boilerplate_is_no_leak_and_seven_are():
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(20)]
    examples = [ticket(f"{words(10**6 + 1000 * number, 50)} {SIGNATURE}") for number in range(20)]
    six = ticket(f"{words(5 * 10**6, 50)} {words(44, 6)} {SIGNATURE}")
    seven = ticket(f"{words(6 * 10**6, 50)} {words(1043, 7)} {SIGNATURE}")
    report = clean([*examples, six, seven], heldout)
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [(21, "held-out-13-gram", 1)]


def test_a_heldout_question_with_boilerplate_added_is_a_leak():
    heldout = [{"ticket": f"{words(1000 * number, 50)} {SIGNATURE}"} for number in range(20)]
    examples = [ticket(f"{words(10**6 + 1000 * number, 50)} {SIGNATURE}") for number in range(20)]
    question = "why was my invoice charged twice in march"
    report = clean([*examples, ticket(f"{question} {SIGNATURE}")], [*heldout, {"ticket": question}])
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [(20, "held-out-near", 20)]


def test_a_passage_that_boilerplate_parts_is_a_leak():
    heldout = [
        {"ticket": f"{words(1000 * number, 50)} {SIGNATURE} {words(500_000 + 100 * number, 9)}"} for number in range(20)
    ]
    examples = [ticket(f"{words(10**6 + 1000 * number, 50)} {SIGNATURE}") for number in range(20)]
    parted = ticket(f"{words(3 * 10**6, 90)} {words(43, 7)} {SIGNATURE} {words(500_000, 6)}")
    assert clean([*examples, parted], heldout).drops[0].reason == "held-out-13-gram"


SYSTEM = {"role": "system", "content": "Answer in {{ language }}."}


def prompt_with(*shown: dict[str, str], system: bool = False, user: str = "Sort: {{ ticket }}") -> CompiledPrompt:
    """A prompt with examples; `system` gives it a variable that they do not hold."""
    variables = {"ticket": {"type": "string"}, "tone": {"type": "string", "default": "plain"}}
    variables |= {"language": {"type": "string"}} if system else {}
    messages = [*([SYSTEM] if system else []), {"role": "user", "content": user}]
    examples = [{"vars": each, "expected": "billing"} for each in shown]
    content = {"messages": messages, "variables": variables, "examples": examples, "model": "m"}
    return compile_prompt(PromptContent.model_validate(content))


def test_what_stands_in_the_prompt_is_left_out_and_so_is_what_is_nearly_the_same():
    given = [ticket(text) for text in ("Where is my parcel?", "i WAS charged twice", "I was charged twice!", "It broke",
                                       "Iwaschargedtwice")]  # fmt: skip
    shown = shown_in(prompt_with({"ticket": "Hello"}, {"ticket": "I was charged twice"}))
    report = clean(given, [{"ticket": "Where is my parcel?"}], shown)
    assert report.kept == (given[3],)
    assert [(drop.index, drop.reason, drop.matched, drop.repeats) for drop in report.drops[1:]] == [
        (1, "in-prompt", 1, "the prompt's example 1"),
        (2, "in-prompt-near", 1, "the prompt's example 1"),
        (4, "in-prompt", 1, "the prompt's example 1"),
    ]


def test_an_answer_that_the_prompt_gives_otherwise_is_no_contradiction_of_the_examples():
    shown = shown_in(prompt_with({"ticket": "It broke"}))
    report = clean([ticket("It broke", "returns"), ticket("it broke", "sales"), ticket("Hello")], [], shown)
    assert (len(report.drops), report.conflicts) == (2, ())


def test_examples_are_compared_by_what_the_last_user_message_asks_with():
    rows = [
        Example({"ticket": text, "language": "French"}, "billing") for text in ("I was charged twice", "Hello there")
    ]
    report = clean(rows, [], shown_in(prompt_with({"ticket": "I was charged twice"}, system=True)))
    assert report.kept == (rows[1],)


def test_a_variable_that_is_left_out_has_its_default():
    shown = shown_in(prompt_with({"ticket": "No"}, user="{{ ticket }} {{ tone }}"))
    row = Example({"ticket": "No", "tone": "plain"}, "billing")
    assert [drop.reason for drop in clean([row], [], shown).drops] == ["in-prompt"]


TONE = "as polite as our colleagues of the front desk are"


@pytest.mark.parametrize("spelled", [{"tone": TONE}, {"tone": f"  {TONE.upper()}"}])
def test_a_default_that_is_spelled_out_makes_no_other_input(spelled):
    heldout = [{"ticket": "It broke"}, {"ticket": "Late again", **spelled}]
    given = [
        Example({"ticket": "It broke", **spelled}, "x"),
        ticket("Late again"),
        ticket("Hello", "sales"),
        Example({"ticket": "Hello", **spelled}, "billing"),
        Example({"ticket": "It broke", "tone": "short"}, "x"),
    ]
    report = clean(given, heldout, defaults={"tone": TONE})
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [
        (0, "held-out", 0),
        (1, "held-out", 1),
    ]
    assert [conflict.indexes for conflict in report.conflicts] == [(2, 3)]
    assert report.kept == (given[4],)


def test_a_default_makes_no_inputs_alike_and_leaves_each_value_its_variable():
    defaults = {"source": "English", "target": "English", "tone": TONE}
    given = [
        Example({"text": "Hi", "source": "French"}, "a"),
        Example({"text": "Hi", "target": "French"}, "b"),
        Example({"text": "Go", "tone": TONE}, "c"),
        Example({"text": "No", "tone": TONE}, "d"),
    ]
    assert input_key(given[0].vars, defaults) != input_key(given[1].vars, defaults)
    report = clean(given, [], defaults=defaults)
    assert (report.conflicts, given[2] in report.kept, given[3] in report.kept) == ((), True, True)


def test_a_question_that_many_inputs_share_tells_none_of_them():
    """What tells them apart stands in the system message, of which an example in the prompt holds nothing."""
    rows = [Example({"ticket": "Sort it", "language": f"{name} {name[::-1]}"}, "billing")
            for name in ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "indigo", "juniper")]  # fmt: skip
    assert len(clean(rows, [], shown_in(prompt_with({"ticket": "Sort it"}, system=True))).kept) == 10
    assert shown_in(prompt_with({}, user="Sort it.")).vars == ()


@pytest.mark.integration
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([12, 45, 52, 70]))
def test_the_index_finds_all_pairs_around_the_thresholds(seed, length):
    chance = random.Random(seed)  # noqa: S311  a repeatable test, no secret
    bases = [[f"w{chance.randrange(400)}" for _ in range(length)] for _ in range(2)]
    texts = []
    for number in range(24):
        changed = list(bases[number % 2])
        for _ in range(chance.randrange(length // 5 + 1)):
            changed[chance.randrange(len(changed))] = f"x{chance.randrange(40)}"
        texts.append(" ".join(changed[: len(changed) - chance.randrange(4)]))
    kept: list[str] = []
    for text in texts:
        if not any(input_key({"t": text}) == input_key({"t": one}) or similar({"t": text}, {"t": one}) for one in kept):
            kept.append(text)
    assert [example.vars["t"] for example in clean([Example({"t": text}, "a") for text in texts], []).kept] == kept
