"""The fine-tune on PostgreSQL: our tables and DBOS's in one database, two workers, one of them killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.conftest import Home
from tests.service.postgres import Postgres, running_postgres

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.mark.long
def test_a_fine_tune_on_postgresql_outlives_its_worker(make_home: Callable[..., Home], postgres: Postgres):
    home = make_home("pg", url=postgres.fresh_url())
    job_id = home.submit()
    first = home.worker()
    deadline = time.monotonic() + 150
    while not any(event["type"] == "planned" for event in home.events(job_id)):
        assert time.monotonic() < deadline, home.log()
        time.sleep(0.02)
    first.kill()
    first.wait()
    home.worker()
    home.worker()
    while home.job(job_id)["status"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline, home.log()
        time.sleep(0.05)
    job = home.job(job_id)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["result"]["verdict"] == "pass"
    assert job["result"]["after"]["passed"] == 48
