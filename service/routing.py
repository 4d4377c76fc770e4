"""Who gets which variant, and how a route goes from one state to the next. Pure: state in, state out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadInput
from prompts.names import Variant, parse_variant
from service.errors import Conflict

Moved = tuple[int | None, int | None]  # the version that `production` came from, and the one it went to


@dataclass(frozen=True, slots=True)
class Weighted:
    """A variant and its share of the traffic, in percent."""

    variant: Variant
    percent: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """A move in steps: `candidate` takes `steps[step]` percent from `incumbent` on the evidence named."""

    candidate: Variant
    incumbent: Variant | None
    steps: tuple[int, ...]
    step: int
    evidence_id: str


@dataclass(frozen=True, slots=True)
class RouteState:
    """What one revision of a route says. `moved` is the move of `production` that was made with it, if any.

    Without variants the route has ended: the prompt's bare name is then served by nobody.
    """

    variants: tuple[Weighted, ...]
    rollout: Rollout | None = None
    moved: Moved | None = None

    @property
    def incumbents(self) -> tuple[Variant, ...]:
        """Variants that take traffic now."""
        return tuple(weighted.variant for weighted in self.variants if weighted.percent > 0)


def pick(variants: Sequence[Weighted], salt: str, unit: str) -> Variant:
    """The variant for one person (`unit`): the same as long as its share does not shrink.

    The first variant owns the points from 0 up to its share, the next those after it; a share that grows at the
    front keeps all who are in it.
    """
    point = _point(salt, unit) * sum(weighted.percent for weighted in variants)
    for weighted in variants:
        point -= weighted.percent
        if point < 0:
            return weighted.variant
    return next(weighted.variant for weighted in reversed(variants) if weighted.percent > 0)


def _point(salt: str, unit: str) -> float:
    """A point in [0, 1) from 53 bits of a keyed hash: all that a float holds."""
    digest = hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), key=salt.encode()[:64], digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def begin_rollout(candidate: Variant, incumbent: Variant | None, steps: Sequence[int], evidence_id: str) -> RouteState:
    """The state in which `candidate` has its first share; all of it where nothing was served before."""
    usable = tuple(steps) if incumbent is not None else (100,)
    return _at_step(Rollout(candidate, incumbent, usable, 0, evidence_id))


def promote(state: RouteState) -> RouteState:
    """The next step of the rollout under way; raises Conflict where there is none."""
    rollout = state.rollout
    if rollout is None or rollout.step + 1 >= len(rollout.steps):
        raise Conflict("no rollout is under way on this route: nothing to promote")
    return _at_step(Rollout(rollout.candidate, rollout.incumbent, rollout.steps, rollout.step + 1, rollout.evidence_id))


def abort(state: RouteState) -> RouteState:
    """The incumbent gets everything back; raises Conflict where no rollout is under way."""
    rollout = state.rollout
    if rollout is None or rollout.incumbent is None or rollout.step + 1 >= len(rollout.steps):
        raise Conflict("no rollout is under way on this route: `undo` takes back a finished one")
    return RouteState((Weighted(rollout.incumbent, 100.0),))


def _at_step(rollout: Rollout) -> RouteState:
    percent = float(rollout.steps[rollout.step])
    variants = [Weighted(rollout.candidate, percent)]
    if rollout.incumbent is not None and percent < 100:
        variants.append(Weighted(rollout.incumbent, 100.0 - percent))
    return RouteState(tuple(variants), rollout)


def set_weights(prompt: str, weights: dict[str, float]) -> RouteState:
    """A state from variants and percents as a person gives them; raises BadInput unless they add up to 100."""
    variants = tuple(Weighted(parse_variant(text), float(percent)) for text, percent in weights.items())
    foreign = next((str(w.variant) for w in variants if w.variant.prompt != prompt), None)
    if foreign:
        raise BadInput(f"{foreign!r} is a variant of another prompt than {prompt!r}", param="variants")
    if not variants or any(not 0 <= w.percent <= 100 for w in variants):  # NaN is not, either
        raise BadInput("give each variant a share from 0 to 100 percent", param="variants")
    total = sum(weighted.percent for weighted in variants)
    if abs(total - 100) > 1e-6:
        raise BadInput(f"the shares add up to {total:g} percent, not to 100", param="variants")
    return RouteState(variants)


def as_data(state: RouteState) -> dict[str, Any]:
    """Plain data of a state, from which `from_data` makes an equal one."""
    data: dict[str, Any] = {"variants": [{"variant": str(w.variant), "percent": w.percent} for w in state.variants]}
    if state.rollout is not None:
        data["rollout"] = {
            "candidate": str(state.rollout.candidate),
            "incumbent": str(state.rollout.incumbent) if state.rollout.incumbent else None,
            "steps": list(state.rollout.steps),
            "step": state.rollout.step,
            "evidence_id": state.rollout.evidence_id,
        }
    if state.moved is not None:
        data["moved"] = list(state.moved)
    return data


def from_data(data: dict[str, Any]) -> RouteState:
    variants = tuple(Weighted(parse_variant(item["variant"]), item["percent"]) for item in data["variants"])
    rollout = data.get("rollout")
    moved = data.get("moved")
    return RouteState(
        variants,
        Rollout(
            candidate=parse_variant(rollout["candidate"]),
            incumbent=parse_variant(rollout["incumbent"]) if rollout["incumbent"] else None,
            steps=tuple(rollout["steps"]),
            step=rollout["step"],
            evidence_id=rollout["evidence_id"],
        )
        if rollout
        else None,
        (moved[0], moved[1]) if moved else None,
    )
