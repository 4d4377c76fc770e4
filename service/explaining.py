"""Why somebody gets the variant they get: found by the code that serves them, told in words."""

from __future__ import annotations

from typing import Any

from service.choosing import Ask, Chance, chance
from service.errors import no_route
from service.route_data import as_data
from service.routing import Sticky
from service.snapshot import Routed, Snapshot
from service.splits import PARTS, Split


def explain(snapshot: Snapshot, ask: Ask) -> dict[str, Any]:
    """Which variant of the prompt `ask.model` would answer now, and why.

    `variant` is None for nobody in particular, who gets one by chance each time. Points are told in percent of all. Raises
    NotFound where the prompt has no route.
    """
    routed = snapshot.view.routes.get(ask.model)
    if routed is None:
        raise no_route(ask.model, is_known=ask.model in snapshot.view.newest)
    state = as_data(routed.state)
    found = chance(ask, routed)
    split = routed.state.split
    variant = str(split.owner(found.point)) if found.unit and routed.state.variants else None
    return {
        "prompt": ask.model,
        "revision": routed.revision,
        "variant": variant,
        "why": _why(routed, found, split, variant),
        "by": _by(ask, routed.state.sticky, found),
        "unit": found.unit or None,
        "point": _percent(found.point) if found.unit else None,
        "spans": _spans(split),
        **{name: state.get(name, []) for name in ("variants", "fallbacks", "shadows", "schedule")},
        "rollout": state.get("rollout"),
    }


def _why(routed: Routed, found: Chance, split: Split, variant: str | None) -> str:
    if not routed.state.variants:
        return "the route has ended: nobody serves the bare name until `production` points to a version"
    if variant is None:
        return "nobody in particular asks: each request falls to a variant by chance, in proportion to its share"
    span = _spans(split)[split.index(found.point)]
    share = sum(weighted.percent for weighted in routed.state.variants if str(weighted.variant) == variant)
    told = f"point {_percent(found.point):.4f} lies in {span['from']:g} to {span['to']:g}, which is {variant}'s ({share:g}% in all)"
    rollout = routed.state.rollout
    if rollout is not None:
        told += f"; the rollout of {rollout.candidate} is at step {rollout.step + 1} of {len(rollout.steps)}"
    return told


def _by(ask: Ask, sticky: Sticky | None, found: Chance) -> str:
    """What keeps this one on a variant: user, session, variables or nobody."""
    if not found.key:
        return "nobody"
    if isinstance(sticky, tuple):
        return "variables"
    return "user" if ask.unit and sticky != "session" else "session"


def _spans(split: Split) -> list[dict[str, Any]]:
    ends = [0, *(span.end for span in split.spans)]
    return [
        {"variant": str(span.variant), "from": _percent(start), "to": _percent(span.end)}
        for start, span in zip(ends, split.spans, strict=False)
    ]


def _percent(point: int) -> float:
    return round(100 * point / PARTS, 7)
