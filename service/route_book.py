"""Routes as they are kept: every revision with who made it, why, and the evidence it rests on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prompts.errors import BadInput
from prompts.names import PRODUCTION, Variant
from service import route_data, routing
from service.errors import Conflict, NeedsEvidence, NotFound, no_route
from service.identity import Principal
from service.ids import new_id, now
from service.revisions import check_revision
from service.routing import Moved, RouteState, Sticky
from service.settings import Settings
from service.splits import Weighted
from service.store import adapters, keys, prompts, routes
from service.store.database import Database, bump_revision
from service.store.prompts import LabelRecord, VersionRecord
from service.store.session import Session
from suites.evidence_digest import record_digest
from suites.rollouts import Rules


@dataclass(frozen=True, slots=True)
class HowAsked:
    """How a route asks, beside its shares: None keeps what it has, nothing in a tuple takes it away.

    `sticky` False keeps, None is the default. `schedule` is never kept: who sets shares by hand ends what was planned.
    """

    fallbacks: tuple[str, ...] | None = None
    shadows: tuple[str, ...] | None = None
    sticky: Sticky | bool | None = False
    schedule: tuple[tuple[str, Mapping[str, float]], ...] = ()


class RouteBook:
    """Reads and writes routes. Every method is one transaction."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def show(self, prompt: str) -> dict[str, Any]:
        """The current revision. Raises NotFound where the prompt has no route."""
        with self._database.read() as session:
            return public(_current(session, prompt))

    def history(self, prompt: str) -> list[dict[str, Any]]:
        """Every revision, newest first; none where the prompt has no route. Raises NotFound where there is no such prompt."""
        with self._database.read() as session:
            found = routes.history(session, prompt)
            if not (found or prompts.exists(session, prompt)):
                raise no_route(prompt, is_known=False)
        return [public(record) for record in found]

    def set(
        self,
        prompt: str,
        weights: Mapping[str, float],
        actor: Principal,
        reason: str,
        if_revision: int | None = None,
        how: HowAsked | None = None,
    ) -> dict[str, Any]:
        """Weights given by an admin, with a reason that is kept as evidence of the kind `manual`."""
        actor.require("admin", "set a route")
        routing.set_weights(prompt, weights)  # what is wrong with them is told before the reason is asked for
        _need_reason(reason)
        with self._database.write() as session:
            current = routes.current(session, prompt, for_update=True)
            check_revision(f"route {prompt}", if_revision, current["revision"] if current else None)
            before = route_data.from_data(current["state"]) if current else None
            state = _asking(routing.set_weights(prompt, weights, before), prompt, how or HowAsked())
            _check_variants(session, state, self._settings)
            if how is not None and isinstance(how.sticky, tuple):
                _check_sticky(session, state, how.sticky)
            candidate = str(state.variants[0].variant)
            evidence_id = add_manual_evidence(session, prompt, candidate, actor, reason)
            return public(append(session, prompt, state, "set", actor, reason, evidence_id))

    def roll_out(
        self, candidate: Variant, steps: tuple[int, ...], rules: Rules, actor: Principal, reason: str
    ) -> dict[str, Any]:
        """Begin a rollout by hand; evidence moves it from then on. Raises Conflict unless one variant has the traffic now."""
        actor.require("admin", "begin a rollout")
        _need_reason(reason)
        with self._database.write() as session:
            current = routes.current(session, candidate.prompt, for_update=True)
            before = route_data.from_data(current["state"]) if current else None
            serving = incumbents(session, candidate.prompt)
            if len(serving) != 1 or candidate in serving:
                has = ", ".join(map(str, serving)) or "nobody"
                raise Conflict(
                    f"a rollout takes all the traffic of one other variant: {has} has it now; set that first"
                )
            evidence_id = add_manual_evidence(session, candidate.prompt, str(candidate), actor, reason)
            state = routing.begin_rollout(candidate, serving[0], steps, evidence_id, rules, before)
            _check_variants(session, state, self._settings)
            return public(append(session, candidate.prompt, state, "rollout", actor, reason, evidence_id))

    def pause(self, prompt: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """The rollout stays at its step until `resume`; clear harm still takes it back."""
        return self._step(prompt, actor, "pause", reason)

    def resume(self, prompt: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """Evidence moves the rollout again: what is counted begins anew."""
        return self._step(prompt, actor, "resume", reason)

    def promote(self, prompt: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """The rollout's next step, on the evidence that it began with."""
        return self._step(prompt, actor, "promote", reason)

    def abort(self, prompt: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """End the rollout under way: the incumbent gets all the traffic back."""
        return self._step(prompt, actor, "abort", reason)

    def _step(self, prompt: str, actor: Principal, action: str, reason: str | None) -> dict[str, Any]:
        actor.require("admin", f"{action} a route")
        with self._database.write() as session:
            current = _current(session, prompt, for_update=True)
            before = route_data.from_data(current["state"])
            moves: dict[str, Callable[[RouteState], RouteState]] = {
                "promote": routing.promote,
                "abort": routing.abort,
                "pause": lambda state: routing.hold(state, reason or f"paused by {actor.id}"),
                "resume": routing.resume,
            }
            after = moves[action](before)
            evidence_id = before.rollout.evidence_id if before.rollout else None
            return public(append(session, prompt, after, action, actor, reason, evidence_id))

    def undo(self, prompt: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """Restore the revision before the current one, and `production` with it where that had moved.

        Undoing again goes one revision further back. Raises Conflict where there is nothing before.
        """
        with self._database.write() as session:
            return _undo(session, prompt, actor, reason)


def begin(
    session: Session,
    candidate: Variant,
    steps: tuple[int, ...],
    evidence_id: str,
    actor: Principal,
    beaten: frozenset[str],
    rules: Rules | None = None,
) -> dict[str, Any]:
    """Give the winner of an evidence record its first share; the same evidence again changes nothing.

    Raises NeedsEvidence where another variant than those it has `beaten` takes the traffic by now, where a person splits
    the traffic (whose share the winner takes is then that person's to say) or has ended it.
    """
    done = routes.by_evidence(session, candidate.prompt, evidence_id)
    if done is not None:
        return public(done)
    current = routes.current(session, candidate.prompt, for_update=True)  # nobody moves it until this is written
    serving = incumbents(session, candidate.prompt)
    if current is not None and not serving:
        raise NeedsEvidence(
            f"the route of {candidate.prompt} was ended with its {PRODUCTION!r}: point that to a version first;"
            f" the evidence is {evidence_id}"
        )
    unbeaten = [str(variant) for variant in serving if str(variant) not in beaten and variant != candidate]
    if unbeaten:
        raise NeedsEvidence(
            f"the traffic went to {', '.join(unbeaten)} meanwhile, which this evidence does not compare"
        )
    if len(serving) > 1:
        raise NeedsEvidence(f"several variants share the traffic: set the route by hand; the evidence is {evidence_id}")
    incumbent = serving[0] if serving and serving[0] != candidate else None
    before = route_data.from_data(current["state"]) if current else None
    state = routing.begin_rollout(candidate, incumbent, steps, evidence_id, rules, before)
    return public(append(session, candidate.prompt, state, "fallback", actor, None, evidence_id))


def follow_production(
    session: Session,
    target: VersionRecord,
    moved: tuple[int | None, int],
    actor: Principal,
    reason: str | None,
    evidence_id: str | None,
) -> None:
    """Moving `production` by hand writes a revision too: that version, all traffic, no adapter."""
    variant = Variant(target.name, target.number, target.content["model"])
    state = replace(routing.shared(_state_now(session, target.name), (Weighted(variant, 100.0),)), moved=moved)
    append(session, target.name, state, "production", actor, reason, evidence_id)


def end_with_production(session: Session, prompt: str, version: int, actor: Principal, reason: str | None) -> None:
    """Removing `production` writes a revision without variants; a rollout under way ends with it.

    Who takes a prompt away wants no traffic on it, whatever step a rollout is at; `undo` brings that back, too.
    """
    state = replace(routing.shared(_state_now(session, prompt), ()), moved=(version, None))
    append(session, prompt, state, "production", actor, reason, None)


def undo_production(session: Session, prompt: str, moved: Moved, actor: Principal, reason: str | None) -> None:
    """Take back a move of `production`, and the revision of the route that it wrote.

    Raises Forbidden for anybody but an admin, and Conflict where the route moved since, or began with that move.
    """
    actor.require("admin", f"undo a move of {PRODUCTION!r}, which moves the route")
    newest, _ = _to_undo(session, prompt)
    if route_data.from_data(newest["state"]).moved != moved:
        raise Conflict(
            f"the route of {prompt} has moved since its {PRODUCTION!r} did (revision {newest['revision']}:"
            f" {newest['action']}): take that back first, with `turnout route {prompt} undo`"
        )
    _undo(session, prompt, actor, reason)


def _state_now(session: Session, prompt: str) -> RouteState | None:
    current = routes.current(session, prompt, for_update=True)
    return route_data.from_data(current["state"]) if current else None


def add_manual_evidence(session: Session, prompt: str, candidate: str, actor: Principal, reason: str) -> str:
    """Keep a person's reason as evidence of the kind `manual`; returns its id."""
    content = {"candidate": candidate, "reason": reason, "actor": actor.id}
    record: dict[str, Any] = {"id": new_id("ev"), "kind": "manual", "prompt": prompt, "verdict": "manual"}
    record |= {
        "candidate": candidate,
        "content": content,
        "actor": actor.id,
        "created_at": now(),
    }
    routes.add_evidence(session, {**record, "digest": record_digest(record)})
    return str(record["id"])


def incumbents(session: Session, prompt: str) -> tuple[Variant, ...]:
    """The variants that take this prompt's traffic now; none where nothing is served by its bare name."""
    current = routes.current(session, prompt)
    if current is not None:
        return route_data.from_data(current["state"]).incumbents
    production = production_variant(session, prompt)
    return (production,) if production else ()


def production_variant(session: Session, prompt: str) -> Variant | None:
    """The version behind `production` on its own model, without an adapter."""
    label = prompts.label(session, prompt, PRODUCTION)
    record = prompts.by_number(session, prompt, label.version) if label else None
    return Variant(prompt, record.number, record.content["model"]) if record else None


def _need_reason(reason: str) -> None:
    if not reason:
        raise NeedsEvidence("a route that is set by hand needs a reason (--reason), which is kept as evidence")


def _asking(state: RouteState, prompt: str, how: HowAsked) -> RouteState:
    """The state with what a person says of how it asks. Raises BadInput."""
    fallbacks = state.fallbacks if how.fallbacks is None else routing.asked_of(prompt, how.fallbacks, "fallbacks")
    shadows = state.shadows if how.shadows is None else routing.asked_of(prompt, how.shadows, "shadows")
    sticky = state.sticky if isinstance(how.sticky, bool) else how.sticky
    schedule = routing.planned_of(prompt, how.schedule, now())
    return replace(state, fallbacks=fallbacks, shadows=shadows, sticky=sticky, schedule=schedule)


def _check_variants(session: Session, state: RouteState, settings: Settings) -> None:
    for variant in dict.fromkeys(state.everybody):
        if prompts.by_number(session, variant.prompt, variant.version) is None:
            raise NotFound("version", f"{variant.prompt}@{variant.version}")
        settings.model(variant.model)
        adapter = adapters.lock(session, variant.adapter) if variant.adapter else None  # retention waits, or was first
        if variant.adapter and (adapter is None or adapter["base_model"] != variant.model):
            raise NotFound("adapter", variant.adapter, f"none of that name belongs to {variant.model!r}")


def _check_sticky(session: Session, state: RouteState, names: tuple[str, ...]) -> None:
    """Raise BadInput for a variable that no version on the route takes: nobody would stay anywhere by it."""
    pairs = {(variant.prompt, variant.version) for variant in state.everybody}
    known = sorted({name for record in prompts.by_numbers(session, pairs) for name in record.content["variables"]})
    unknown = [name for name in names if name not in known]
    if unknown:
        has = ", ".join(known) or "none"
        raise BadInput(
            f"sticky: no version on this route has a variable {unknown[0]!r}: {has} is there", param="sticky"
        )


def _current(session: Session, prompt: str, *, for_update: bool = False) -> dict[str, Any]:
    found = routes.current(session, prompt, for_update=for_update)
    if found is None:
        raise no_route(prompt, is_known=prompts.exists(session, prompt))
    return found


def _to_undo(session: Session, prompt: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest revision that was not undone, and the one before it that stands."""
    standing: list[dict[str, Any]] = []
    for record in reversed(routes.history(session, prompt)):
        if record["action"] == "undo":
            standing = [kept for kept in standing if kept["revision"] <= record["state"]["restored"]]
        else:
            standing.append(record)
    if len(standing) < 2:
        raise Conflict(f"nothing to undo: the route of {prompt} has no earlier revision")
    return standing[-1], standing[-2]


def _undo(session: Session, prompt: str, actor: Principal, reason: str | None) -> dict[str, Any]:
    actor.require("admin", "undo a route")
    current = _current(session, prompt, for_update=True)
    undone, before = _to_undo(session, prompt)
    state = route_data.from_data(undone["state"])
    if state.moved is not None:
        _move_production_back(session, prompt, state.moved, actor, reason)
    restored = routing.restored(route_data.from_data(before["state"]), now())
    data = {**route_data.as_data(restored), "undone": undone["revision"], "restored": before["revision"]}
    return public(_append_data(session, current, data, "undo", actor, reason, before["evidence_id"]))


def _move_production_back(session: Session, prompt: str, moved: Moved, actor: Principal, reason: str | None) -> None:
    label = prompts.label(session, prompt, PRODUCTION)
    before, after = moved
    if (label.version if label else None) != after:
        return
    standing = prompts.standing_moves(session, prompt, PRODUCTION)
    undoes = standing[-1]["revision"] if standing else None
    why = reason or "undo of the route"
    revision = prompts.last_label_revision(session, prompt, PRODUCTION) + 1
    if before is not None:
        record = LabelRecord(prompt, PRODUCTION, before, revision, now())
        prompts.move_label(session, record, actor=actor.id, reason=why, evidence_id=None, undoes=undoes)
    elif label is not None:
        gone = LabelRecord(prompt, PRODUCTION, label.version, revision, now())
        prompts.remove_label(session, gone, actor=actor.id, reason=why, undoes=undoes)


def append(
    session: Session,
    prompt: str,
    state: RouteState,
    action: str,
    actor: Principal,
    reason: str | None,
    evidence_id: str | None,
) -> dict[str, Any]:
    current = routes.current(session, prompt, for_update=True) or {"prompt": prompt, "revision": 0, "salt": None}
    return _append_data(session, current, route_data.as_data(state), action, actor, reason, evidence_id)


def _append_data(
    session: Session,
    current: dict[str, Any],
    state: dict[str, Any],
    action: str,
    actor: Principal,
    reason: str | None,
    evidence_id: str | None,
) -> dict[str, Any]:
    record = {"prompt": current["prompt"], "revision": current["revision"] + 1, "state": state, "action": action}
    record |= {"actor": actor.id, "reason": reason, "evidence_id": evidence_id, "at": now()}
    routes.append(session, record, current["salt"] or secrets.token_hex(16))
    detail = {"revision": record["revision"], "reason": reason, "evidence_id": evidence_id}
    keys.audit(
        session, at=record["at"], actor=actor.id, action=f"route.{action}", subject=current["prompt"], detail=detail
    )
    bump_revision(session)
    return record


def public(record: dict[str, Any]) -> dict[str, Any]:
    state = dict(record["state"])
    kept = {name: record[name] for name in ("prompt", "revision", "action", "actor", "reason", "evidence_id", "at")}
    return {**kept, **state}
