from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadInput, BadName
from prompts.names import Variant
from service import route_data
from service.errors import Conflict
from service.routing import (
    Planned,
    Rollout,
    RouteState,
    abort,
    asked_of,
    begin_rollout,
    hold,
    planned_of,
    promote,
    restored,
    resume,
    roll_back,
    set_weights,
    take_planned,
)
from service.splits import PARTS, Split, Weighted, in_order, point_of, reshare, unit_digest, widths
from suites.rollouts import Rules

OLD = Variant("support.triage", 1, "model-a")
NEW = Variant("support.triage", 1, "model-a", "ad-1")
OTHER = Variant("support.triage", 2, "model-b")
UNITS = [f"user-{number}" for number in range(2000)]
units = st.text(max_size=40)
salts = st.text(alphabet="0123456789abcdef", min_size=1, max_size=64)


def pick(weighted: Sequence[Weighted], salt: str, unit: str) -> Variant:
    return Split(in_order(weighted)).owner(point_of(unit_digest(salt, unit)))


def owner(state: RouteState, salt: str, unit: str) -> Variant:
    return state.split.owner(point_of(unit_digest(salt, unit)))


def split(percent: float) -> tuple[Weighted, ...]:
    return (Weighted(NEW, percent), Weighted(OLD, 100.0 - percent))


def those_in(percent: float, salt: str = "salt") -> set[str]:
    return {unit for unit in UNITS if pick(split(percent), salt, unit) == NEW}


@given(unit=units, salt=salts, percent=st.floats(0, 100))
def test_the_same_person_gets_the_same_variant(unit: str, salt: str, percent: float) -> None:
    assert pick(split(percent), salt, unit) == pick(split(percent), salt, unit)


