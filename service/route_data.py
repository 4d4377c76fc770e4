"""States of routes as plain data, which is how they are kept and shown. A key that is absent means what routes did before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompts.names import parse_variant
from service.routing import Planned, Rollout, RouteState, Sticky
from service.splits import Span, Weighted
from suites.rollouts import Rules


def as_data(state: RouteState) -> dict[str, Any]:
    """Plain data of a state, from which `from_data` makes an equal one."""
    data: dict[str, Any] = {"variants": _shares(state.variants)}
    if state.rollout is not None:
        data["rollout"] = _rollout_data(state.rollout)
    if state.moved is not None:
        data["moved"] = list(state.moved)
    if state.spans:
        data["spans"] = [[str(span.variant), span.end] for span in state.spans]
    for name in ("fallbacks", "shadows"):
        if variants := getattr(state, name):
            data[name] = [str(variant) for variant in variants]
    if state.sticky is not None:
        data["sticky"] = sticky_data(state.sticky)
    if state.schedule:
        data["schedule"] = [{"at": step.at, "variants": _shares(step.variants)} for step in state.schedule]
    return data


def from_data(data: Mapping[str, Any]) -> RouteState:
    moved = data.get("moved")
    return RouteState(
        variants=_weighted(data["variants"]),
        rollout=_rollout(data["rollout"]) if data.get("rollout") else None,
        moved=(moved[0], moved[1]) if moved else None,
        spans=tuple(Span(parse_variant(variant), end) for variant, end in data.get("spans", ())),
        fallbacks=tuple(parse_variant(text) for text in data.get("fallbacks", ())),
        shadows=tuple(parse_variant(text) for text in data.get("shadows", ())),
        sticky=_sticky(data.get("sticky")),
        schedule=tuple(Planned(step["at"], _weighted(step["variants"])) for step in data.get("schedule", ())),
    )


def sticky_data(sticky: Sticky) -> Any:
    return {"variables": list(sticky)} if isinstance(sticky, tuple) else sticky


def _sticky(data: Any) -> Sticky | None:
    if isinstance(data, Mapping):
        return tuple(data["variables"])
    return "session" if data == "session" else "user" if data == "user" else None


def _shares(variants: Sequence[Weighted]) -> list[dict[str, Any]]:
    return [{"variant": str(weighted.variant), "percent": weighted.percent} for weighted in variants]


def _weighted(data: Sequence[Mapping[str, Any]]) -> tuple[Weighted, ...]:
    return tuple(Weighted(parse_variant(item["variant"]), item["percent"]) for item in data)


def _rollout_data(rollout: Rollout) -> dict[str, Any]:
    data: dict[str, Any] = {
        "candidate": str(rollout.candidate),
        "incumbent": str(rollout.incumbent) if rollout.incumbent else None,
        "steps": list(rollout.steps),
        "step": rollout.step,
        "evidence_id": rollout.evidence_id,
        "rules": rollout.rules.model_dump(mode="json"),
    }
    return data | ({"paused": rollout.paused} if rollout.paused is not None else {})


def _rollout(data: Mapping[str, Any]) -> Rollout:
    return Rollout(
        candidate=parse_variant(data["candidate"]),
        incumbent=parse_variant(data["incumbent"]) if data["incumbent"] else None,
        steps=tuple(data["steps"]),
        step=data["step"],
        evidence_id=data["evidence_id"],
        rules=Rules.model_validate(data.get("rules", {})),
        paused=data.get("paused"),
    )
