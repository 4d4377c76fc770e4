"""How the parts of the service stand, for Prometheus: read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from service.request_log import RequestLog
from service.rollouts.watching import Look
from service.shadows import Shadows
from service.snapshot import Snapshot
from service.tracing import Tracing
from service.upstream.standing import Counts, Standing

MOST_ROUTES = 500  # prompts whose route is shown
_COUNTED = {
    "asked": "Questions sent, retries and hedges included",
    "failed": "Questions that came to nothing",
    "retried": "Questions asked again",
    "hedged": "Questions asked a second time while the first was under way",
    "hung_up": "Questions that the client left, or that lost against a hedge",
    "refused_by_breaker": "Questions not sent because the breaker was open",
    "refused_by_limit": "Questions not sent because too many were waiting",
}


def of_log(log: RequestLog) -> Iterator[Metric]:
    """The request log: a row is written, waits in memory or on the disk, or was lost."""
    standing = log.standing()
    yield GaugeMetricFamily(
        "turnout_request_log_waiting", "Log rows in memory that wait to be written", standing.waiting
    )
    yield GaugeMetricFamily(
        "turnout_request_log_spool_bytes", "Log rows on the disk that wait for the database", standing.spooled_bytes
    )
    yield GaugeMetricFamily("turnout_request_log_away", "1 while the database takes no log rows", int(standing.is_away))
    yield CounterMetricFamily("turnout_request_log_written", "Log rows that the database has", standing.written)
    yield CounterMetricFamily(
        "turnout_request_log_spooled", "Log rows that had to wait on the disk", standing.spooled_rows
    )
    dropped = CounterMetricFamily("turnout_request_log_dropped", "Log rows lost, by reason", labels=("reason",))
    for reason, count in standing.dropped.items():
        dropped.add_metric([reason], count)
    yield dropped
    text = "Bodies that were too long to keep, or too many while the database was away"
    yield CounterMetricFamily("turnout_request_bodies_dropped", text, log.bodies.dropped)


def of_shadows(shadows: Shadows) -> Iterator[Metric]:
    """Questions that nobody waits for."""
    text = "Questions to shadows that were not asked, because too many were under way"
    yield CounterMetricFamily("turnout_shadows_dropped", text, shadows.dropped)


def of_tracing(tracing: Tracing | None) -> Iterator[Metric]:
    """Spans, where the environment asks for them."""
    exported, dropped = (tracing.exported, tracing.dropped) if tracing else (0, 0)
    yield CounterMetricFamily("turnout_spans_exported", "Spans that the collector took", exported)
    yield CounterMetricFamily("turnout_spans_dropped", "Spans that it did not, or not in time", dropped)


def of_snapshot(snapshot: Snapshot) -> Iterator[Metric]:
    """What is served from, and how each route shares its traffic."""
    yield GaugeMetricFamily("turnout_snapshot_revision", "Revision of the serving snapshot", snapshot.view.revision)
    yield GaugeMetricFamily("turnout_snapshot_stale", "1 while the database is away", int(snapshot.is_stale))
    share = GaugeMetricFamily("turnout_route_share", "Share of a route's traffic, 0 to 1", labels=("prompt", "variant"))
    revision = GaugeMetricFamily("turnout_route_revision", "Revision of a prompt's route", labels=("prompt",))
    for prompt, route in sorted(snapshot.view.routes.items())[:MOST_ROUTES]:
        revision.add_metric([prompt], route.revision)
        for weighted in route.state.variants:
            share.add_metric([prompt, str(weighted.variant)], weighted.percent / 100)
    yield share
    yield revision


def of_upstreams(standings: Iterable[Standing]) -> Iterator[Metric]:
    """Each model alias: what was asked of it, and whether it is asked at all."""
    known = list(standings)
    for name in (field.name for field in fields(Counts)):
        family = CounterMetricFamily(f"turnout_upstream_{name}", _COUNTED[name], labels=("model",))
        for standing in known:
            family.add_metric([standing.alias], getattr(standing.counts, name))
        yield family
    opened = CounterMetricFamily("turnout_upstream_breaker_opened", "How often the breaker opened", labels=("model",))
    is_open = GaugeMetricFamily("turnout_upstream_breaker_open", "1 while the model is not asked", labels=("model",))
    in_flight = GaugeMetricFamily("turnout_upstream_in_flight", "Questions under way", labels=("model",))
    queued = GaugeMetricFamily("turnout_upstream_queued", "Questions that wait for room", labels=("model",))
    for standing in known:
        opened.add_metric([standing.alias], standing.opened)
        is_open.add_metric([standing.alias], int(standing.state != "closed"))
        in_flight.add_metric([standing.alias], standing.in_flight)
        queued.add_metric([standing.alias], standing.queued)
    yield from (opened, is_open, in_flight, queued)


def of_rollouts(looks: Mapping[str, Look]) -> Iterator[Metric]:
    """Each rollout under way: what is counted, and how far its evidence is from deciding."""
    paused = GaugeMetricFamily("turnout_rollout_paused", "1 while a rollout waits", labels=("prompt",))
    share = GaugeMetricFamily("turnout_rollout_share", "The candidate's share in this step, 0 to 1", labels=("prompt",))
    evidence = GaugeMetricFamily(
        "turnout_rollout_evidence", "The e-value over what decides: 1 and above does", labels=("prompt", "of")
    )
    units = GaugeMetricFamily(
        "turnout_rollout_units", "Units counted in this step", labels=("prompt", "arm", "outcome")
    )
    for prompt, look in sorted(looks.items()):
        given, decision = look.given, look.decision
        paused.add_metric([prompt], int(decision.verdict == "pause"))
        share.add_metric([prompt], given.share / 100)
        for of, value, at in (
            ("promote", decision.e_promote, decision.promote_at),
            ("roll_back", decision.e_roll_back, decision.roll_back_at),
            ("split", decision.e_split, decision.split_at),
        ):
            evidence.add_metric([prompt, of], value / at)
        for arm, counted in (("candidate", given.candidate_units), ("incumbent", given.incumbent_units)):
            units.add_metric([prompt, arm, "bad"], counted.bad)
            units.add_metric([prompt, arm, "good"], counted.units - counted.bad)
    yield from (paused, share, evidence, units)