@given(unit=units, salt=salts, shares=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_growing_a_share_moves_nobody_out_of_it(unit: str, salt: str, shares: tuple[float, float]) -> None:
    smaller, larger = sorted(shares)
    if pick(split(smaller), salt, unit) == NEW:
        assert pick(split(larger), salt, unit) == NEW


@given(unit=units, salt=salts)
def test_nobody_gets_a_variant_without_a_share_and_everybody_one_that_has_all(unit: str, salt: str) -> None:
    assert pick(split(0), salt, unit) == OLD
    assert pick(split(100), salt, unit) == NEW
    assert pick((Weighted(OLD, 100.0), Weighted(NEW, 0.0)), salt, unit) == OLD


@given(unit=units, salt=salts, shares=st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_whoever_is_picked_has_a_share(unit: str, salt: str, shares: list[int]) -> None:
    weighted = [Weighted(Variant("a", number + 1, "m"), float(share)) for number, share in enumerate(shares)]

    picked = pick(weighted, salt, unit)

    assert shares[picked.version - 1] > 0


@pytest.mark.parametrize("percent", [5, 25, 50, 90])
def test_a_share_is_about_as_large_as_it_says(percent: int) -> None:
    share = len(those_in(percent)) / len(UNITS)

    assert abs(share - percent / 100) < 0.05  # more than four standard deviations


def test_two_routes_split_people_independently() -> None:
    both = len(those_in(50, "one") & those_in(50, "two")) / len(UNITS)

    assert 0.20 < both < 0.30


def test_a_person_whose_name_is_no_utf8_is_picked_for_too() -> None:
    assert pick(split(50), "salt", "\ud800") in (OLD, NEW)


# ---------------------------------------------------------------------------- shares that change

shares = st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any)
FIVE = [Variant("a", number, "m") for number in range(1, 6)]


def percents(parts: list[int]) -> tuple[Weighted, ...]:
    return tuple(Weighted(variant, 100 * part / sum(parts)) for variant, part in zip(FIVE, parts, strict=True))


@given(unit=units, salt=salts, changes=st.lists(shares, min_size=2, max_size=8))
def test_nobody_leaves_a_variant_whose_share_does_not_shrink_however_many_there_are(
    unit: str, salt: str, changes: list[list[int]]
) -> None:
    spans = in_order(percents(changes[0]))
    for parts in changes[1:]:
        after = reshare(spans, percents(parts))
        before = Split(spans).owner(point_of(unit_digest(salt, unit)))
        if widths(after)[before] >= widths(spans)[before]:
            assert Split(after).owner(point_of(unit_digest(salt, unit))) == before
        spans = after


@given(changes=st.lists(shares, min_size=1, max_size=20))
def test_every_share_is_what_was_asked_for_whatever_came_before(changes: list[list[int]]) -> None:
    spans = in_order(percents([1, 1, 1, 1, 1]))
    for parts in changes:
        spans = reshare(spans, percents(parts))
        for variant, part in zip(FIVE, parts, strict=True):
            assert abs(widths(spans)[variant] / PARTS - part / sum(parts)) < 1e-8
    assert spans[-1].end == PARTS
    assert [span.end for span in spans] == sorted({span.end for span in spans})


@given(changes=st.lists(shares, min_size=1, max_size=20))
def test_only_what_others_give_up_changes_hands(changes: list[list[int]]) -> None:
    spans = in_order(percents([1, 1, 1, 1, 1]))
    for parts in changes:
        after = reshare(spans, percents(parts))
        had, has = widths(spans), widths(after)
        gained = sum(max(0, has[variant] - had[variant]) for variant in FIVE)
        ends = sorted({span.end for span in (*spans, *after)})
        moved = sum(
            end - start
            for start, end in zip([0, *ends], ends, strict=False)
            if Split(spans).owner(start) != Split(after).owner(start)
        )
        assert moved == gained
        spans = after


@given(unit=units, salt=salts, others=st.tuples(st.integers(1, 98), st.booleans()))
def test_a_rollout_keeps_all_who_are_in_it_from_step_to_step(unit: str, salt: str, others: tuple[int, bool]) -> None:
    """Also on a route whose points have been dealt out before, and the way back gives everybody back."""
    before = set_weights("support.triage", {str(OTHER): others[0], str(OLD): 100 - others[0]})
    before = set_weights("support.triage", {str(OLD): 100}, before if others[1] else None)
    state = begin_rollout(NEW, OLD, (5, 25, 100), "ev_1", before=before)
    seen = [owner(state, salt, unit)]
    for _ in (25, 100):
        state = promote(state)
        seen.append(owner(state, salt, unit))
    assert seen in ([NEW, NEW, NEW], [OLD, NEW, NEW], [OLD, OLD, NEW])
    assert owner(roll_back(state), salt, unit) == OLD


def test_a_persons_point_stays_what_it_is_from_release_to_release() -> None:
    assert unit_digest("salt", "jane") == "7b604efb91de7d5b"
    assert point_of("ffffffffffffffff") == PARTS - 1
    assert point_of("0000000000000000") == 0


# ---------------------------------------------------------------------------- rollouts


def test_a_rollout_goes_step_by_step_to_everybody() -> None:
    state = begin_rollout(NEW, OLD, (5, 25, 100), "ev_1")
    assert state.variants == (Weighted(NEW, 5.0), Weighted(OLD, 95.0))

    state = promote(state)
    assert state.variants == (Weighted(NEW, 25.0), Weighted(OLD, 75.0))

    state = promote(state)
    assert state.variants == (Weighted(NEW, 100.0),)
    assert state.rollout == Rollout(NEW, OLD, (5, 25, 100), 2, "ev_1")

    with pytest.raises(Conflict, match="nothing to promote"):
        promote(state)


def test_a_rollout_without_an_incumbent_serves_everybody_at_once() -> None:
    assert begin_rollout(NEW, None, (5, 25, 100), "ev_1").variants == (Weighted(NEW, 100.0),)


def test_abort_gives_everything_back_to_the_incumbent() -> None:
    state = promote(begin_rollout(NEW, OLD, (5, 25, 100), "ev_1"))

    assert abort(state) == RouteState((Weighted(OLD, 100.0),))


@pytest.mark.parametrize("steps", [(100,), (5, 100)])
def test_a_finished_rollout_cannot_be_aborted(steps: tuple[int, ...]) -> None:
    state = begin_rollout(NEW, OLD, steps, "ev_1")
    for _ in steps[1:]:
        state = promote(state)

    with pytest.raises(Conflict, match="undo"):
        abort(state)


@pytest.mark.parametrize("action", [promote, abort])
def test_weights_set_by_hand_are_no_rollout(action: Any) -> None:
    with pytest.raises(Conflict):
        action(set_weights("support.triage", {str(OLD): 100}))


def test_a_finished_rollout_can_be_rolled_back_unless_there_was_nobody_before() -> None:
    assert roll_back(begin_rollout(NEW, OLD, (100,), "ev_1")) == RouteState((Weighted(OLD, 100.0),))
    with pytest.raises(Conflict, match="from nobody"):
        roll_back(begin_rollout(NEW, None, (100,), "ev_1"))


def test_a_rollout_that_is_held_keeps_its_step_and_goes_on_from_there() -> None:
    state = begin_rollout(NEW, OLD, (5, 25, 100), "ev_1")

    held = hold(state, "over the holidays")

    assert held.rollout is not None
    assert held.rollout.paused == "over the holidays"
    assert held.variants == state.variants
    assert resume(held) == state
    assert promote(held) == promote(state)


@pytest.mark.parametrize("action", [resume, lambda state: hold(state, "why")])
def test_a_rollout_that_has_ended_is_neither_held_nor_resumed(action: Any) -> None:
    with pytest.raises(Conflict, match="no rollout is under way"):
        action(begin_rollout(NEW, OLD, (100,), "ev_1"))


def test_a_step_that_a_person_went_back_to_waits_for_them() -> None:
    back = restored(begin_rollout(NEW, OLD, (5, 100), "ev_1"), "2026-01-01")

    assert back.rollout is not None
    assert back.rollout.paused is not None
    assert "resume" in back.rollout.paused


# ---------------------------------------------------------------------------- how a route asks


def test_new_shares_leave_how_a_route_asks_as_it_is_and_end_its_schedule() -> None:
    before = RouteState(
        (Weighted(OLD, 100.0),), fallbacks=(OTHER,), shadows=(OTHER,), sticky="session",
        schedule=(Planned("2027-01-01", (Weighted(OTHER, 100.0),)),),
    )  # fmt: skip

    for after in (
        set_weights("support.triage", {str(NEW): 100}, before),
        begin_rollout(NEW, OLD, (5, 100), "e", before=before),
    ):
        assert (after.fallbacks, after.shadows, after.sticky) == ((OTHER,), (OTHER,), "session")
        assert after.schedule == ()


def test_everybody_that_may_be_asked_is_known_before_they_are() -> None:
    state = RouteState((Weighted(OLD, 100.0),), schedule=(Planned("2027", (Weighted(OTHER, 100.0),)),), shadows=(NEW,))

    assert set(state.everybody) == {OLD, OTHER, NEW}


def test_fallbacks_are_of_the_same_prompt_each_once() -> None:
    assert asked_of("support.triage", [str(OLD), str(OTHER), str(OLD)], "fallbacks") == (OLD, OTHER)
    with pytest.raises(BadInput, match="another prompt") as caught:
        asked_of("support.triage", ["another@1+m"], "fallbacks")
    assert caught.value.param == "fallbacks"
    with pytest.raises(BadInput, match="at most 8"):
        asked_of("support.triage", [f"support.triage@{number}+m" for number in range(1, 10)], "shadows")


# ---------------------------------------------------------------------------- schedules

NOW = "2026-11-21T12:00:00.000000+00:00"


def planned(*times: str) -> tuple[Planned, ...]:
    return planned_of("support.triage", [(at, {str(NEW): 100}) for at in times], NOW)


def test_times_are_kept_in_utc_whatever_zone_they_were_given_in() -> None:
    assert [step.at for step in planned("2026-11-21T14:00:00+01:00", "2026-12-01T00:00:00Z")] == [
        "2026-11-21T13:00:00.000000+00:00",
        "2026-12-01T00:00:00.000000+00:00",
    ]


@pytest.mark.parametrize(
    ("times", "param", "said"),
    [
        (("2026-11-21T12:00:00Z",), "schedule[0].at", "not after now"),
        (("2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z"), "schedule[1].at", "not after the step before it"),
        (("tomorrow",), "schedule[0].at", "is no time"),
        (("2026-11-22T12:00:00",), "schedule[0].at", "no time zone"),
    ],
)
def test_times_that_cannot_be_are_refused(times: tuple[str, ...], param: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        planned(*times)
    assert caught.value.param == param


def test_of_several_planned_shares_that_are_due_the_last_is_taken() -> None:
    schedule = planned_of(
        "support.triage",
        [("2026-11-22T00:00:00Z", {str(NEW): 10, str(OLD): 90}), ("2026-11-23T00:00:00Z", {str(NEW): 50, str(OLD): 50}),
         ("2026-11-24T00:00:00Z", {str(NEW): 100})],
        NOW,
    )  # fmt: skip
    state = RouteState((Weighted(OLD, 100.0),), schedule=schedule)

    after = take_planned(state, "2026-11-23T08:00:00.000000+00:00")

    assert after.variants == (Weighted(NEW, 50.0), Weighted(OLD, 50.0))
    assert after.schedule == schedule[2:]
    with pytest.raises(Conflict, match="nothing"):
        take_planned(after, "2026-11-23T08:00:00.000000+00:00")


def test_going_back_does_not_take_planned_shares_again() -> None:
    schedule = planned("2026-11-22T00:00:00Z", "2026-11-24T00:00:00Z")

    back = restored(RouteState((Weighted(OLD, 100.0),), schedule=schedule), "2026-11-22T01:00:00.000000+00:00")

    assert back.schedule == schedule[1:]


# ---------------------------------------------------------------------------- weights by hand


def test_weights_are_read_as_written() -> None:
    state = set_weights("support.triage", {str(NEW): 12.5, str(OTHER): 87.5})

    assert state.variants == (Weighted(NEW, 12.5), Weighted(OTHER, 87.5))
    assert state.incumbents == (NEW, OTHER)


def test_who_has_no_share_is_no_incumbent() -> None:
    assert set_weights("support.triage", {str(NEW): 0, str(OLD): 100}).incumbents == (OLD,)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "share from 0 to 100"),
        ({str(OLD): 99}, "add up to 99 percent, not to 100"),
        ({str(OLD): 50, str(NEW): 50.1}, "add up to 100.1"),
        ({str(OLD): 150, str(NEW): -50}, "share from 0 to 100"),
        ({str(OLD): float("nan")}, "share from 0 to 100"),
        ({"another@1+model-a": 100}, "another prompt"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        set_weights("support.triage", weights)
    assert caught.value.param == "variants"


@pytest.mark.parametrize(
    "text", ["support.triage", "support.triage@production+m", "support.triage@1", "@1+m", "a@1+m+b+c"]
)
def test_what_is_no_variant_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        set_weights("support.triage", {text: 100})


# ---------------------------------------------------------------------------- as data


@pytest.mark.parametrize(
    "state",
    [
        RouteState((Weighted(OLD, 100.0),)),
        RouteState((Weighted(OLD, 100.0),), moved=(None, 1)),
        RouteState((Weighted(OLD, 100.0),), moved=(1, 2)),
        begin_rollout(NEW, OLD, (5, 25, 100), "ev_1"),
        begin_rollout(NEW, None, (100,), "ev_1"),
        set_weights("support.triage", {str(NEW): 12.5, str(OTHER): 87.5}),
        set_weights("support.triage", {str(NEW): 40, str(OLD): 60}, set_weights("support.triage", {str(OLD): 100})),
        hold(begin_rollout(NEW, OLD, (5, 100), "ev_1", Rules(margin=0.1, latency_budget_ms=2000)), "a look first"),
        RouteState((Weighted(OLD, 100.0),), fallbacks=(NEW, OTHER), shadows=(OTHER,), sticky=("tenant", "plan")),
        RouteState(
            (Weighted(OLD, 100.0),), sticky="session", schedule=(Planned("2027-01-01", (Weighted(NEW, 100.0),)),)
        ),
    ],
)
def test_a_state_is_the_same_after_it_was_kept(state: RouteState) -> None:
    assert route_data.from_data(route_data.as_data(state)) == state
