"""The state of a job between two steps, kept as safetensors and JSON.

The order of the data and the random numbers of dropout follow from the seed and the step alone, so that the step says
where both stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from finetune import durable

MANIFEST = "checkpoint.json"
_TENSORS = "state.safetensors"
_KEPT = 2

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Dev scores after `step`; `best` says whether none before was better."""

    step: int
    dev_exact: float
    dev_loss: float
    best: bool


@dataclass(slots=True)
class Progress:
    """Where a job stands. `best` is the adapter of the best evaluation, empty before the first."""

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)

    @property
    def best_evaluation(self) -> Evaluation | None:
        return next((one for one in reversed(self.evaluations) if one.best), None)


def save(
    folder: Path, spec_digest: str, progress: Progress, params: Tensors, optimizer: torch.optim.Optimizer, told: int
) -> None:
    """Write the checkpoint of `progress.step` below `folder` and delete all but the newest two.

    `told` is the length of the events file in bytes, to which a resume cuts it. Raises DiskFullError.
    """
    tensors = {
        **_named("adapter", params),
        **_named("best", progress.best),
        **{f"{moment}/{name}": value for name, moment, value in _moments(params, optimizer)},
    }
    state = {
        "spec": spec_digest,
        "step": progress.step,
        "seconds": progress.seconds,
        "loss": progress.loss,
        "evaluations": [asdict(one) for one in progress.evaluations],
        "events_bytes": told,
    }
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    durable.write_folder(folder / f"step-{progress.step:08d}", {_TENSORS: content}, MANIFEST, state)
    for old in _newest_first(folder)[_KEPT:]:
        durable.remove(old)


def load(
    folder: Path, spec_digest: str, params: Tensors, optimizer: torch.optim.Optimizer
) -> tuple[Progress, int] | None:
    """Put the newest complete checkpoint of this spec into `params` and `optimizer`.

    Gives the progress and the length of the events file in bytes; None where there is no such checkpoint.
    """
    for place in _newest_first(folder):
        state = durable.read_manifest(place, MANIFEST)
        if state is not None and state["spec"] == spec_digest:
            tensors = safetensors.torch.load_file(place / _TENSORS)
            _restore(tensors, state["step"], params, optimizer)
            return _progress(state, tensors), int(state["events_bytes"])
    return None


def _progress(state: Mapping[str, Any], tensors: Tensors) -> Progress:
    evaluations = [Evaluation(**one) for one in state["evaluations"]]
    return Progress(state["step"], state["seconds"], state["loss"], evaluations, _part("best", tensors))


def _restore(tensors: Tensors, step: int, params: Tensors, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for name, value in _part("adapter", tensors).items():
            params[name].copy_(value)
    for name, param in params.items():
        if f"exp_avg/{name}" in tensors:
            optimizer.state[param] = {
                "step": torch.tensor(float(step), device=param.device),
                "exp_avg": tensors[f"exp_avg/{name}"].to(param.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(param.device),
            }


def _moments(params: Tensors, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, str, torch.Tensor]]:
    for name, param in params.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimizer.state[param]:
                yield name, moment, optimizer.state[param][moment]


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _part(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)
