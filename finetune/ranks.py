"""Several processes that train one model together, a device each.

Rank 0 is the job as its parent started it: it alone tells, saves and is cancelled. It starts the others, which run the
same code on the same spec, take part in each sum, and write nothing. They find each other by a file in the job's folder,
so that no port waits for strangers, and they end with rank 0 (see finetune/guard.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from finetune import durable
from finetune.guard import Guard
from finetune.plan import JobSpec, write_spec
from prompts.errors import TurnoutError

FOLDER = "ranks"
_ROOM = "room.json"  # what a pass may hold since memory ran out on a rank
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # all ranks are on this machine


class RankOutOfMemoryError(TurnoutError):
    """Memory ran out on this rank, while the others wait for its part: all begin again with `pack_tokens` a pass."""

    def __init__(self, pack_tokens: int) -> None:
        super().__init__(f"memory ran out on rank {number()}: passes hold {pack_tokens} tokens from here on")
        self.pack_tokens = pack_tokens


@dataclass(frozen=True)
class Seat:
    """Which of the ranks this process is, and the file by which they find each other."""

    rank: int
    meeting: Path


def count() -> int:
    """How many processes train together; 1 where this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


@contextlib.contextmanager
def helped(guard: Guard) -> Iterator[None]:
    """While this lasts, the death of another rank ends this one; after it the others are of no use any more."""
    try:
        yield
        if count() > 1:
            dist.barrier()
            dist.destroy_process_group()
    finally:
        guard.over.set()


def gather(spec: JobSpec, device: torch.device, guard: Guard, seat: Seat | None, *options: str) -> None:
    """Meet the other ranks of a job on several devices, having started them where this is the first.

    `options` are those of the command that started this process. Nothing happens for one device.
    """
    if spec.devices == 1:
        return
    own = seat or Seat(0, _new_meeting(spec.output_dir / FOLDER))
    if seat is None:
        _start_helpers(spec, own.meeting, guard, options)
    if device.type == "cuda":
        torch.cuda.set_device(own.rank)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, _LOOPBACK)
    places = {"RANK": own.rank, "LOCAL_RANK": own.rank, "WORLD_SIZE": spec.devices, "LOCAL_WORLD_SIZE": spec.devices}
    os.environ.update({name: str(value) for name, value in places.items()})  # where accelerate looks
    store = dist.FileStore(str(own.meeting), spec.devices)  # type: ignore[attr-defined]  # documented, yet not in its __all__
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=own.rank, world_size=spec.devices)


def _new_meeting(folder: Path) -> Path:
    for left in folder.glob("meeting-*"):  # of processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="meeting-", dir=folder)) / "store"


def _start_helpers(spec: JobSpec, meeting: Path, guard: Guard, options: tuple[str, ...]) -> None:
    path = spec.output_dir / FOLDER / "spec.json"
    write_spec(spec, path)
    for rank in range(1, spec.devices):
        command = [sys.executable, "-P", "-m", "finetune", *options, "--rank", str(rank), "--meeting", str(meeting)]
        helper = subprocess.Popen(  # noqa: S603  our own interpreter and module
            [*command, str(path)], cwd=spec.output_dir, stdin=subprocess.PIPE, start_new_session=True
        )
        guard.mind(helper)


# ------------------------------------------------------------------------------------------------ what all must agree on


def agreed(values: torch.Tensor) -> torch.Tensor:
    """Rank 0's `values`, in place: what all computed alike may differ by rounding, and must not decide differently."""
    if count() > 1:
        dist.broadcast(values, 0)
    return values


def added(values: torch.Tensor) -> torch.Tensor:
    """The sum of all ranks' `values`, in place."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def each(value: int, device: torch.device) -> tuple[int, ...]:
    """All ranks' values, in the order of the ranks."""
    if count() == 1:
        return (value,)
    found = torch.zeros(count(), dtype=torch.int64, device=device)
    found[number()] = value
    return tuple(added(found).tolist())


def wait() -> None:
    """Until all ranks have come this far."""
    if count() > 1:
        dist.barrier()


def in_turn() -> Iterator[int]:
    """Lets each rank do its part while the others wait: `for turn in in_turn(): if turn == number(): …`."""
    for turn in range(count()):
        yield turn
        wait()


# ------------------------------------------------------------------------------------------------ full memory


def keep_room(spec: JobSpec, pack_tokens: int) -> None:
    """Remember what a pass may hold; the ranks that begin again read it."""
    (spec.output_dir / FOLDER).mkdir(parents=True, exist_ok=True)
    durable.write_file(spec.output_dir / FOLDER / _ROOM, json.dumps({"pack_tokens": pack_tokens}).encode())


def room(spec: JobSpec) -> int:
    """The most tokens that a pass may hold: the spec's number, and less where memory ran out on a rank before."""
    with contextlib.suppress(FileNotFoundError):
        return min(spec.pack_tokens, int(json.loads((spec.output_dir / FOLDER / _ROOM).read_bytes())["pack_tokens"]))
    return spec.pack_tokens
