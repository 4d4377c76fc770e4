from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rollouts import counting
from service.rollouts.arrivals import LONGEST_S
from service.rollouts.counting import CALLERS_FAULT, StepCount, outcome_of
from service.store.rollouts import OutcomeRow
from suites.eprocess import BLOCK
from suites.rollouts import Arm, Tally

NEW, OLD = "support.triage@2+m", "support.triage@1+m"
_numbers = count(1)


def row(**more: Any) -> OutcomeRow:
    seq = more.pop("seq", None) or next(_numbers)
    known: dict[str, Any] = {
        "seq": seq, "id": f"chatcmpl-{seq}", "at": "2026-11-21T12:00:00.000000+00:00", "unit": None, "variant": NEW,
        "chosen": None, "status": "ok", "is_valid": None, "latency_ms": 20.0, "shadow_of": None,
    }  # fmt: skip
    return OutcomeRow(**{**known, **more})


def counted(*rows: OutcomeRow, budget_ms: float | None = None) -> StepCount:
    step = StepCount(NEW, OLD, budget_ms)
    step.add(rows)
    return step


def tally(step: StepCount) -> tuple[tuple[int, int], tuple[int, int]]:
    """Good and bad of the candidate, and of the incumbent."""
    new, old = step.arms
    return (new.good, new.bad), (old.good, old.bad)


@pytest.mark.parametrize(
    ("more", "is_bad"),
    [
        ({}, False),
        ({"is_valid": True}, False),
        ({"is_valid": False}, True),
        ({"is_valid": 0}, True),  # as SQLite has it
        ({"status": "ModelTimeout"}, True),
        ({"status": "ModelRefused"}, True),
        ({"status": "SchemaMismatch", "is_valid": False}, True),
        ({"status": "BadInput"}, None),
        ({"status": "MissingVariable"}, True),  # a version may take other variables than the one before
        ({"status": "BadSetting"}, True),  # the key of its model is not there
        ({"status": "cancelled"}, None),
        ({"status": "cancelled", "latency_ms": 2500.0}, True),
        ({"latency_ms": 2000.0}, False),
        ({"latency_ms": 2000.1}, True),
        ({"chosen": NEW, "variant": OLD}, True),  # a fallback answered in its place
        ({"shadow_of": "chatcmpl-0"}, None),
    ],
)
def test_what_an_outcome_says_of_its_variant(more: dict[str, Any], is_bad: bool | None) -> None:
    assert outcome_of(row(**more), 2000.0) is is_bad


def test_without_a_budget_no_answer_is_late() -> None:
    assert outcome_of(row(latency_ms=1e9), None) is False


def test_every_fault_of_a_caller_is_an_error_that_there_is() -> None:
    from prompts import errors as below
    from service import errors

    assert {name for name in CALLERS_FAULT if not hasattr(errors, name) and not hasattr(below, name)} == set()


def test_a_person_counts_by_the_first_outcome_and_nobody_by_each() -> None:
    step = counted(
        row(unit="0a"), row(unit="0a", status="ModelTimeout"), row(unit="0b", variant=OLD, status="ModelTimeout"),
        row(unit="0b", variant=OLD), row(), row(), row(variant=OLD, status="ModelTimeout"),
    )  # fmt: skip

    assert tally(step) == ((3, 0), (0, 2))


def test_what_says_nothing_is_not_a_persons_first_outcome() -> None:
    step = counted(row(unit="0a", status="cancelled"), row(unit="0a", status="ModelTimeout"))

    assert tally(step) == ((0, 1), (0, 0))


def test_a_fallbacks_answer_counts_against_the_variant_that_was_chosen() -> None:
    assert tally(counted(row(variant=OLD, chosen=NEW))) == ((0, 1), (0, 0))


def test_shadows_and_variants_of_neither_side_are_not_counted() -> None:
    assert counted(row(shadow_of="x"), row(variant="support.triage@3+m")).units == 0


def test_how_long_a_side_was_silent_is_counted_in_units_of_the_other() -> None:
    step = counted(row(), row(variant=OLD), row(variant=OLD), row(variant=OLD, unit="0a"), row(variant=OLD, unit="0a"))

    assert step.arms == (Arm(good=1, others_since=3), Arm(good=3, others_since=0))


def test_bad_outcomes_stand_in_blocks_in_the_order_of_their_coming() -> None:
    step = counted(*(row(variant=OLD, status="ModelTimeout") for _ in range(BLOCK)), row(), row(status="ModelTimeout"))

    assert step.bad_blocks == ((0, BLOCK), (1, 0))


