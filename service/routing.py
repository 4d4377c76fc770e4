"""How a route goes from one state to the next. Pure: state in, state out. Who owns which points is `service.splits`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from prompts.errors import BadInput
from prompts.names import Variant, parse_variant
from service.errors import Conflict
from service.splits import Span, Split, Weighted, in_order, reshare
from suites.rollouts import Rules

Moved = tuple[int | None, int | None]  # the version that `production` came from, and the one it went to
Sticky = Literal["user", "session"] | tuple[str, ...]  # or the names of variables
MOST_ASKED = 8  # fallbacks, or shadows, of one route
MOST_PLANNED = 50


@dataclass(frozen=True, slots=True)
class Rollout:
    """A move in steps: `candidate` takes `steps[step]` percent from `incumbent` on the evidence named.

    `rules` are fixed when it begins. `paused` is why a person holds it, None while evidence moves it.
    """

    candidate: Variant
    incumbent: Variant | None
    steps: tuple[int, ...]
    step: int
    evidence_id: str
    rules: Rules = field(default_factory=Rules)
    paused: str | None = None

    @property
    def is_at_last_step(self) -> bool:
        return self.step + 1 >= len(self.steps)


@dataclass(frozen=True, slots=True)
class Planned:
    """Shares that a person planned ahead: from `at` (UTC, as `ids.now` writes it) on."""

    at: str
    variants: tuple[Weighted, ...]


@dataclass(frozen=True, slots=True)
class RouteState:
    """What one revision of a route says. `moved` is the move of `production` that was made with it, if any.

    Without variants the route has ended: the prompt's bare name is then served by nobody. `spans` is who owns which
    points, empty where the variants own them in their order. `sticky` is what a person stays on a variant by, None for
    the user, else the session. `fallbacks` are asked in turn where a variant cannot answer, `shadows` beside every answer.
    """

    variants: tuple[Weighted, ...]
    rollout: Rollout | None = None
    moved: Moved | None = None
    spans: tuple[Span, ...] = ()
    fallbacks: tuple[Variant, ...] = ()
    shadows: tuple[Variant, ...] = ()
    sticky: Sticky | None = None
    schedule: tuple[Planned, ...] = ()

    @property
    def incumbents(self) -> tuple[Variant, ...]:
        """Variants that take traffic now."""
        return tuple(weighted.variant for weighted in self.variants if weighted.percent > 0)

    @property
    def layout(self) -> tuple[Span, ...]:
        """Who owns which points; nothing for a route that has ended."""
        return self.spans or (in_order(self.variants) if self.variants else ())

    @property
    def split(self) -> Split:
        return Split(self.layout)

    @property
    def everybody(self) -> tuple[Variant, ...]:
        """Every variant that may be asked, now or by the schedule."""
        planned = (weighted.variant for step in self.schedule for weighted in step.variants)
        return (*(w.variant for w in self.variants), *self.fallbacks, *self.shadows, *planned)


def shared(before: RouteState | None, variants: Sequence[Weighted]) -> RouteState:
    """New shares for a route: who keeps a share stays in it, and how the route asks stays as it is.

    The rollout, the schedule and a move of `production` are those of the state before, and end with it.
    """
    if before is None:
        return RouteState(tuple(variants))
    spans = reshare(before.layout, variants) if variants else ()
    kept = replace(before, variants=tuple(variants), rollout=None, moved=None, schedule=())
    return replace(kept, spans=() if not variants or spans == in_order(variants) else spans)


def begin_rollout(
    candidate: Variant,
    incumbent: Variant | None,
    steps: Sequence[int],
    evidence_id: str,
    rules: Rules | None = None,
    before: RouteState | None = None,
) -> RouteState:
    """The state in which `candidate` has its first share; all of it where nothing was served before."""
    usable = tuple(steps) if incumbent is not None else (100,)
    return _at_step(before, Rollout(candidate, incumbent, usable, 0, evidence_id, rules or Rules()))


def checked_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Percents that rise to 100; raises BadInput."""
    if not steps or steps[-1] != 100 or steps[0] < 1 or list(steps) != sorted(set(steps)):
        raise BadInput(f"steps: {list(steps)} do not rise to 100 percent: write [5, 25, 100]", param="steps")
    return tuple(steps)


def promote(state: RouteState) -> RouteState:
    """The next step of the rollout under way; raises Conflict where there is none."""
    rollout = state.rollout
    if rollout is None or rollout.is_at_last_step:
        raise Conflict("no rollout is under way on this route: nothing to promote")
    return _at_step(state, replace(rollout, step=rollout.step + 1, paused=None))


def abort(state: RouteState) -> RouteState:
    """The incumbent gets everything back; raises Conflict where no rollout is under way."""
    rollout = state.rollout
    if rollout is None or rollout.incumbent is None or rollout.is_at_last_step:
        raise Conflict("no rollout is under way on this route: `undo` takes back a finished one")
    return roll_back(state)


def roll_back(state: RouteState) -> RouteState:
    """The same from any step, the last one too; raises Conflict where there is nobody to give the traffic back to."""
    if state.rollout is None or state.rollout.incumbent is None:
        raise Conflict("this rollout took the traffic from nobody: there is none to give it back to")
    return shared(state, (Weighted(state.rollout.incumbent, 100.0),))


