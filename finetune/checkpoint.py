"""The state of a run between two steps, kept as safetensors and JSON.

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
from finetune.plan import Point

MANIFEST = "checkpoint.json"
_TENSORS = "state.safetensors"
_KEPT = 2

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class Progress:
    """Where a run stands. `best` is the adapter of the best evaluation, empty before the first.

    `losses` has the mean loss of every step's batch; `pack_tokens` is what one forward pass may hold.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    pack_tokens: int = 0

    @property
    def best_point(self) -> Point | None:
        return next((one for one in reversed(self.points) if one.best), None)


@dataclass(frozen=True, slots=True)
class Told:
    """What a job had told and spent when a state was kept: bytes of its events, seconds, and the steps of all its runs.

    `pack_tokens` is below the spec's where memory ran out, 0 where it did not.
    """

    events_bytes: int = 0
    seconds: float = 0.0
    steps: int = 0
    pack_tokens: int = 0


def save(
    folder: Path, key: str, progress: Progress, params: Tensors, optimizer: torch.optim.Optimizer, told: Told
) -> None:
    """Write the checkpoint of `progress.step` below `folder` and delete all but the newest two.

    `key` names the spec and the run: no other takes this checkpoint for its own. Raises DiskFullError.
    """
    tensors = {
        **_named("adapter", params),
        **_named("best", progress.best),
        **{f"{moment}/{name}": value for name, moment, value in _moments(params, optimizer)},
    }
    state = {
        "key": key,
        "step": progress.step,
        "losses": progress.losses,
        "points": [one.model_dump() for one in progress.points],
        "pack_tokens": progress.pack_tokens,
        "told": asdict(told),
    }
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    durable.write_folder(folder / f"step-{progress.step:08d}", {_TENSORS: content}, MANIFEST, state)
    for old in _newest_first(folder)[_KEPT:]:
        durable.remove(old)


def load(folder: Path, key: str, params: Tensors, optimizer: torch.optim.Optimizer) -> tuple[Progress, Told] | None:
    """Put the newest complete checkpoint of this key into `params` and `optimizer`.

    Gives the progress and what was told by then; None where there is no such checkpoint.
    """
    for place in _newest_first(folder):
        state = durable.read_manifest(place, MANIFEST)
        if state is not None and state.get("key") == key:
            tensors = safetensors.torch.load_file(place / _TENSORS)
            _restore(tensors, state["step"], params, optimizer)
            return _progress(state, tensors), Told(**state["told"])
    return None


def _progress(state: Mapping[str, Any], tensors: Tensors) -> Progress:
    points = [Point.model_validate(one) for one in state["points"]]
    return Progress(state["step"], state["losses"], points, _part("best", tensors), state["pack_tokens"])


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
