from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadInput, BadName
from prompts.names import Variant
from service import routing
from service.errors import Conflict
from service.routing import Rollout, RouteState, Weighted, abort, begin_rollout, pick, promote, set_weights

OLD = Variant("support.triage", 1, "model-a")
NEW = Variant("support.triage", 1, "model-a", "ad-1")
OTHER = Variant("support.triage", 2, "model-b")
UNITS = [f"user-{number}" for number in range(2000)]
units = st.text(max_size=40)
salts = st.text(alphabet="0123456789abcdef", min_size=1, max_size=64)


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
    ],
)
def test_a_state_is_the_same_after_it_was_kept(state: RouteState) -> None:
    assert routing.from_data(routing.as_data(state)) == state
