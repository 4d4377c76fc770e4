"""/metrics: what is counted of requests, its bounds and its price, and how the parts of the service stand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service import gauges, metering
from service.metering import LABELS, RequestMeter
from service.outcome import Outcome
from service.rollouts.watching import Look
from suites.rollouts import decide_step
from tests.service.conftest import Service
from tests.service.test_request_log import outcome
from tests.suites.test_rollouts import GOOD, given

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "turnout.json"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, those that all have first."""
    families = text_string_to_metric_families(text)
    return {(one.name, *_values(one.labels)): one.value for family in families for one in family.samples}


def _values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels, key=lambda name: ([*LABELS, name].index(name), name))]


def metered(*outcomes: Outcome) -> dict[tuple[str, ...], float]:
    meter = RequestMeter()
    for each in outcomes:
        meter.add(each)
    return samples(meter.text())


def test_requests_are_counted_by_prompt_variant_and_status_and_shadows_apart() -> None:
    found = metered(
        outcome(1), outcome(2), outcome(3, status="ModelTimeout"), outcome(4, shadow_of="chatcmpl-1"),
        outcome(5, prompt=None, variant="model-b"),
    )  # fmt: skip

    assert found["turnout_requests_total", "a", "a@1+m", "served", "ok"] == 2
    assert found["turnout_requests_total", "a", "a@1+m", "served", "ModelTimeout"] == 1
    assert found["turnout_requests_total", "a", "a@1+m", "shadow", "ok"] == 1
    assert found["turnout_requests_total", "", "model-b", "served", "ok"] == 1


def test_times_are_histograms_in_seconds() -> None:
    found = metered(
        outcome(1, latency_ms=5.0, first_token_ms=2.0, upstream_ms=None),
        outcome(2, latency_ms=40.0, upstream_ms=30.0),
        outcome(3, latency_ms=100_000.0, upstream_ms=30.0),
    )
    name, series = "turnout_request_duration_seconds", ("a", "a@1+m", "served")

    assert [found[f"{name}_bucket", *series, bound] for bound in ("0.005", "0.025", "0.05", "60.0", "+Inf")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert (found[f"{name}_count", *series], found[f"{name}_sum", *series]) == (3, pytest.approx(100.045))
    assert found["turnout_first_token_seconds_count", *series] == 1
    assert found["turnout_upstream_duration_seconds_sum", *series] == pytest.approx(0.06)


def test_tokens_cost_and_what_went_wrong_are_summed() -> None:
    found = metered(
        outcome(1, prompt_tokens=10, cached_tokens=4, completion_tokens=3, cost_usd=0.5, attempts=2, is_valid=False),
        outcome(2, cost_usd=0.25, chosen="a@2+m", is_cached=True, is_valid=True),
    )
    series = ("a", "a@1+m", "served")

    assert [found["turnout_tokens_total", *series, kind] for kind in ("prompt", "cached", "completion")] == [11, 4, 4]
    assert found["turnout_cost_usd_total", *series] == 0.75
    assert found["turnout_attempts_total", *series] == 3
    assert found["turnout_invalid_answers_total", *series] == 1
    assert found["turnout_fallback_answers_total", *series] == 1
    assert found["turnout_cached_answers_total", *series] == 1


def test_series_are_bounded_and_nothing_is_lost_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "MOST_SERIES", 3)
    found = metered(*(outcome(number, variant=f"a@{number}+m") for number in range(5)), outcome(9, variant="a@0+m"))
    counts = {key[2]: value for key, value in found.items() if key[0] == "turnout_requests_total"}

    assert counts == {"a@0+m": 2, "a@1+m": 1, "a@2+m": 1, "other": 2}
    assert found["turnout_requests_total", "other", "other", "served", "ok"] == 2


def test_beyond_the_bound_what_was_served_stays_apart_from_what_shadows_were_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metering, "MOST_SERIES", 1)
    found = metered(outcome(1), *(outcome(n, variant=f"a@{n}+m") for n in (7, 8)), outcome(9, shadow_of="chatcmpl-1"))

    assert found["turnout_requests_total", "other", "other", "served", "ok"] == 2  # which the dashboard's totals count
    assert found["turnout_requests_total", "other", "other", "shadow", "ok"] == 1


