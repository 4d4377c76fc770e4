"""The service's settings, read anew without a request that notices: the whole application is made again beside the old one.

A generation is a context and the application on it. A new one is started first; from then on it takes every request, and the
old one ends when its last answer has gone out. Where the new settings are bad, or the new generation cannot start, nothing
has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from litestar.types import ASGIApp

from prompts.errors import TurnoutError
from service.context import Context
from service.errors import BadSetting
from service.settings import Settings
from service.snapshot import Routed

RELOAD = "turnout.reload"  # in an ASGI scope: what reads the settings anew
_AT_START = ("host", "port", "workers")  # of `server`: they hold until the process ends
ReadAnew = Callable[[], Awaitable["Reloaded"]]
_LOOK_S = 0.05
_MOST_SHOWN = 5  # variants in a message
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Which sections of the settings changed; none where the file says what it said."""

    changed: tuple[str, ...]


class Generation:
    """One application with its lifespan, and how many of its answers are under way."""

    def __init__(self, context: Context, app: ASGIApp) -> None:
        self.context = context
        self.under_way = 0
        self._app = app
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.under_way -= 1

    async def start(self) -> None:
        """Run the application's start-up. Raises what that raised."""
        scope: Any = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._running = asyncio.create_task(self._app(scope, self._told.get, self._said.put))  # type: ignore[arg-type]  # plain dicts are ASGI's messages
        await self._tell(self._running, "startup")

    async def stop(self) -> None:
        """Run the application's shutdown: what waits is written, and connections are closed."""
        if self._running is not None and not self._running.done():
            await self._tell(self._running, "shutdown")
            await self._running

    async def drain(self, within_s: float) -> None:
        """Return when the last answer has gone out, or after `within_s`; streams of changes are ended first."""
        self.context.snapshot.changes.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self.under_way and loop.time() < until:  # noqa: ASYNC110 - a count that only shrinks is looked at, not waited for
            await asyncio.sleep(_LOOK_S)

    async def _tell(self, running: asyncio.Task[None], what: str) -> None:
        await self._told.put({"type": f"lifespan.{what}"})
        said = asyncio.create_task(self._said.get())
        await asyncio.wait({said, running}, return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            said.cancel()
            await running  # raises what ended it
        elif said.result()["type"].endswith("failed"):
            await asyncio.wait({running}, timeout=_LOOK_S)  # it ends with what went wrong
            error = running.exception() if running.done() else None
            raise _cause(error) or RuntimeError(said.result().get("message") or f"the application's {what} failed")


def _cause(error: BaseException | None) -> TurnoutError | None:
    """What was raised on purpose, of an error that may be a group of several."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _cause(each))), None)
    return error if isinstance(error, TurnoutError) else None


class Generations:
    """An ASGI application that is replaced as a whole by `reload`.

    `make` wires a context and its application for settings (with the context before, whose counts go on); `read` reads the
    settings anew.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        make: Callable[[Settings, Context | None], tuple[Context, ASGIApp]],
    ) -> None:
        self._read = read
        self._make = make
        self._settings = settings
        self._current = Generation(*make(settings, None))
        self._retiring: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self.number = 0  # of the generation that serves
        self.failed: Exception | None = None  # why the first one did not start

    @property
    def settings(self) -> Settings:
        """Those that are served by now."""
        return self._settings

    @property
    def context(self) -> Context:
        return self._current.context

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        scope[RELOAD] = self.reload  # an extension of ours
        await self._current(scope, receive, send)

    async def reload(self) -> Reloaded:
        """Serve by the settings as they are now. Raises BadFile or BadSetting, and then serves on as before."""
        async with self._reloading:
            settings = _kept(self._settings, await asyncio.to_thread(self._read))
            changed = tuple(
                name for name in Settings.model_fields if getattr(settings, name) != getattr(self._settings, name)
            )
            if not changed:
                return Reloaded(())
            _refuse_orphans(self._current.context.snapshot.view.routes, self._settings, settings)
            new = Generation(*await asyncio.to_thread(self._make, settings, self._current.context))
            await new.start()
            old, self._current, self._settings = self._current, new, settings
            old.context.request_log.heir = new.context.request_log
            self.number += 1
            task = asyncio.create_task(_retire(old, settings.server.drain_s))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            log.info("the settings were read anew", changed=list(changed))
            return Reloaded(changed)

    async def reload_or_tell(self) -> None:
        """`reload` for a signal: what is wrong with the settings goes to the log."""
        try:
            if not (await self.reload()).changed:
                log.info("the settings were read anew: nothing has changed")
        except TurnoutError as error:
            log.error("the settings were not taken, and those before hold on", reason=str(error))

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            await self._current.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server raises it where it is told as any other
            self.failed = error
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._current.stop()
        await send({"type": "lifespan.shutdown.complete"})


async def _retire(old: Generation, within_s: float) -> None:
    await old.drain(within_s)
    await old.stop()


def _refuse_orphans(routes: Mapping[str, Routed], before: Settings, after: Settings) -> None:
    """Raise BadSetting where a model is gone that a route sends traffic to: those requests would all be refused."""
    gone = before.models.keys() - after.models.keys()
    served = [variant for routed in routes.values() for variant in routed.state.incumbents if variant.model in gone]
    if served:
        orphans, models = sorted(map(str, served)), ", ".join(sorted({variant.model for variant in served}))
        shown = ", ".join(orphans[:_MOST_SHOWN])
        more = f" and {len(orphans) - _MOST_SHOWN} more" if len(orphans) > _MOST_SHOWN else ""
        raise BadSetting(
            f"models: {models} would be gone, and routes send traffic to {shown}{more}: keep it, or move them first"
            " (`turnout route NAME set`)",
            param="models",
        )


def _kept(before: Settings, after: Settings) -> Settings:
    """`after` with what holds from the start. Raises BadSetting for what cannot change while the process runs."""
    for name in ("storage", "home", "project"):
        if getattr(before, name) != getattr(after, name):
            raise BadSetting(f"{name} has changed, which a running service cannot follow: restart it", param=name)
    fixed = {name: getattr(before.server, name) for name in _AT_START}
    return after.model_copy(update={"server": after.server.model_copy(update=fixed)})
