"""The peers: TRL's SFTTrainer and the transformers Trainer, each in a process of its own, on rows encoded by us.

    python -m benchmarks.finetune.peers trl|trainer TASK.json RESULT.json

TRL is installed into a scratch environment that also sees our packages; it is never a dependency of ours. What a peer
is spared: it is given token ids, in the order in which they are trained on; it evaluates, saves and reports nothing; and
gradient checkpointing, bf16 and padding beyond the longest row of a batch are off on a CPU. The clock runs from the
beginning of a step to its end, without the collation of its batch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

TRL = "trl>=1.16,<2"
ROOT = Path(__file__).parents[2]
_IGNORED = -100  # the label of a token without one


class PeerTask(BaseModel):
    """What a peer trains: rows of (token ids, how many of them are the prompt), in their order, `batch_size` a step."""

    model_config = ConfigDict(frozen=True)

    base_folder: Path
    rows: tuple[tuple[tuple[int, ...], int], ...]
    batch_size: int
    rank: int
    alpha: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    rates: tuple[float, ...]  # the learning rate of each step
    threads: int
    on_cuda: bool = False


def install(folder: Path) -> Path | None:
    """The Python of an environment below `folder` that has TRL beside our packages; None where no registry gives it."""
    python = folder / "trl" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "trl")], check=True)
        site = folder / "trl" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        ours = [path for path in sys.path if Path(path).name == "site-packages"]
        (site / "ours.pth").write_text("\n".join(ours) + "\n")
    if subprocess.run([python, "-c", "import trl"], capture_output=True, check=False).returncode == 0:
        return python
    command = [str(python), "-m", "pip", "install", "-q", "--constraint", str(ROOT / "constraints.txt"), TRL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"TRL was left out: {done.stderr.strip()[-500:]}", file=sys.stderr)
        return None
    return python


# ------------------------------------------------------------------------------------------------ in the peer's process


def train(name: str, task: PeerTask, folder: Path) -> dict[str, Any]:
    """Train by the peer `name`; gives its version, and the loss, the CPU and the wall seconds of each step."""
    import torch
    import transformers

    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    dtype = torch.bfloat16 if task.on_cuda else torch.float32
    base = transformers.AutoModelForCausalLM.from_pretrained(task.base_folder, dtype=dtype)
    trainer = (_trl if name == "trl" else _plain)(task, _with_lora(task, base), folder)
    clock = _clock()
    trainer.add_callback(clock)
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    steps = [{"loss": loss, **spent} for loss, spent in zip(losses, clock.spent, strict=True)]
    return {"version": _version("trl" if name == "trl" else "transformers"), "steps": steps}


def _with_lora(task: PeerTask, base: Any) -> Any:
    """A LoRA that begins as ours does, so that losses can be compared."""
    import peft

    from finetune.model import reset_lora

    lora = peft.LoraConfig(r=task.rank, lora_alpha=task.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, lora)
    reset_lora(model, task.seed)
    return model


def _trl(task: PeerTask, model: Any, folder: Path) -> Any:
    import datasets  # type: ignore[import-not-found]  # it comes with TRL
    import transformers
    import trl  # type: ignore[import-not-found]  # in the scratch environment alone

    rows = [{"input_ids": ids, "completion_mask": _mask(ids, prompt)} for ids, prompt in task.rows]
    config = trl.SFTConfig(**_arguments(task, folder), max_length=None, packing=False, completion_only_loss=True)
    return trl.SFTTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(task.base_folder),
        optimizers=_optimizers(task, model),
    )


def _plain(task: PeerTask, model: Any, folder: Path) -> Any:
    import transformers

    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**_arguments(task, folder), remove_unused_columns=False),
        train_dataset=list(task.rows),
        data_collator=_collate,
        optimizers=_optimizers(task, model),
    )


def _arguments(task: PeerTask, folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": task.batch_size,
        "max_steps": len(task.rates),
        "max_grad_norm": task.max_grad_norm,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not task.on_cuda,
        "bf16": task.on_cuda,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
        "seed": task.seed,
    }


def _optimizers(task: PeerTask, model: Any) -> tuple[Any, Any]:
    """Fused AdamW as with us, with the rates given."""
    import torch

    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1.0, weight_decay=task.weight_decay, fused=True)
    rates = [*task.rates, 0.0]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rates[at])


def _collate(batch: list[tuple[tuple[int, ...], int]]) -> dict[str, Any]:
    """(R, T) ids, labels and mask, padded on the right to the longest row."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    return {
        "input_ids": torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in batch]),
        "labels": torch.tensor(
            [[*[_IGNORED] * prompt, *ids[prompt:], *[_IGNORED] * (longest - len(ids))] for ids, prompt in batch]
        ),
        "attention_mask": torch.tensor([[*[1] * len(ids), *[0] * (longest - len(ids))] for ids, _ in batch]),
    }


def _mask(ids: tuple[int, ...], prompt: int) -> list[int]:
    return [0] * prompt + [1] * (len(ids) - prompt)


def _clock() -> Any:
    import torch
    import transformers

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        """CPU and wall seconds of each step."""

        def __init__(self) -> None:
            self.spent: list[dict[str, float]] = []
            self._began = (0.0, 0.0)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._began = _now(torch)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            cpu_s, wall_s = (end - began for end, began in zip(_now(torch), self._began, strict=True))
            self.spent.append({"cpu_s": cpu_s, "wall_s": wall_s})

    return Clock()


def _now(torch: Any) -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.monotonic()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def main(name: str, task: str, result: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    found = train(name, PeerTask.model_validate_json(Path(task).read_bytes()), Path(result).parent)
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
