"""What an engine counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from service.engine.core import Generator


class _EngineCollector(Collector):
    """Reads a generator's counters when scraped."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def collect(self) -> Iterator[Metric]:
        counters, prefixes = self._generator.counters, self._generator.prefixes
        requests = CounterMetricFamily("turnout_engine_requests", "Requests by outcome", labels=["outcome"])
        requests.add_metric(["answered"], counters.answered)
        requests.add_metric(["failed"], counters.failed)
        yield requests
        tokens = CounterMetricFamily("turnout_engine_tokens", "Tokens of answered requests", labels=["kind"])
        tokens.add_metric(["prompt"], counters.prompt_tokens)
        tokens.add_metric(["cached"], counters.cached_tokens)
        tokens.add_metric(["completion"], counters.completion_tokens)
        yield tokens
        yield CounterMetricFamily(
            "turnout_engine_asked_again", "Requests answered alone as too close to call", counters.asked_again
        )
        share = counters.asked_again / counters.answered if counters.answered else 0.0
        yield GaugeMetricFamily("turnout_engine_asked_again_share", "Of answered requests", share)
        yield GaugeMetricFamily("turnout_engine_queue_length", "Requests waiting", counters.waiting)
        yield GaugeMetricFamily("turnout_engine_live_requests", "Requests being decoded", counters.live)
        sizes = dict(counters.batch_sizes)
        total = sum(size * steps for size, steps in sizes.items())
        yield SummaryMetricFamily("turnout_engine_batch_rows", "Rows of a decoding step", sum(sizes.values()), total)
        yield GaugeMetricFamily("turnout_engine_prefix_cache_bytes", "Held by shared prefixes", prefixes.held_bytes)
        lookups = CounterMetricFamily("turnout_engine_prefix_lookups", "Prefix look-ups by outcome", labels=["outcome"])
        lookups.add_metric(["hit"], prefixes.hits)
        lookups.add_metric(["miss"], prefixes.misses)
        yield lookups
        yield self._tolerance()

    def _tolerance(self) -> Metric:
        tolerance = GaugeMetricFamily(
            "turnout_engine_tolerance", "Lead of the best logit below which a row is asked again", labels=["adapter"]
        )
        for adapter, value in dict(self._generator.tolerances).items():
            tolerance.add_metric([adapter or ""], value)
        return tolerance


def as_text(generator: Generator) -> bytes:
    registry = CollectorRegistry()
    registry.register(_EngineCollector(generator))
    return generate_latest(registry)
