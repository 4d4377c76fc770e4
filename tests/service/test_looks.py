"""Which looks at held-out cases spend one α."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from service.identity import LOCAL_ADMIN
from service.settings import Settings
from service.store import jobs
from service.tuning import comparing
from service.tuning.claim import Claim
from service.tuning.looks import inputs_of, is_same_set
from suites.case import Suite
from tests.service.conftest import MODELS, Service, case, make_settings, suite

TICKETS = [f"ticket about {word}" for word in ("parcels", "refunds", "invoices", "logins", "prices", "returns")]
OTHERS = [f"{ticket} of another year" for ticket in TICKETS]
LOCAL = {"engine": "local", "source": "pypi:one"}


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    other = {**LOCAL, "source": "pypi:other"}
    return make_settings(tmp_path / "home", models={**MODELS, "one": LOCAL, "again": LOCAL, "other": other})


class Looks:
    """Takes looks as the first attempts of jobs of their own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._version = service.push()
        self._count = 0

    def take(self, tickets: list[str], base: str = "one", name: str = "support.triage", attempt: int = 1) -> int:
        service = self._service
        self._count += 1
        number = service.put_suite(name, suite(*(case(ticket, "billing") for ticket in tickets)))
        job_id = f"job_{self._count:012x}"
        spec = {"suite": name, "suite_version": number, "prompt_version": self._version, "base": base}
        service.context.jobs.submit("finetune", spec, LOCAL_ADMIN, job_id)
        claim = Claim(job_id, 1, LOCAL_ADMIN, service.context.database, service.settings, threading.Event())
        return int(comparing.take_look(claim, attempt)["look"])


@pytest.fixture
def looks(service: Service, monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(jobs, "require_claim", lambda *_: None)
    return Looks(service)


def test_a_held_out_set_that_is_changed_a_little_is_the_same_set(looks: Looks) -> None:
    assert looks.take(TICKETS, attempt=2) == 1
    assert looks.take([f"{TICKETS[0]} ", *TICKETS[1:]]) == 2
    assert looks.take([*TICKETS[:3], *OTHERS[:3]]) == 3
    assert looks.take([*TICKETS, *OTHERS]) == 4
    assert looks.take(TICKETS, name="support.again") == 5


def test_a_held_out_set_of_other_cases_is_another(looks: Looks) -> None:
    assert looks.take(TICKETS) == 1
    assert looks.take([*TICKETS[:2], *OTHERS[:4]]) == 1
    assert looks.take(OTHERS) == 2  # four of six were seen in the look before


def test_looks_for_another_alias_of_the_same_weights_count(looks: Looks) -> None:
    assert [looks.take(TICKETS, base) for base in ("one", "again", "other", "one")] == [1, 2, 1, 3]


def test_the_share_is_that_of_the_smaller_set() -> None:
    one, many = frozenset({("a",), ("b",)}), frozenset({("b",), ("c",), ("d",), ("e",)})
    assert is_same_set(one, many)
    assert is_same_set(many, one)
    assert not is_same_set(one, many - {("b",)})
    assert not is_same_set(frozenset(), frozenset())


def test_a_set_that_spells_out_a_default_asks_the_same() -> None:
    defaults = {"tone": "plain", "language": "English"}
    brief = [case(ticket, "billing") for ticket in TICKETS]
    spelled = [{**one, "vars": {**one["vars"], "tone": "plain"}} for one in brief]
    sets = [inputs_of(Suite.from_data(suite(*cases)), defaults) for cases in (brief, spelled)]
    assert sets[0] == sets[1]
