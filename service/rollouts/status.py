"""How a rollout stands, as it is shown: the step, what was counted for each variant, and what that says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from service.rollouts.watching import Look
from suites.rollouts import Arm

State = Literal["none", "running", "paused", "rolled_back", "aborted", "finished"]
_ENDED: Mapping[str, State] = {"rollback": "rolled_back", "abort": "aborted"}


def status_of(record: Mapping[str, Any], look: Look | None, *, is_verified: bool) -> dict[str, Any]:
    """The status of a route's current revision; `look` where a rollout is under way on it.

    `state` is `running`, `paused` (`reason` says why), `rolled_back`, `aborted`, `finished`, or `none` where there is no rollout.
    """
    rollout = record["state"].get("rollout")
    shown = {
        "prompt": record["prompt"],
        "revision": record["revision"],
        "since": record["at"],
        "state": _state(record, look),
        "reason": look.decision.reason if look else record["reason"],
        "evidence_id": record["evidence_id"],
        "variants": record["state"]["variants"],
    }
    if rollout is not None:
        shown |= {name: rollout[name] for name in ("candidate", "incumbent", "steps", "step")}
        shown["is_verified"] = is_verified
    return shown | (_figures(look) if look else {})


def _state(record: Mapping[str, Any], look: Look | None) -> State:
    if look is not None:
        return "paused" if look.decision.verdict == "pause" else "running"
    if record["state"].get("rollout") is not None:
        return "finished"
    return _ENDED.get(record["action"], "none")


def _figures(look: Look) -> dict[str, Any]:
    given, decision = look.given, look.decision
    return {
        "share": given.share,
        "seconds": given.seconds,
        "units": {"candidate": _arm(given.candidate_units), "incumbent": _arm(given.incumbent_units)},
        "e_promote": decision.e_promote,
        "promote_at": decision.promote_at,
        "e_roll_back": decision.e_roll_back,
        "roll_back_at": decision.roll_back_at,
        "e_split": decision.e_split,
        "split_at": decision.split_at,
        "rules": given.rules.model_dump(mode="json"),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {"units": arm.units, "bad": arm.bad, "bad_share": arm.bad / arm.units if arm.units else None}
