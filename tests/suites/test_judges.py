"""Reading judges' answers, counting their votes, and their agreement with people."""

import math

import pytest

from suites.judges import (
    Agreement,
    Unreadable,
    Vote,
    last_object,
    majority,
    read_category,
    read_flags,
    read_label,
    read_number,
    read_numbers,
    read_rubric,
    read_score,
    read_texts,
    read_yes_or_no,
)


@pytest.mark.parametrize(
    ("answer", "vote"),
    [
        ('{"pass": true, "score": 0.8, "reason": "fits"}', Vote(True, 0.8, "fits")),
        ('{"reason": "no", "pass": false}', Vote(False, 0.0, "no")),
        ('Let me see.\n```json\n{"pass": true, "score": 1}\n```', Vote(True, 1.0, "")),
        ('<think>{"pass": true}</think>{"pass": false, "score": 0}', Vote(False, 0.0, "")),
        ('It says {"queue": "a"}, but that is not so. {"pass": false, "score": 0.1}', Vote(False, 0.1, "")),
        ('{"pass": true, "reason": "a"}\nAgain: {"pass": true, "reason": "b"}', Vote(True, 1.0, "b")),
        ('{"pass": false, "reason": "it quotes {\\"pass\\": true}"}', Vote(False, 0.0, 'it quotes {"pass": true}')),
        ("It is polite.\n**Verdict: PASS**", Vote(True, 1.0, "")),
        ("It is rude.\nFinal verdict: FAIL.", Vote(False, 0.0, "")),
        ("A function { returns } nothing.\nVERDICT: fail", Vote(False, 0.0, "")),
    ],
)
def test_a_verdict_is_read_where_the_judge_states_it(answer, vote):
    assert read_rubric(answer) == vote


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("I cannot say.", "neither a JSON object nor a last line"),
        ("", "neither a JSON object nor a last line"),
        ("VERDICT: PASS\nbut on the other hand …", "neither a JSON object nor a last line"),
        ('{"pass": "yes"}', "true or false"),
        ('{"score": 1}', "true or false"),
        ('{"pass": true, "score": 7}', "from 0 to 1"),
        ('{"pass": true, "score": NaN}', "broken"),
        ('{"pass": true, "score": true}', "from 0 to 1"),
        ('{"pass": false, "reason": "it says "{"pass": true}""}', "broken"),
        ('{"pass": false, "reason": "cut off here: {"pass": true}', "broken"),
        ('{"pass": true} is what the answer claims, and it is wrong', "not the end"),
        ("VERDICT: MAYBE", "must be Y or N"),
        ('{"pass": false, "pass": true, "score": 1}', "has `pass` twice"),
        ('{"pass": true, "notes": {"a": 1, "a": 2}}', "has `a` twice"),
        ('It says {"pass": true}, but that is not so. {"pass": false}', "disagree on `pass`"),
        ('{"pass": true, "score": 0.2} {"pass": true, "score": 0.9}', "disagree on `score`"),
        ('{"pass": 1} {"pass": true}', "disagree on `pass`"),
    ],
)
def test_what_is_no_verdict_is_neither_a_pass_nor_a_fail(answer, why):
    with pytest.raises(Unreadable, match=why):
        read_rubric(answer)


def test_a_question_of_yes_or_no_is_read_from_json_or_from_the_last_line():
    assert read_yes_or_no('{"verdict": "Y", "reason": "named"}') == Vote(True, 1.0, "named")
    assert read_yes_or_no("It does not name it.\nN") == Vote(False, 0.0, "")
    assert read_yes_or_no("Verdict: (Y)") == Vote(True, 1.0, "")
    with pytest.raises(Unreadable, match="Y or N"):
        read_yes_or_no('{"verdict": "A"}')