def test_a_name_of_a_variant_cannot_break_the_format() -> None:
    odd = 'a"} 7\nturnout_requests_total{x="\\'
    found = metered(outcome(1, variant=odd))

    assert found["turnout_requests_total", "a", odd, "served", "ok"] == 1


def test_an_outcome_costs_microseconds() -> None:
    meter, each = RequestMeter(), outcome(1, upstream_ms=3.0, first_token_ms=2.0, cost_usd=0.1)
    best = min(_cpu_s(lambda: meter.add(each)) for _ in range(5))

    assert best < 10e-6  # 1 to 2 µs on a machine that does nothing else


def _cpu_s(work: Any) -> float:
    started = time.process_time()
    for _ in range(5_000):
        work()
    return (time.process_time() - started) / 5_000


# ---------------------------------------------------------------------------- the service


@pytest.fixture
def asked(service: Service) -> Service:
    """A service with a route, one answer of it, and one failure of a model that is not there."""
    service.produce(service.push())
    for model in ("support.triage", "dead"):
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        body |= {"variables": {"ticket": "charged"}} if model != "dead" else {}
        service.call("POST", "/v1/chat/completions", "app", json=body)
    return service


def test_what_was_served_is_in_the_metrics_of_the_service(asked: Service) -> None:
    found = samples(asked.call("GET", "/metrics", "ci").text)

    assert found["turnout_requests_total", "support.triage", "support.triage@1+model-a", "served", "ok"] == 1
    assert found["turnout_requests_total", "", "dead", "served", "ModelUnavailable"] == 1
    assert found["turnout_upstream_failed_total", "dead"] >= 1
    assert found["turnout_upstream_asked_total", "model-a"] == 1
    assert found["turnout_shadows_dropped_total",] == 0
    assert found["turnout_route_share", "support.triage", "support.triage@1+model-a"] == 1.0
    assert found["turnout_snapshot_stale",] == 0


def test_a_rollout_under_way_shows_how_far_its_evidence_is() -> None:
    step = given(**GOOD)
    registry = CollectorRegistry()
    registry.register(_Collected(lambda: gauges.of_rollouts({"support.triage": Look(step, decide_step(step), True)})))
    found = samples(generate_latest(registry).decode())

    assert found["turnout_rollout_evidence", "support.triage", "promote"] >= 1
    assert found["turnout_rollout_evidence", "support.triage", "roll_back"] < 1
    assert found["turnout_rollout_share", "support.triage"] == step.share / 100
    assert found["turnout_rollout_paused", "support.triage"] == 0
    candidate = step.candidate_units
    counted = [found["turnout_rollout_units", "support.triage", "candidate", kind] for kind in ("good", "bad")]
    assert counted == [candidate.good, candidate.bad]


class _Collected(Collector):
    """What a function gives, for a registry."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def test_the_type_of_the_metrics_names_its_charset_once(service: Service) -> None:
    told = service.call("GET", "/metrics", "ci").headers["content-type"]

    assert told == "text/plain; version=0.0.4; charset=utf-8"


def test_metrics_need_a_key_that_may_read_them(service: Service) -> None:
    assert [service.call("GET", "/metrics", role).status_code for role in (None, "app", "author", "ci")] == [
        401,
        403,
        403,
        200,
    ]


def test_metrics_hold_no_text_of_a_person(asked: Service) -> None:
    assert "charged" not in asked.call("GET", "/metrics", "ci").text


# ---------------------------------------------------------------------------- the dashboard


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_every_metric_that_the_dashboard_names_exists(service: Service) -> None:
    text = service.call("GET", "/metrics", "ci").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    known = {name for name, kind in kinds.items() if kind != "histogram"}
    known |= {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    board = json.loads(DASHBOARD.read_text("utf-8"))
    others = [each["expr"] for each in board["annotations"]["list"] if "expr" in each]
    others += [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]
    named = {name for expression in (*expressions(), *others) for name in re.findall(r"\bturnout_\w+", expression)}

    assert named - known == set()
    assert len(named) > 15


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))

    assert board["schemaVersion"] >= 39  # Grafana 11
    assert (board["id"], board["uid"], board["title"]) == (None, "turnout", "Turnout")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    datasource = {"type": "prometheus", "uid": "${datasource}"}
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "prompt"}
    for panel in panels():
        assert panel["datasource"] == datasource
        assert panel["title"]
        assert panel["description"]
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFG"][: len(panel["targets"])]


def test_panels_of_the_dashboard_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
