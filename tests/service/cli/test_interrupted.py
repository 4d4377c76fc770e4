"""What an interrupted run says is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.work import LocalWork
from service.store import runs
from service.store.database import Database
from tests.service.conftest import make_settings

AT = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        (("errored",) * 3, "0 answers and 3 errors are kept as run_1"),
        (("passed", "failed", "errored"), "2 answers and 1 error are kept as run_1"),
        (("passed", "failed"), "2 results are kept as run_1"),
    ],
)
def test_errors_are_not_counted_as_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statuses: tuple[str, ...], told: str
) -> None:
    settings = make_settings(tmp_path)
    work = LocalWork(settings)
    run = {"id": "run_1", "suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    cases = [{"case_id": f"c{i}", "repeat": 0, "index": i, "status": status} for i, status in enumerate(statuses)]
    with Database(settings.database_url).write() as session:
        runs.start(session, run)
        runs.add_cases(session, "run_1", cases)

    work._tell_interrupted(("run_1",), "run_1")

    assert told in capsys.readouterr().err
