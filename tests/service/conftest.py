"""The service in process: settings with fake models, its app behind its door, and a key of each role."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings as hypothesis_settings

from service.app import controllers, running, with_door
from service.context import Context, build_context
from service.identity import KEY_FILE, Principal
from service.settings import Settings
from service.store.database import Database
from service.worker import Worker
from tests.service.postgres import Postgres, running_postgres

hypothesis_settings.register_profile("shared-machine", deadline=None)
hypothesis_settings.load_profile("shared-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All below this folder is marked: most tests here open a database and build the app, so none counts as a unit test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("service")


ADMIN = Principal("key_admin", "admin")
AUTHOR = Principal("key_author", "author")
MODELS: dict[str, Any] = {
    "model-a": {"engine": "fake", "answers": {"charged": "billing", "password": "account"}, "default": "other"},
    "model-b": {"engine": "fake", "default": "billing"},
    "priced": {
        "engine": "fake",
        "default": "billing",
        "price": {"input_per_mtok": 1.0, "output_per_mtok": 2.0},
    },
    "dead": {"engine": "openai", "base_url": "http://127.0.0.1:9/v1"},
    "tunable": {
        "engine": "vllm",
        "base_url": "http://127.0.0.1:9/v1",
        "tunable": True,
        "source": "path:/nowhere",
        "adapter_dir": "/nowhere",
    },
}
TRIAGE: dict[str, Any] = {
    "name": "Ticket triage",
    "model": "model-a",
    "modelParameters": {"temperature": 0},
    "variables": {"ticket": {"type": "string", "maxLength": 4000}},
    "messages": [
        {"role": "system", "content": "Route the ticket."},
        {"role": "user", "content": "{{ ticket }}"},
    ],
}


def triage(**changes: Any) -> dict[str, Any]:
    """The example prompt as its file's keys, some of them changed."""
    return {**TRIAGE, **changes}


def case(ticket: str, expected: str, **more: Any) -> dict[str, Any]:
    return {"vars": {"ticket": ticket}, "assert": [{"type": "equals", "value": expected}], **more}


def suite(*cases: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A suite of the example prompt."""
    return {"prompt": "support.triage", "tests": list(cases), **more}


def make_settings(home: Path, **more: Any) -> Settings:
    return Settings.model_validate({"home": home, "project": home, "models": MODELS, **more})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "home")


class Service:
    """The app behind its door on a loop of its own; `call` is one request with the key of a role."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context: Context = build_context(settings)
        self.litestar = controllers(self.context)
        self.app = with_door(self.context, self.litestar)
        self.keys: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._client: httpx.AsyncClient | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Service]:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            lifespan = running(self.context)
            self.wait(lifespan.__aenter__())
            self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")
            try:
                self._make_keys()
                yield self
            finally:
                self.wait(self._client.aclose())
                self.wait(lifespan.__aexit__(None, None, None))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def _make_keys(self) -> None:
        self.keys["admin"] = (self.settings.home / KEY_FILE).read_text().strip()
        for role in ("app", "author", "ci"):
            made = self.call("POST", "/api/keys", json={"role": role}).json()
            self.keys[role], self.ids[role] = made["key"], made["id"]

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call(self, method: str, path: str, role: str | None = "admin", **more: Any) -> httpx.Response:
        """One request; `role` None sends no key, and a text that is no role is sent as the key itself."""
        return self.start(method, path, role, **more).result(60)

    def start(
        self, method: str, path: str, role: str | None = "admin", **more: Any
    ) -> concurrent.futures.Future[httpx.Response]:
        """The same without waiting for the answer."""
        assert self._client is not None
        headers = dict(more.pop("headers", {}))
        if role is not None:
            headers.setdefault("authorization", f"Bearer {self.keys.get(role, role)}")
        return asyncio.run_coroutine_threadsafe(self._client.request(method, path, headers=headers, **more), self._loop)

    def push(self, name: str = "support.triage", data: dict[str, Any] | None = None, role: str = "author") -> int:
        """Push a prompt; returns its version."""
        answer = self.call("POST", f"/api/prompts/{name}/versions", role, json=data or TRIAGE)
        assert answer.status_code in (200, 201), answer.text
        version: int = answer.json()["version"]
        return version

    def put_suite(self, name: str, data: dict[str, Any]) -> int:
        answer = self.call("PUT", f"/api/suites/{name}", "author", json=data)
        assert answer.status_code in (200, 201), answer.text
        version: int = answer.json()["version"]
        return version

    def produce(self, version: int, name: str = "support.triage") -> None:
        """Point `production` to a version, as an admin with a reason."""
        body = {"version": version, "reason": "set up by a test"}
        answer = self.call("PUT", f"/api/prompts/{name}/labels/production", json=body)
        assert answer.status_code == 200, answer.text

    def work(self, job_id: str) -> dict[str, Any]:
        """Do one job as a worker does; returns the job."""
        do_job(self.settings, job_id)
        job: dict[str, Any] = self.call("GET", f"/api/jobs/{job_id}").json()
        return job


def do_job(settings: Settings, job_id: str) -> None:
    """The worker's own code in this process, for one job."""

    async def work() -> None:
        worker = Worker(settings, job_id)
        try:
            await worker.work()
        finally:
            await worker.pool.aclose()
            worker.database.close()

    asyncio.run(work())


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    with Service(settings).running() as service:
        yield service


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """The name of a migrated database: a copy of it is made in a few milliseconds."""
    url = postgres.fresh_url()
    database = Database(url)
    database.migrate()
    database.close()
    return url.partition("@/")[2].partition("?")[0]


BOTH = pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, of the kind that the test is parametrized with."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'turnout.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh_url()


@pytest.fixture
def open_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Opens one migrated database, as many times as it is called: each is a process's own view of it."""
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'turnout.db'}"
        first = Database(url)
        first.migrate()
        first.close()
    else:
        template = request.getfixturevalue("migrated_template")
        url = request.getfixturevalue("postgres").fresh_url(template)
    opened: list[Database] = []

    def open_one() -> Database:
        opened.append(Database(url))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: Callable[[], Database]) -> Database:
    return open_database()
