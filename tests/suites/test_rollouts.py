"""Verdicts on a step of a rollout, each from its counts alone."""

from __future__ import annotations

from typing import Any

import pytest

from prompts.errors import BadInput
from suites.evidence_digest import record_digest
from suites.rollouts import (
    MOST_UNITS,
    Arm,
    Attempt,
    Rules,
    StepDecision,
    StepInput,
    Tally,
    VerificationInput,
    decide_step,
    decide_verification,
    recompute_rollout,
)
from suites.verification import verify_record

CANDIDATE, INCUMBENT = "support.triage@2+m", "support.triage@1+m"
GOOD = {"candidate_units": Arm(good=400), "incumbent_units": Arm(good=7600), "seconds": 90.0}


def given(**more: Any) -> StepInput:
    known: dict[str, Any] = {
        "candidate": CANDIDATE, "incumbent": INCUMBENT, "step": 0, "steps": (5, 25, 100), "share": 5, "rules": Rules(),
        "candidate_units": Arm(), "incumbent_units": Arm(),
    }  # fmt: skip
    known |= more
    new, old = (Tally(good=known[arm].good, bad=known[arm].bad) for arm in ("candidate_units", "incumbent_units"))
    settled = {"candidate_settled": new, "incumbent_settled": old, "split": (new.units, old.units)}
    return StepInput(**{**settled, **known})


def told(**more: Any) -> tuple[str, str]:
    decision = decide_step(given(**more))
    return decision.verdict, decision.reason


def test_a_candidate_that_does_as_well_is_promoted() -> None:
    decision = decide_step(given(**GOOD))

    assert decision.verdict == "promote"
    assert decision.e_promote >= decision.promote_at == 20
    assert decision.reason == "no worse by 0.02: 0 of 400 bad with the candidate, 0 of 7600 bad with the incumbent"


def test_a_fifth_of_bad_outcomes_takes_the_traffic_back_at_once() -> None:
    bad = {"candidate_units": Arm(good=12, bad=3), "incumbent_units": Arm(good=284, bad=1), "bad_blocks": ((3, 1),)}

    assert told(**bad, seconds=6.0)[0] == "roll_back"


def test_what_is_bad_with_both_alike_takes_nothing_back() -> None:
    outage = {"candidate_units": Arm(bad=5), "incumbent_units": Arm(bad=95), "bad_blocks": ((1, 9), (0, 10)) * 5}

    assert told(**outage)[0] == "go_on"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"candidate_units": Arm(good=99), "incumbent_units": Arm(good=1881)}, "99 of 100 units a variant"),
        ({"seconds": 59.0}, "59 of 60 seconds"),
        ({}, ""),
        ({"candidate_units": Arm(good=390, bad=10), "incumbent_units": Arm(good=7500, bad=100)},
         "the evidence does not decide yet"),
    ],
)  # fmt: skip
def test_a_step_is_left_with_enough_units_time_and_evidence(more: dict[str, Any], reason: str) -> None:
    verdict, said = told(**{**GOOD, **more})

    assert verdict == ("go_on" if reason else "promote")
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"silent_s": 600.0}, "silence: nothing was asked for 600 s"),
        ({"candidate_units": Arm(good=400, others_since=270)}, "starved: 270 outcomes of the incumbent"),
        ({"incumbent_units": Arm(good=7600, others_since=5)}, "starved: 5 outcomes of the candidate"),
        ({"candidate_units": Arm(good=800)}, "sample ratio: 800 of 8400 units are the candidate's, whose share is 5%"),
        ({"is_split_broken": True}, "sample ratio"),
        ({"paused": "over the holidays"}, "over the holidays"),
        ({"incumbent_units": Arm(good=int(MOST_UNITS * 0.95)), "candidate_units": Arm(good=MOST_UNITS // 20)},
         f"{MOST_UNITS} units did not decide"),
    ],
)  # fmt: skip
def test_whatever_is_in_doubt_pauses_and_never_promotes(more: dict[str, Any], reason: str) -> None:
    verdict, said = told(**{**GOOD, **more})

    assert verdict == "pause"
    assert said.startswith(reason)


