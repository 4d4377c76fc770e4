"""Settings are read anew without a request that notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile, Fault
from service.app import behind_door
from service.context import Context, build_context
from service.errors import BadSetting
from service.generations import Generations
from service.pushing import Push
from service.settings import Settings
from tests.service.conftest import ADMIN, make_settings, triage


class Source:
    """The settings as a file would have them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.error: Exception | None = None

    def __call__(self) -> Settings:
        if self.error:
            raise self.error
        return self.settings


class Slow:
    """An application that answers when it is let."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.let_go = asyncio.Event()
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.ended = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        await self.let_go.wait()
        await send({"type": "http.response.body", "body": self.name.encode()})


def with_model(settings: Settings, alias: str) -> Settings:
    return settings.model_copy(update={"models": {**settings.models, alias: settings.models["model-a"]}})


async def ask(application: Any) -> bytes:
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    await application({"type": "http", "path": "/", "method": "GET", "headers": []}, receive, send)
    return bytes(said[-1]["body"])


async def live(application: Any) -> tuple[asyncio.Task[None], asyncio.Queue[Any], asyncio.Queue[Any]]:
    told: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    await told.put({"type": "lifespan.startup"})
    task = asyncio.create_task(application({"type": "lifespan"}, told.get, said.put))
    assert (await said.get())["type"] == "lifespan.startup.complete"
    return task, told, said


async def end(task: asyncio.Task[None], told: asyncio.Queue[Any], said: asyncio.Queue[Any]) -> None:
    await told.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await task


def test_an_answer_under_way_ends_on_the_old_settings_and_the_next_is_on_the_new(tmp_path: Path) -> None:
    async def run() -> None:
        made: list[Slow] = []

        def make(settings: Settings, before: Context | None) -> Any:
            made.append(Slow(f"generation {len(made)}"))
            return build_context(settings, before=before), made[-1]

        source = Source(make_settings(tmp_path))
        application = Generations(source.settings, source, make)
        running = await live(application)
        first = asyncio.create_task(ask(application))
        await asyncio.sleep(0)
        source.settings = with_model(source.settings, "another")
        assert (await application.reload()).changed == ("models",)
        made[1].let_go.set()
        assert await ask(application) == b"generation 1"
        assert not made[0].ended
        made[0].let_go.set()
        assert await first == b"generation 0"
        for _ in range(100):
            if made[0].ended:
                break
            await asyncio.sleep(0.02)
        assert made[0].ended
        assert not made[1].ended
        await end(*running)
        assert made[1].ended

    asyncio.run(run())


def of_one(tmp_path: Path) -> tuple[list[Slow], Source, Generations]:
    """What an application has made of its settings, of which each answers at once, these settings' source, and it itself."""
    made: list[Slow] = []

    def make(settings: Settings, before: Context | None) -> Any:
        made.append(Slow("first"))
        made[-1].let_go.set()
        return build_context(settings, before=before), made[-1]

    source = Source(make_settings(tmp_path))
    return made, source, Generations(source.settings, source, make)


def test_log_rows_that_no_database_took_by_then_outlast_a_reload(tmp_path: Path) -> None:
    async def run() -> None:
        _, source, application = of_one(tmp_path)
        running = await live(application)
        before = application.context.request_log
        source.settings = with_model(source.settings, "another")
        await application.reload()
        assert before.heir is application.context.request_log
        assert application.context.request_log.heir is None
        await end(*running)

    asyncio.run(run())


def test_bad_settings_change_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        made, source, application = of_one(tmp_path)
        running = await live(application)
        source.error = BadFile([Fault("turnout.yaml", 3, "unknown key 'modells'", "remove it")])
        with pytest.raises(BadFile, match="unknown key 'modells'"):
            await application.reload()
        await application.reload_or_tell()
        source.error = None
        source.settings = make_settings(tmp_path, storage={"url": "sqlite:////elsewhere.db"})
        with pytest.raises(BadSetting, match="storage has changed") as refused:
            await application.reload()
        assert refused.value.param == "storage"
        assert await ask(application) == b"first"
        assert len(made) == 1
        await end(*running)

    asyncio.run(run())


def test_a_model_that_a_route_sends_traffic_to_is_not_taken_away(tmp_path: Path) -> None:
    async def run() -> None:
        _, source, application = of_one(tmp_path)
        running = await live(application)
        context = application.context
        context.database.migrate()
        context.registry.push(Push({"triage": triage()}), ADMIN)
        weights = {"triage@1+model-a": 90, "triage@1+model-b": 10}
        context.route_book.set("triage", weights, ADMIN, "a test")
        context.snapshot.refresh()
        for alias, refused in (("model-b", True), ("priced", False)):
            left = {name: spec for name, spec in source.settings.models.items() if name != alias}
            source.settings = make_settings(tmp_path).model_copy(update={"models": left})
            if refused:
                with pytest.raises(BadSetting, match=r"model-b would be gone.*triage@1\+model-b: keep it") as caught:
                    await application.reload()
                assert caught.value.param == "models"
                source.settings = make_settings(tmp_path)
            else:
                assert (await application.reload()).changed == ("models",)
        await end(*running)

    asyncio.run(run())


def test_a_generation_that_cannot_start_leaves_the_one_before(tmp_path: Path) -> None:
    async def run() -> None:
        async def broken(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            raise BadSetting("this one cannot start")

        first = Slow("first")
        first.let_go.set()
        applications: list[Any] = [first, broken]

        def make(settings: Settings, before: Context | None) -> Any:
            return build_context(settings, before=before), applications.pop(0)

        source = Source(make_settings(tmp_path))
        application = Generations(source.settings, source, make)
        running = await live(application)
        source.settings = with_model(source.settings, "another")
        with pytest.raises(BadSetting, match="cannot start"):
            await application.reload()
        assert await ask(application) == b"first"
        assert application.number == 0
        await end(*running)

    asyncio.run(run())


def test_settings_that_say_the_same_start_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        source = Source(make_settings(tmp_path))
        application = Generations(
            source.settings, source, lambda settings, before: (build_context(settings), Slow("x"))
        )
        source.settings = make_settings(tmp_path)
        assert (await application.reload()).changed == ()

    asyncio.run(run())


def test_where_it_listens_holds_from_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        source = Source(make_settings(tmp_path, server={"port": 8700}))
        application = Generations(
            source.settings, source, lambda settings, before: (build_context(settings), Slow("x"))
        )
        source.settings = make_settings(tmp_path, server={"port": 8800})
        assert (await application.reload()).changed == ()
        source.settings = make_settings(tmp_path, server={"port": 8800, "max_body_bytes": 5000})
        assert (await application.reload()).changed == ("server",)
        assert application.context.settings.server.port == 8700
        assert application.context.settings.server.max_body_bytes == 5000

    asyncio.run(run())


def test_the_whole_service_is_replaced_and_counts_go_on(tmp_path: Path) -> None:
    async def run() -> None:
        def make(settings: Settings, before: Context | None) -> Any:
            context = build_context(settings, before=before)
            return context, behind_door(context)

        source = Source(make_settings(tmp_path))
        application = Generations(source.settings, source, make)
        running = await live(application)
        limiter, revision = application.context.limiter, application.context.snapshot.view.revision
        source.settings = with_model(source.settings, "another")
        await application.reload()
        assert "another" in application.context.settings.models
        assert application.context.limiter is limiter
        assert application.context.snapshot.view.revision == revision
        await end(*running)

    asyncio.run(run())
