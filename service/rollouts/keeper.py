"""Who moves rollouts: one loop a process looks at every route that evidence or a schedule may move, a few times a second.

Several replicas may look at the same time: what a revision comes to is written under the route's lock by whoever is
first, and the others find that it has moved.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from prompts.names import Variant
from service.errors import StorageFailed, no_route
from service.ids import now
from service.rollouts import moves
from service.rollouts.status import status_of
from service.rollouts.verifying import Answering, known_ask, verify
from service.rollouts.watching import Look, Step, began_at, watched
from service.route_data import from_data
from service.routing import Rollout, is_due
from service.snapshot import Routed, Snapshot
from service.store import prompts, routes
from service.store.database import Database
from suites.rollouts import VerificationInput, decide_verification

LOOK_S = 0.5
VERIFY_WITHIN_S = 3600.0  # an older promotion was verified long ago, or by the software of that time not at all
log = structlog.get_logger()


class Rollouts:
    """Looks at the snapshot's routes; costs nothing while none of them has a rollout or a schedule.

    `answering` is None for a process that moves nothing, and only tells how rollouts stand.
    """

    def __init__(self, database: Database, snapshot: Snapshot, answering: Answering | None) -> None:
        self._database = database
        self._snapshot = snapshot
        self._answering = answering
        self._steps: dict[str, Step] = {}
        self._looks: dict[str, tuple[int, Look]] = {}
        self._verified: set[tuple[str, int]] = set()
        self._asking: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look again and again until cancelled; outlasts a database that is away."""
        failing = False
        try:
            while self._answering is not None:
                await asyncio.sleep(LOOK_S)
                try:
                    await self.look()
                    failing = False
                except Exception as error:  # noqa: BLE001 - whatever is wrong with the database, rollouts wait for it
                    if not failing:
                        log.warning("rollouts wait", reason=f"{type(error).__name__}: {error}")
                    failing = True
        finally:
            await self.aclose()

    async def look(self) -> None:
        """Look at every route once, off the event loop. Candidates with all the traffic are asked beside: it may take minutes."""
        for prompt, routed in await asyncio.to_thread(self.decide):
            key, rollout = (prompt, routed.revision), routed.state.rollout
            if self._answering is not None and rollout is not None and key not in self._asking:
                task = asyncio.ensure_future(self._verify(self._answering, prompt, routed.revision, rollout))
                self._asking[key] = task
                task.add_done_callback(functools.partial(self._asked, key))

    async def asked(self) -> None:
        """Wait until every candidate that is being asked has answered, or not."""
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Stop asking. Safe to call twice."""
        for task in self._asking.values():
            task.cancel()
        await self.asked()

    def _asked(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        del self._asking[key]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a promotion could not be verified", prompt=key[0], exc_info=error)

    def decide(self) -> list[tuple[str, Routed]]:
        """Move what is to be moved now; returns the routes whose candidate has all the traffic and was not asked yet."""
        under_way = {name: routed for name, routed in self._snapshot.view.routes.items() if _moves_by_itself(routed)}
        for gone in self._looks.keys() - {name for name, routed in under_way.items() if watched(routed)}:
            self._steps.pop(gone, None)
            del self._looks[gone]
        return [(prompt, routed) for prompt, routed in under_way.items() if self._is_to_be_asked(prompt, routed)]

    def _is_to_be_asked(self, prompt: str, routed: Routed) -> bool:
        """Move one route, or tell that its candidate is to be asked. What goes wrong with it stops no other route."""
        try:
            if is_due(routed.state, now()):
                self._moved(moves.take_planned(self._database, prompt, routed.revision))
            elif (rollout := watched(routed)) is not None:
                self._decide(prompt, routed.revision, rollout)
            else:
                return routed.state.rollout is not None and self._is_unverified(prompt, routed.revision)
        except StorageFailed:
            raise
        except Exception:
            log.exception("a route cannot be moved", prompt=prompt, revision=routed.revision)
        return False

    def _decide(self, prompt: str, revision: int, rollout: Rollout) -> None:
        look = self._look(prompt, revision, rollout)
        verdict, reason = look.decision.verdict, look.decision.reason
        if verdict in ("promote", "roll_back") and look.is_whole:
            log.info("a rollout moves", prompt=prompt, verdict=verdict, reason=reason, revision=revision)
            self._moved(moves.step(self._database, prompt, revision, verdict, look.content, reason))
        elif look.is_split_found_broken:  # kept, so that it stays so for whoever looks next
            moves.note(self._database, prompt, revision, "pause", look.given.candidate, look.content)
            log.warning("a rollout is paused", prompt=prompt, reason=reason)

    def _look(self, prompt: str, revision: int, rollout: Rollout) -> Look:
        step = self._steps.get(prompt)
        if step is None or step.revision != revision:
            step = self._steps[prompt] = Step(self._database, prompt, revision, rollout)
        look = step.look(datetime.now(UTC))
        self._looks[prompt] = (revision, look)
        return look

    def _moved(self, record: dict[str, Any] | None) -> None:
        self._snapshot.refresh()
        if record is not None:
            self._steps.pop(record["prompt"], None)

    # ---------------------------------------------------------------------------- after the last step

    def _is_unverified(self, prompt: str, revision: int) -> bool:
        key = (prompt, revision)
        if key in self._verified:
            return False
        age_s = (datetime.now(UTC) - began_at(self._database, prompt, revision)).total_seconds()
        found = any(moves.find(self._database, prompt, revision, verdict) for verdict in ("verified", "unverified"))
        if age_s > VERIFY_WITHIN_S or found:
            self._verified.add(key)
            return False
        return True

    async def _verify(self, answering: Answering, prompt: str, revision: int, rollout: Rollout) -> None:
        given = await self._ask(answering, rollout.candidate)
        await asyncio.to_thread(self._keep, prompt, revision, rollout, given)

    async def _ask(self, answering: Answering, candidate: Variant) -> VerificationInput:
        compiled = await asyncio.to_thread(self._snapshot.prompt, candidate.prompt, candidate.version)
        ask = await asyncio.to_thread(known_ask, self._database, compiled, candidate)
        if ask is None:
            return VerificationInput(
                candidate=str(candidate), unasked="no suite has a case with the variables it takes"
            )
        return await verify(answering, ask, candidate)

    def _keep(self, prompt: str, revision: int, rollout: Rollout, given: VerificationInput) -> None:
        decision = decide_verification(given)
        content = {"about": "verification", "given": given.model_dump(mode="json")}
        content["decision"] = decision.model_dump(mode="json")
        if decision.verdict == "roll_back" and rollout.incumbent is not None:
            log.warning("a promotion is taken back", prompt=prompt, reason=decision.reason)
            self._moved(moves.step(self._database, prompt, revision, "roll_back", content, decision.reason))
        else:
            moves.note(self._database, prompt, revision, decision.verdict, given.candidate, content)
        self._verified.add((prompt, revision))

    # ---------------------------------------------------------------------------- what is shown

    def status(self, prompt: str) -> dict[str, Any]:
        """How a prompt's rollout stands. Raises NotFound where the prompt has no route."""
        with self._database.read() as session:
            record = routes.current(session, prompt)
            if record is None:
                raise no_route(prompt, is_known=prompts.exists(session, prompt))
        kept = self._looks.get(prompt)
        look = kept[1] if kept is not None and kept[0] == record["revision"] else self._look_anew(record)
        verified = moves.find(self._database, prompt, record["revision"], "verified") is not None
        return status_of(record, look, is_verified=verified)

    def _look_anew(self, record: Mapping[str, Any]) -> Look | None:
        """Where no loop of this process has looked at this revision: all of it, without disturbing one that will."""
        routed = Routed(from_data(record["state"]), record["revision"], record["salt"])
        rollout = watched(routed)
        if rollout is None:
            return None
        step = Step(self._database, record["prompt"], routed.revision, rollout)
        while not (look := step.look(datetime.now(UTC))).is_whole:
            continue
        return look

    def looks(self) -> dict[str, Look]:
        """The newest look at each rollout that is under way here, by prompt: for metrics."""
        return {prompt: look for prompt, (_, look) in self._looks.items()}


def _moves_by_itself(routed: Routed) -> bool:
    return routed.state.rollout is not None or bool(routed.state.schedule)