def hold(state: RouteState, reason: str) -> RouteState:
    """The rollout stays at its step until a person lets it go on; raises Conflict where none is under way."""
    return replace(state, rollout=replace(_under_way(state), paused=reason), moved=None)


def resume(state: RouteState) -> RouteState:
    """Evidence moves the rollout again, counted anew; raises Conflict where none is under way."""
    return replace(state, rollout=replace(_under_way(state), paused=None), moved=None)


def _under_way(state: RouteState) -> Rollout:
    if state.rollout is None or state.rollout.is_at_last_step:
        raise Conflict("no rollout is under way on this route")
    return state.rollout


def _at_step(before: RouteState | None, rollout: Rollout) -> RouteState:
    percent = float(rollout.steps[rollout.step])
    variants = [Weighted(rollout.candidate, percent)]
    if rollout.incumbent is not None and percent < 100:
        variants.append(Weighted(rollout.incumbent, 100.0 - percent))
    return replace(shared(before, variants), rollout=rollout)


def is_due(state: RouteState, at: str) -> bool:
    """Whether the next planned shares are to be taken at this time."""
    return bool(state.schedule) and state.schedule[0].at <= at


def take_planned(state: RouteState, at: str) -> RouteState:
    """The planned shares that are due by now, of several the last; raises Conflict where none are."""
    if not is_due(state, at):
        raise Conflict("nothing of this route's schedule is due")
    due = [step for step in state.schedule if step.at <= at]
    return replace(shared(state, due[-1].variants), schedule=state.schedule[len(due) :])


def restored(state: RouteState, at: str) -> RouteState:
    """A state that a person went back to: what was due since stays undone, and a rollout waits for that person."""
    kept = replace(state, moved=None, schedule=tuple(step for step in state.schedule if step.at > at))
    if kept.rollout is None or kept.rollout.is_at_last_step:
        return kept
    return hold(kept, "a person went back to this step: `resume` lets it go on, `promote` and `abort` decide")


def set_weights(prompt: str, weights: Mapping[str, float], before: RouteState | None = None) -> RouteState:
    """A state from variants and percents as a person gives them; raises BadInput unless they add up to 100."""
    return shared(before, weighted_of(prompt, weights, "variants"))


def weighted_of(prompt: str, weights: Mapping[str, float], param: str) -> tuple[Weighted, ...]:
    """Shares as a person gives them; raises BadInput, which names `param`."""
    variants = tuple(Weighted(parse_variant(text), float(percent)) for text, percent in weights.items())
    _refuse_foreign(prompt, [w.variant for w in variants], param)
    if len({w.variant for w in variants}) < len(variants):  # `a@01+m` is `a@1+m`
        twice = Counter(str(w.variant) for w in variants).most_common(1)[0][0]
        raise BadInput(f"{twice!r} is named twice: give it one share", param=param)
    if not variants or any(not 0 <= w.percent <= 100 for w in variants):  # NaN is not, either
        raise BadInput("give each variant a share from 0 to 100 percent", param=param)
    total = sum(weighted.percent for weighted in variants)
    if abs(total - 100) > 1e-6:
        raise BadInput(f"the shares add up to {total:g} percent, not to 100", param=param)
    return variants


def asked_of(prompt: str, texts: Sequence[str], param: str) -> tuple[Variant, ...]:
    """Fallbacks or shadows as a person names them; raises BadInput, which names `param`."""
    variants = tuple(dict.fromkeys(parse_variant(text) for text in texts))
    _refuse_foreign(prompt, variants, param)
    if len(variants) > MOST_ASKED:
        raise BadInput(f"{param}: {len(variants)} variants: name at most {MOST_ASKED}", param=param)
    return variants


def planned_of(prompt: str, steps: Sequence[tuple[str, Mapping[str, float]]], after: str) -> tuple[Planned, ...]:
    """A schedule as a person gives it; raises BadInput unless its times follow one another and `after`."""
    if len(steps) > MOST_PLANNED:
        raise BadInput(f"schedule: {len(steps)} steps: give at most {MOST_PLANNED}", param="schedule")
    planned = tuple(
        Planned(_utc(at, f"schedule[{place}].at"), weighted_of(prompt, weights, f"schedule[{place}].variants"))
        for place, (at, weights) in enumerate(steps)
    )
    for place, (earlier, step) in enumerate(zip([after, *(p.at for p in planned)], planned, strict=False)):
        if step.at <= earlier:
            what = f"now, {after}" if place == 0 else f"the step before it, {earlier}"
            raise BadInput(f"schedule[{place}].at: {step.at} is not after {what}", param=f"schedule[{place}].at")
    return planned


def _utc(text: str, param: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{param}: {text[:60]!r} is no time: write 2026-12-24T08:00:00Z", param=param) from error
    if at.tzinfo is None:
        raise BadInput(f"{param}: {text!r} has no time zone: end it with Z or +01:00", param=param)
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _refuse_foreign(prompt: str, variants: Sequence[Variant], param: str) -> None:
    foreign = next((str(variant) for variant in variants if variant.prompt != prompt), None)
    if foreign:
        raise BadInput(f"{foreign!r} is a variant of another prompt than {prompt!r}", param=param)
