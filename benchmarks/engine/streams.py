"""One answer at a time, streamed: the time to its first token and between tokens, beside the same steps without a server.

`python -m benchmarks.engine.streams FOLDER CASES.json` prints those without a server.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine import ours
from benchmarks.engine.cases import ANSWER_TOKENS, Messages


async def streamed(engine: ours.Engine, conversations: Sequence[Messages]) -> dict[str, float]:
    """As an application gets them over HTTP from an engine that has seen such prompts before."""
    firsts, gaps = [], []
    for messages in conversations:
        began = time.perf_counter()
        asked = ours.request(messages, {"temperature": 0, "max_tokens": ANSWER_TOKENS}, None)
        chunks = await engine.model.stream(asked)
        arrivals = [time.perf_counter() async for chunk in chunks if _has_text(chunk)]
        firsts.append(arrivals[0] - began)
        gaps.append((arrivals[-1] - arrivals[0]) / (ANSWER_TOKENS - 1))
    return _medians(firsts, gaps)


def _has_text(chunk: Mapping[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in chunk["choices"])


def raw(folder: Path, conversations: Sequence[Messages]) -> dict[str, float]:
    """The forward pass alone, its prefix held."""
    import torch

    from service.engine import decoding
    from service.engine.cache import PrefixCache
    from service.engine.model import LoadedModel

    model = LoadedModel(folder, torch.device("cpu"))
    prompts = [model.encode(messages) for messages in conversations]
    prefix, _ = decoding.shared_prefix(model, PrefixCache(1 << 30), None, prompts)
    firsts, gaps = [], []
    for ids in prompts:
        began = time.perf_counter()
        rows = decoding.prefill(model, None, [ids], prefix)
        tokens = [int(rows.logits.argmax())]
        first = time.perf_counter()
        for _ in range(ANSWER_TOKENS - 1):
            rows = decoding.advance(model, rows, tokens[-1:])
            tokens.append(int(rows.logits.argmax()))
        firsts.append(first - began)
        gaps.append((time.perf_counter() - first) / (ANSWER_TOKENS - 1))
    return _medians(firsts, gaps)


def _medians(firsts: Sequence[float], gaps: Sequence[float]) -> dict[str, Any]:
    return {
        "answers": len(firsts),
        "first_token_ms": 1000 * statistics.median(firsts),
        "between_tokens_ms": 1000 * statistics.median(gaps),
    }


if __name__ == "__main__":
    print(json.dumps(raw(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))))