def test_however_many_are_bad_there_are_few_blocks() -> None:
    step = counted(*(row(variant=OLD, status="ModelTimeout") for _ in range(5000)))

    sizes = [sum(block) for block in step.bad_blocks]
    assert sizes[:33] == [BLOCK] * 32 + [2 * BLOCK]
    assert (sum(sizes), len(sizes) < 150) == (5000, True)


def test_a_complaint_makes_an_outcome_bad_once() -> None:
    mine, nobodys, failed = row(unit="0a"), row(), row(status="ModelTimeout")
    step = counted(mine, nobodys, failed)

    for _ in range(2):
        step.complain([mine, nobodys, failed])

    assert tally(step) == ((0, 3), (0, 0))
    assert step.bad_blocks == ((3, 0),)


def test_a_complaint_of_a_later_answer_counts_against_the_person() -> None:
    first, later = row(unit="0a"), row(unit="0a")
    step = counted(first, later)

    step.complain([later])

    assert tally(step) == ((0, 1), (0, 0))


def test_a_complaint_whose_request_is_not_counted_yet_waits_for_it() -> None:
    known, ahead, nobodys = row(unit="0a"), row(unit="0b"), row()
    step = counted(known)

    step.complain([ahead, nobodys])
    assert tally(step) == ((1, 0), (0, 0))

    step.add([ahead, nobodys])
    step.complain([ahead, nobodys])
    assert tally(step) == ((1, 2), (0, 0))


NOON_S = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def test_units_settle_once_the_slowest_answer_so_far_would_be_there() -> None:
    fast = [
        row(variant=OLD, latency_ms=1000.0),
        row(variant=OLD, latency_ms=1000.0, status="ModelTimeout"),
    ]  # came 1 s before noon
    step = counted(*fast)
    assert step.settled(NOON_S) == (Tally(), Tally(good=1, bad=1))
    assert step.settled(NOON_S, least_s=2) == (Tally(), Tally())

    step.add([row(latency_ms=30_000.0)])  # came 30 s before noon: who came after that may still be answered by it
    assert step.settled(NOON_S) == (Tally(good=1), Tally())
    assert step.settled(NOON_S + 29) == (Tally(good=1), Tally(good=1, bad=1))


@given(took_s=st.lists(st.integers(0, 60), min_size=1, max_size=30), until_s=st.integers(0, 120))
def test_in_whatever_order_answers_come_the_settled_ones_are_those_that_were_asked_for_early(
    took_s: list[int], until_s: int
) -> None:
    step = counted(*(row(latency_ms=seconds * 1000.0) for seconds in took_s))

    by_s = until_s - max(took_s)
    assert step.settled(NOON_S + until_s)[0].units == sum(-seconds <= by_s for seconds in took_s)


def test_how_long_a_look_waits_for_slow_answers_is_bounded() -> None:
    step = counted(row(latency_ms=1e7))

    assert step.settled(NOON_S) == (Tally(good=1), Tally())
    assert counted(row(latency_ms=1e7), row(variant=OLD)).settled(NOON_S + LONGEST_S)[1].units == 1


def test_settled_or_not_a_complaint_counts_once() -> None:
    first, second = row(latency_ms=1000.0), row(latency_ms=1000.0)
    step = counted(first, second)

    step.complain([first])

    assert step.settled(NOON_S - 1) == (Tally(bad=1), Tally())
    assert step.settled(NOON_S) == (Tally(good=1, bad=1), Tally())


def test_no_more_units_are_held_than_a_step_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_UNITS", 3)

    step = counted(*(row(unit=f"{number:016x}") for number in range(10)))

    assert step.units == 3
    assert len(step._units) == 3


rows = st.lists(
    st.builds(
        row,
        unit=st.sampled_from([None, "0a", "0b", "0c", "0d"]),
        variant=st.sampled_from([NEW, OLD]),
        status=st.sampled_from(["ok", "ok", "ModelTimeout", "cancelled", "BadInput"]),
    ),
    max_size=40,
)


@given(rows=rows, cut=st.integers(0, 40))
def test_read_at_once_or_bit_by_bit_the_counts_are_the_same(rows: list[OutcomeRow], cut: int) -> None:
    step = StepCount(NEW, OLD, None)
    step.add(rows[:cut])
    step.add(rows[cut:])

    whole = counted(*rows)
    assert (step.arms, step.bad_blocks, step.units) == (whole.arms, whole.bad_blocks, whole.units)
    assert sum(map(sum, whole.bad_blocks)) == sum(arm.bad for arm in whole.arms)