def test_what_a_slow_candidate_has_not_answered_yet_breaks_no_split_and_promotes_nobody() -> None:
    """Ten seconds behind the incumbent: the log has 400 units of one and none of the other, none of them settled."""
    late = {"candidate_units": Arm(others_since=400), "incumbent_units": Arm(good=400)}
    nothing = {"candidate_settled": Tally(), "incumbent_settled": Tally(), "split": (0, 0)}

    decision = decide_step(given(**late, **nothing))
    assert (decision.verdict, decision.is_split_broken) == ("pause", False)
    assert decision.e_promote == pytest.approx(1.0)
    assert decision.reason.startswith("starved")
    hanging = decide_step(given(**late, candidate_settled=Tally(), split=(0, 600)))
    assert (hanging.e_split > 1000, hanging.is_split_broken, hanging.verdict) == (True, False, "pause")


@pytest.mark.parametrize("doubt", [{"paused": "by hand"}, {"silent_s": 900.0}, {"is_split_broken": True}])
def test_clear_harm_takes_the_traffic_back_in_spite_of_any_doubt(doubt: dict[str, Any]) -> None:
    bad = {"candidate_units": Arm(good=40, bad=10), "incumbent_units": Arm(good=950), "bad_blocks": ((10, 0),)}

    assert told(**bad, **doubt)[0] == "roll_back"


def test_a_candidate_that_gets_more_than_its_share_is_not_blamed_for_that() -> None:
    """Bad at the same rate, but with half of the units at a share of 5%: the split is broken, not the candidate."""
    bad = {
        "candidate_units": Arm(good=190, bad=10),
        "incumbent_units": Arm(good=190, bad=10),
        "bad_blocks": ((5, 5),) * 2,
    }

    assert told(**bad)[0] == "pause"


def test_the_more_steps_the_stronger_the_evidence_that_rolls_back() -> None:
    assert decide_step(given(steps=(50, 100))).roll_back_at == 20
    assert decide_step(given(steps=(5, 25, 100))).roll_back_at == 40


# ---------------------------------------------------------------------------- verification


@pytest.mark.parametrize(
    ("attempts", "unasked", "verdict"),
    [
        (("ModelTimeout", "ok"), None, "verified"),
        (("ModelUnavailable",) * 3, None, "roll_back"),
        ((), "no suite has a case", "unverified"),
    ],
)
def test_one_answer_verifies_and_none_rolls_back(attempts: tuple[str, ...], unasked: str | None, verdict: str) -> None:
    asked = tuple(Attempt(status=status) for status in attempts)

    assert (
        decide_verification(VerificationInput(candidate=CANDIDATE, attempts=asked, unasked=unasked)).verdict == verdict
    )


# ---------------------------------------------------------------------------- evidence


def record(about: str = "step") -> dict[str, Any]:
    asked = (
        given(**GOOD) if about == "step" else VerificationInput(candidate=CANDIDATE, attempts=(Attempt(status="ok"),))
    )
    decision = decide_step(asked) if isinstance(asked, StepInput) else decide_verification(asked)
    content = {"about": about, "given": asked.model_dump(mode="json"), "decision": decision.model_dump(mode="json")}
    kept = {"id": "ev_1", "kind": "rollout", "prompt": "support.triage", "verdict": decision.verdict,
            "candidate": CANDIDATE, "content": content, "actor": "rollouts", "created_at": "2026-11-21"}  # fmt: skip
    return {**kept, "digest": record_digest(kept)}


@pytest.mark.parametrize("about", ["step", "verification"])
def test_evidence_recomputes_to_the_same(about: str) -> None:
    assert verify_record(record(about)) == []


def test_counts_that_were_changed_no_longer_give_the_decision() -> None:
    kept = record()
    kept["content"]["given"]["candidate_settled"]["bad"] = 100
    kept["digest"] = record_digest(kept)

    assert {found.path.rpartition(".")[2] for found in verify_record(kept)} >= {"verdict", "e_promote", "reason"}


@pytest.mark.parametrize(
    ("column", "value"), [("verdict", "roll_back"), ("candidate", INCUMBENT), ("prompt", "another"), ("actor", "me")]
)
def test_columns_that_were_changed_are_told(column: str, value: str) -> None:
    assert {found.path for found in verify_record({**record(), column: value})} >= {"digest"}


@pytest.mark.parametrize(
    "content", [{}, {"about": "step"}, {"about": "step", "given": {"share": 0}}, {"about": "verification"}]
)
def test_content_that_cannot_be_read_is_no_evidence(content: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no rollout's input"):
        recompute_rollout(content)


def test_a_decision_is_the_same_after_it_was_kept() -> None:
    decision = decide_step(given(**GOOD))

    assert StepDecision.model_validate_json(decision.model_dump_json()) == decision
