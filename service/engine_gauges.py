"""What the engines of this home tell of themselves, for the service's own metrics."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 1.0
_PREFIX = "engine-"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine said that it listens; see `engine.process`."""

    model: str
    base_url: str
    token: str


def of_engines(run_dir: Path) -> Iterator[Metric]:
    """The metrics of each engine that runs, with the label `model`; one that does not answer soon is left out."""
    engines = list(places(run_dir))
    if not engines:
        return
    families: dict[str, Metric] = {}
    with ThreadPoolExecutor(len(engines)) as pool:
        for place, text in zip(engines, pool.map(_text, engines), strict=True):
            for family in text_string_to_metric_families(text):
                _add(families, family, place.model)
    yield from families.values()


def places(run_dir: Path) -> Iterator[Place]:
    """Of the engines that were started below `run_dir`; some may have ended."""
    for path in sorted(run_dir.glob(f"{_PREFIX}*.json")):
        try:
            state = json.loads(path.read_text("utf-8"))
            yield Place(path.stem.removeprefix(_PREFIX), state["base_url"], state["token"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being written anew, or of another version


def _text(place: Place) -> str:
    """The engine's metrics, "" where none answers: it may have ended since it was written down."""
    asked = urllib.request.Request(f"{place.base_url}/metrics", headers={"Authorization": f"Bearer {place.token}"})  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=_TIMEOUT_S) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def _add(families: dict[str, Metric], family: Metric, model: str) -> None:
    held = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
    for sample in family.samples:
        if not sample.name.endswith("_created"):  # when a counter was made, which tells nothing here
            held.samples.append(sample._replace(labels={**sample.labels, "model": model}))
