"""The advice as people see it: no text of others comes to life, and a terminal of a hundred columns holds it."""

from __future__ import annotations

import io
from dataclasses import asdict

from rich.console import Console

from suites.advice.lines import print_advice
from suites.advice.markdown import render_markdown
from suites.advice.page import render_html
from suites.advice.report import Advice, BreakEven, Example, Skipped, Trained, compared, scored
from suites.advice.words import data_lines, difference, needed_words
from tests.suites.advice.conftest import advice, curve, variant

HOSTILE = "<script>alert(1)</script> | `x` @all"


def full() -> Advice:
    group = {"kind": "word", "name": HOSTILE, "count": 9, "failures": 8, "share": 0.5, "lift": 3.2, "p": 0.001, "mend": "",
             "examples": ({"row": 3, "input": HOSTILE, "expected": "a", "answered": HOSTILE},)}  # fmt: skip
    trained = Trained(device="cpu", trainings=5, seconds=90, cpu_seconds=80, one_s=30, energy_wh=0.2, energy_from="10 W",
                      one_energy_wh=0.1, one_price_usd=0.01)  # fmt: skip
    return advice(
        groups=(group,),
        curve=asdict(curve(0.6, 0.72, 0.8)),
        trained=trained,
        skipped=(Skipped(what="a choice", why="refused"),),
        shots=(Example(vars={"t": HOSTILE}, expected="a"),),
        break_even=(BreakEven(variant="lora", against="prompt", saving_usd=0.1, requests=1234, why="$1 over"),),
        look={"taken": False, "why": "not asked"},
    )


def shown(found: Advice) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_advice(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_terminal_holds_it_in_a_hundred_columns_with_the_recommendation_last():
    text = shown(full())
    assert max(map(len, text.splitlines())) <= 100
    assert text.rstrip().endswith("next: turnout finetune s")
    for part in (
        "40/100",
        "+50.0",
        "LoRA by examples trained on: 25: 60.0%",
        "pays after 1,234 requests",
        "not tried: a choice",
    ):
        assert part in text


def test_markdown_and_page_show_texts_of_others_as_texts():
    page, comment = render_html(full()), render_markdown(full())
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<script>" not in comment
    assert "http://" not in page.replace("http-equiv", "")
    assert comment.startswith("## Fine-tune")
    assert "recommended" in page


def test_every_form_tells_the_same_figures():
    found = full()
    for text in (shown(found), render_html(found), render_markdown(found)):
        assert "40/100" in text
        assert "90/100" in text
    assert "turnout advise --of adv_1" in render_html(found)


def test_an_advice_without_figures_is_shown_too():
    bare = advice(variants=(), groups=())
    assert "Fine-tune" in shown(bare)
    assert "<table" not in render_html(bare)
    assert "| variant" not in render_markdown(bare)


def test_contradictions_and_mislabelled_rows_are_named():
    data = advice().data.model_copy(
        update={"contradicting": 2, "ceiling": 0.99, "contradictions": ({"rows": [4, 7], "answers": ["a", "b"]},),
                "mislabelled": ({"row": 9, "expected": "a", "answered": "b"},)}
    )  # fmt: skip
    text = "\n".join(data_lines(advice(data=data)))
    assert text.startswith("prompt ")
    assert ", suite s@1\n100 examples given" in text
    assert "at most 99.0% of all can be answered right" in text
    assert "examples 4, 7: 'a' / 'b'" in text
    assert "1 example may be labelled wrongly" in text


def test_pairs_are_counted_where_both_were_asked():
    first, part = compared((variant("prompt", 40), scored("lora", "lora", "LoRA", "m", "1" * 50 + " " * 50)))
    assert (part.total, part.accuracy) == (50, 1.0)
    assert part.paired is not None
    assert (part.paired.pairs, part.paired.mended, part.paired.broken) == (50, 10, 0)
    assert difference(part)[0].startswith("+20.0")
    assert difference(first) == ("–", "–")


def test_how_many_are_needed_in_words():
    number = {"answer": "number", "examples": 1200, "low": 900, "high": None}
    assert needed_words(number) == "1,200 examples in all (80% interval 900 to beyond what can be said)"
    assert needed_words({"answer": "cannot say"}) == "how many more examples it takes, the curve cannot say"


def test_what_is_stored_is_read_back():
    stored = full().model_dump(mode="json")
    assert Advice.model_validate(stored).model_dump(mode="json") == stored