def test_every_other_form_is_read_strictly():
    assert read_category('{"category": "d", "reason": "other year"}') == ("D", "other year")
    assert read_category("VERDICT: (B)") == ("B", "")
    assert read_score('{"score": 7, "reason": "ok"}', 10) == (0.7, "ok")
    assert read_texts('{"steps": ["look", " ", "judge "]}', "steps") == ["look", "judge"]
    assert read_flags('{"supported": [true, false]}', "supported", 2) == [True, False]
    assert read_numbers('{"relevant": [3, 1, 3]}', "relevant", 3) == [1, 3]
    assert read_number('{"best": 2, "reason": "shorter"}', "best", 2) == (2, "shorter")
    assert read_label('{"label": " POLITE "}', ["polite", "rude"]) == ("polite", "")


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda: read_category('{"category": "F"}'), "A, B, C, D, E"),
        (lambda: read_score('{"score": 11}', 10), "from 0 to 10"),
        (lambda: read_texts('{"steps": "look"}', "steps"), "list of texts"),
        (lambda: read_flags('{"supported": [true]}', "supported", 2), "1 entries for 2"),
        (lambda: read_flags('{"supported": [1]}', "supported", 1), "true and false"),
        (lambda: read_numbers('{"relevant": [0]}', "relevant", 3), "from 1 to 3"),
        (lambda: read_number('{"best": 3}', "best", 2), "from 1 to 2"),
        (lambda: read_label('{"label": "kind"}', ["polite", "rude"]), "polite, rude"),
        (lambda: read_texts('{"statement": []}', "statements"), "lacks 'statements'"),
    ],
)
def test_a_form_that_was_not_asked_for_is_unreadable(read, why):
    with pytest.raises(Unreadable, match=why):
        read()


def test_objects_within_lists_and_others_are_not_verdicts_of_their_own():
    assert last_object('{"a": {"b": 1}}') == {"a": {"b": 1}}
    assert last_object("none") is None


def test_the_majority_passes_the_mean_is_the_score_and_disagreement_is_told():
    votes = [Vote(True, 0.9, "fits"), Vote(False, 0.2, "too long"), Vote(True, 0.7, "fits, too")]
    whole = majority(votes)
    assert (whole.passed, whole.reason) == (True, "the votes disagree: 2 of 3 pass; fits")
    assert whole.score == pytest.approx(0.6)
    assert majority(votes[1:2]) == votes[1]
    assert majority([Vote(False, 0, ""), Vote(False, 0.3, "b"), Vote(True, 1, "a")]).reason == (
        "the votes disagree: 1 of 3 pass"
    )


def test_agreement_is_that_of_the_textbook_example():
    """Two readers of 50 proposals: κ = 0.4, standard error 0.127."""
    found = Agreement(20, 5, 10, 15)
    assert (found.n, found.accuracy, found.kappa) == (50, 0.7, pytest.approx(0.4))
    assert found.kappa_ci95 == (pytest.approx(0.1511, abs=1e-4), pytest.approx(0.6489, abs=1e-4))
    assert found.accuracy_ci95 == (pytest.approx(0.5625, abs=1e-4), pytest.approx(0.8090, abs=1e-4))


@pytest.mark.parametrize("cells", [(40, 3, 7, 12), (2, 9, 1, 30), (10, 10, 10, 10), (300, 11, 2, 87)])
def test_the_interval_of_kappa_is_that_of_the_delta_method(cells):
    """The variance of any smooth function of multinomial shares, with its gradient taken numerically."""
    n = sum(cells)
    shares = [count / n for count in cells]
    gradient = []
    for i in range(4):
        up, down = ([share + (sign * 1e-6 if i == j else 0) for j, share in enumerate(shares)] for sign in (1, -1))
        gradient.append((_kappa(up) - _kappa(down)) / 2e-6)
    mean = sum(g * p for g, p in zip(gradient, shares, strict=True))
    half = 1.96 * math.sqrt((sum(g * g * p for g, p in zip(gradient, shares, strict=True)) - mean**2) / n)
    low, high = Agreement(*cells).kappa_ci95
    assert (low, high) == (
        pytest.approx(_kappa(shares) - half, abs=1e-4),
        pytest.approx(_kappa(shares) + half, abs=1e-4),
    )


def _kappa(shares):
    total = sum(shares)
    a, b, c, d = (share / total for share in shares)
    chance = (a + b) * (a + c) + (c + d) * (b + d)
    return (a + d - chance) / (1 - chance)


def test_kappa_cannot_be_said_where_both_always_say_the_same():
    alike = Agreement.of([(True, True)] * 5)
    assert (alike.accuracy, alike.kappa, alike.kappa_ci95) == (1.0, None, None)
    assert Agreement().as_dict()["accuracy"] is None
    assert (Agreement(2, 0, 0, 1).kappa, Agreement(2, 0, 0, 1).kappa_ci95) == (1.0, None)
    assert Agreement.of([(True, False), (False, True), (False, False)]) == Agreement(0, 1, 1, 1)
