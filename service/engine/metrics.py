"""What an engine counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from service.engine.core import Generator
from service.engine.counters import Counters


class _EngineCollector(Collector):
    """Reads a generator's counters when scraped."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def collect(self) -> Iterator[Metric]:
        counters = self._generator.counters
        yield from _of_requests(counters)
        yield from _of_now(counters)
        yield from _of_cache(self._generator)


def _of_requests(counters: Counters) -> Iterator[Metric]:
    ended = {
        "answered": counters.answered,
        "failed": counters.failed - counters.late,
        "late": counters.late,
        "cancelled": counters.cancelled,
        "refused": counters.refused,
    }
    yield _counter("requests", "Requests by outcome", "outcome", ended)
    tokens = {
        "prompt": counters.prompt_tokens,
        "cached": counters.cached_tokens,
        "completion": counters.completion_tokens,
    }
    yield _counter("tokens", "Tokens of answered requests", "kind", tokens)
    yield _counter("guided", "Answered requests that had to be of a form", "kind", counters.guided)
    yield CounterMetricFamily(
        "turnout_engine_asked_again", "Rows answered alone as too close to call", counters.asked_again
    )
    share = counters.with_asked_again / counters.answered if counters.answered else 0.0
    yield GaugeMetricFamily("turnout_engine_asked_again_share", "Of answered requests, those with such a row", share)
    answered = counters.answered
    yield SummaryMetricFamily("turnout_engine_wait_seconds", "In the queue", answered, counters.waited_s)
    yield SummaryMetricFamily("turnout_engine_first_token_seconds", "To a token", answered, counters.first_token_s)


def _of_now(counters: Counters) -> Iterator[Metric]:
    waiting = {str(priority): count for priority, count in dict(counters.waiting).items()}
    queue = GaugeMetricFamily("turnout_engine_queue_length", "Answers waiting", labels=["priority"])
    for priority, count in ({"0": 0} | waiting).items():
        queue.add_metric([priority], count)
    yield queue
    yield GaugeMetricFamily("turnout_engine_live_requests", "Answers being decoded", counters.live)
    sizes = dict(counters.batch_sizes)
    total = sum(size * steps for size, steps in sizes.items())
    yield SummaryMetricFamily("turnout_engine_batch_rows", "Rows of a decoding step", sum(sizes.values()), total)
    yield GaugeMetricFamily("turnout_engine_batch_ceiling", "Rows that memory allows", counters.ceiling)
    yield CounterMetricFamily("turnout_engine_out_of_memory", "Times that a batch was halved", counters.halvings)


def _of_cache(generator: Generator) -> Iterator[Metric]:
    prefixes = generator.prefixes
    yield GaugeMetricFamily("turnout_engine_prefix_cache_bytes", "Held by shared prefixes", prefixes.held_bytes)
    looked_up = {"hit": prefixes.hits, "miss": prefixes.misses}
    yield _counter("prefix_lookups", "Prefix look-ups by outcome", "outcome", looked_up)
    tolerance = GaugeMetricFamily(
        "turnout_engine_tolerance", "Lead of the best logit below which a row is asked again", labels=["adapter"]
    )
    for adapter, value in dict(generator.tolerances).items():
        tolerance.add_metric([adapter or ""], value)
    yield tolerance


def _counter(name: str, about: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"turnout_engine_{name}", about, labels=[label])
    for value, count in dict(counts).items():
        family.add_metric([value], count)
    return family


def as_text(generator: Generator) -> bytes:
    """All of it, as Prometheus scrapes it."""
    registry = CollectorRegistry()
    registry.register(_EngineCollector(generator))
    return generate_latest(registry)
