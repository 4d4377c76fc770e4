"""On a CUDA device: tokens a second and share of the device's peak, beside TRL, in bf16.

SmolLM2-135M is the real one; the larger models have the shapes of Qwen2.5 and random weights, which is all that speed asks for.
Rows have about 512 tokens and share next to no prefix, so that a token of an example is a token computed. FLOPs a token are
`4 (N_linear + ρ N_head) + 6 P_LoRA + 6 s d L`: forward and the gradient of the inputs through frozen weights, the head on the
labelled share ρ alone, and attention over rows of s tokens in L layers of width d.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.finetune import datasets, peers, speed
from benchmarks.finetune.speed import Run, Speed
from finetune.data import Example
from finetune.plan import read_shape

PEAK_FLOPS = 989e12  # bf16 without sparsity, NVIDIA's data sheet of the H100 and H200 SXM
GOALS = {"135M": 300_000, "0.5B": 150_000, "1.5B": 62_000, "7B": 16_000}  # tokens a second on an H200
ROW_TOKENS = 512
STEPS = 12
_SHAPES = {  # width, width between, layers, heads, heads of keys
    "0.5B": (896, 4864, 24, 14, 2),
    "1.5B": (1536, 8960, 28, 12, 2),
    "7B": (3584, 18944, 28, 28, 4),
}


def measure(smollm2: Path) -> dict[str, Any]:
    """Every shape, one after the other; `left_out` says why where there is no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return {"left_out": "no CUDA device here"}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        python = peers.install(Path(scratch))
        for name in ("135M", *_SHAPES):
            folder = smollm2 if name == "135M" else _random_model(name, smollm2, Path(scratch) / name)
            figures[name] = {**_measure(folder, python), "goal_tokens_per_s": GOALS[name]}
    return {"device": torch.cuda.get_device_name(), "row_tokens": ROW_TOKENS, "models": figures}


def _random_model(name: str, tokenizer: Path, folder: Path) -> Path:
    import torch
    import transformers

    width, between, layers, heads, key_heads = _SHAPES[name]
    config = transformers.Qwen2Config(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=between,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=name != "7B",
    )
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    for file in (file for pattern in ("token*", "*.jinja", "special*") for file in tokenizer.glob(pattern)):
        shutil.copy(file, folder)
    return folder


def _measure(base: Path, python: Path | None) -> dict[str, Any]:
    plan = Speed(base, steps=STEPS)
    task = _long_rows(datasets.support(turns_at_most=0))
    rows = task.rows(task.train[: STEPS * speed.BATCH])
    encoded = speed.encode(plan, rows)
    with tempfile.TemporaryDirectory() as folder:
        spec = speed.spec_of(plan, task, rows, Path(folder)).model_copy(
            update={"device": "cuda", "pack_tokens": 16_384}
        )
        runs = {"turnout": speed.turnout(spec)}
    if python:
        with tempfile.TemporaryDirectory() as folder:
            peer_task = speed.peer_task(plan, encoded).model_copy(update={"on_cuda": True})
            runs["trl"] = speed.peer("trl", python, peer_task, Path(folder))
    flops = _flops_a_token(base, encoded, plan.recipe.rank)
    return {name: _summary(run, flops) for name, run in runs.items()}


def _long_rows(task: datasets.Task) -> datasets.Task:
    """Rows of about `ROW_TOKENS` tokens that share next to no prefix: tickets one after another, each row from another on."""
    count, tickets = STEPS * speed.BATCH, [str(one.vars["ticket"]) for one in task.train]
    rows = []
    for number in range(count):
        text = " ".join(tickets[(number + at) % len(tickets)] for at in range(len(tickets)))
        rows.append(
            Example({"ticket": f"{number}. {text[: ROW_TOKENS * 4]}"}, task.train[number % len(tickets)].expected)
        )
    return dataclasses.replace(task, train=tuple(rows))


def _flops_a_token(base: Path, encoded: list[tuple[tuple[int, ...], int]], rank: int) -> float:
    shape, config = read_shape(base), json.loads((base / "config.json").read_text())
    tokens = sum(len(ids) for ids, _ in encoded)
    labelled = sum(len(ids) - prompt for ids, prompt in encoded) / tokens
    linear = sum(out * into for out, into in shape.linears)
    width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    head = shape.vocabulary * width
    attention = 6 * (tokens / len(encoded)) * width * layers
    return 4 * (linear + labelled * head) + 6 * shape.lora_parameter_count(rank) + attention


def _summary(run: Run, flops: float) -> dict[str, Any]:
    rate = run.rate(run.wall_s)
    losses = {"first_loss": round(run.losses[0], 4), "last_loss": round(run.losses[-1], 4)}
    return {"tokens_per_s": round(rate), "share_of_peak": round(rate * flops / PEAK_FLOPS, 3), **losses}
