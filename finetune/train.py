"""One training job, from a frozen spec to a complete adapter.

Read `_train` first, and `_work`: they are the whole of it. A job that ends anywhere is started again with the same spec and
ends as it would have: what it computes depends on the spec and the step alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune import adapter, durable, plan, ranks, result, splits, trials
from finetune.bench import Bench, set_up
from finetune.encoding import refusal
from finetune.events import Events, NoEvents
from finetune.guard import LOST, Guard
from finetune.job import CHECKPOINTS, Book, DivergedError
from finetune.plan import JobSpec
from prompts.errors import BadInput, TurnoutError

FINISHED, REFUSED, FAILED = 0, 2, 4
_LOCK_WAIT_S = 10.0  # as long as a process that is being cancelled may take to end, and then some
_FP32_BYTES = 4
_LOST_WAIT_S = 2.0  # a sum may fail a moment before the process that was to take part in it is known to be dead


class BusyError(TurnoutError):
    """Another process runs this job."""


def run(spec: JobSpec, guard: Guard) -> int:
    """Run one job; whatever goes wrong becomes an event and an exit code."""
    try:
        with _only_here(spec.output_dir):
            if not _tell_again(spec):
                with _events(spec) as events, _cancels_told(events, guard), ranks.helped(guard):
                    _train(spec, events, guard)
    except BusyError as error:  # the events belong to the other process
        print(json.dumps({"type": "failed", "message": str(error)}), file=sys.stderr)  # noqa: T201
        return FAILED
    except ranks.RankOutOfMemoryError as error:
        return _begin_again(spec, error)
    except BadInput as error:
        return _end(spec, REFUSED, "refused", **refusal(error))
    except durable.DiskFullError as error:
        return _end(spec, FAILED, "failed", message=str(error), bytes_needed=error.bytes_needed)
    except DivergedError as error:
        return _end(spec, FAILED, "failed", message=str(error), diverged=True)
    except TurnoutError as error:
        return _end(spec, FAILED, "failed", message=str(error))
    except Exception as error:  # noqa: BLE001  the process ends here: its parent reads events, not tracebacks
        traceback.print_exc()
        if spec.devices > 1 and guard.lost.wait(_LOST_WAIT_S):
            return LOST
        return _end(spec, FAILED, "failed", message=f"{type(error).__name__}: {error}")
    return FINISHED


def be_rank(spec: JobSpec, guard: Guard, seat: ranks.Seat) -> int:
    """Be one of the other ranks of a job: compute what the first one computes, and write nothing.

    Whatever goes wrong ends this process, and with it the first one, which says so or is started again.
    """
    try:
        with ranks.helped(guard):
            bench = set_up(spec, NoEvents(), guard, seat)
            _work(bench, Book(bench))
    except ranks.RankOutOfMemoryError as error:
        return _begin_again(spec, error)
    return FINISHED


def _begin_again(spec: JobSpec, error: ranks.RankOutOfMemoryError) -> int:
    print(error, file=sys.stderr)  # noqa: T201  the events belong to the first rank
    ranks.keep_room(spec, error.pack_tokens)
    return LOST


def _train(spec: JobSpec, events: Events, guard: Guard) -> None:
    bench = set_up(spec, events, guard)
    _require_disk(bench)
    book = Book(bench)
    _will_tell_started(bench, book)
    manifest = _work(bench, book)
    with guard.changing:
        _tell_finished(events, manifest, book.seconds)
        _clear(spec)


def _work(bench: Bench, book: Book) -> adapter.Manifest:
    """All that several ranks do together."""
    if bench.spec.splits:
        found, chosen, seeds = splits.run(bench, book)
    else:
        found = trials.search(bench, book)
        chosen, seeds = trials.final(bench, book, found.recipe)

    book.open("adapter")
    return result.write(bench, found, chosen, seeds)


def _events(spec: JobSpec) -> Events:
    return Events(spec.output_dir / "events.jsonl")


@contextlib.contextmanager
def _cancels_told(events: Events, guard: Guard) -> Iterator[None]:
    """A cancel before, between and after the runs has nothing to save, but is told."""

    def tell() -> None:
        with contextlib.suppress(OSError, TurnoutError):  # the process ends in any case
            events.tell("cancelled", step=0)

    guard.on_stop, before = tell, guard.on_stop
    try:
        yield
    finally:
        with guard.changing:
            guard.on_stop = before


def _require_disk(bench: Bench) -> None:
    """Raise DiskFullError now rather than hours later."""
    of_seeds = len(bench.spec.search.seeds or (0,)) * bench.trainable_count * _FP32_BYTES
    needed = plan.disk_bytes(bench.trainable_count) + of_seeds
    if shutil.disk_usage(bench.spec.output_dir).free < needed:
        raise durable.DiskFullError(bench.spec.output_dir, needed)


def _will_tell_started(bench: Bench, book: Book) -> None:
    spec, base = bench.spec, bench.base
    book.will_tell(
        "started",
        job_id=spec.job_id,
        device=str(bench.device),
        dtype=str(next(base.parameters()).dtype).removeprefix("torch."),
        parameters=base.num_parameters() - bench.trainable_count,  # sizes of 4-bit weights are not those of their bytes
        trainable=bench.trainable_count,
        rows={"train": len(bench.train), "dev": len(bench.dev)},
        tokens=sum(len(row.ids) for row in bench.train),
        steps=plan.total_steps(spec.recipe, len(bench.train)),
        search=spec.search.model_dump(mode="json"),
        devices=spec.devices,
    )


# ------------------------------------------------------------------------------------------------ the ends of a job


@contextlib.contextmanager
def _only_here(folder: Path) -> Iterator[None]:
    """Hold a job's folder against a second process, which may be the former one on its way out."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise BusyError(f"another process holds {folder}: wait for it, or cancel it") from None
                time.sleep(0.1)
        yield


def _tell_again(spec: JobSpec) -> bool:
    """Whether the job was done before; if it was killed between the adapter and the last event, tell that now."""
    folder, path = spec.output_dir / "adapter", spec.output_dir / "events.jsonl"
    if not adapter.is_complete(folder):
        return False
    if not path.is_file() or b'"type": "finished"' not in path.read_bytes():
        with _events(spec) as events:
            _tell_finished(events, adapter.verify(folder), None)
    _clear(spec)
    return True


def _tell_finished(events: Events, manifest: adapter.Manifest, seconds: float | None) -> None:
    told = {"digest": manifest.digest, "seconds": seconds and round(seconds, 3), "recipe": manifest.recipe}
    events.tell("finished", **told, **manifest.scores)


def _clear(spec: JobSpec) -> None:
    """Delete what only a resume would have needed; the records of the trials stay."""
    durable.remove(spec.output_dir / CHECKPOINTS)
    durable.remove(spec.output_dir / ranks.FOLDER)
    for tensors in (spec.output_dir / trials.TRIALS).glob("seed-*.safetensors"):
        tensors.unlink(missing_ok=True)


def _end(spec: JobSpec, code: int, kind: str, **details: Any) -> int:
    """Tell how a run ended: to the events, and to standard error where a full disk keeps none."""
    print(json.dumps({"type": kind, **details}, ensure_ascii=False), file=sys.stderr)  # noqa: T201  the last resort
    with contextlib.suppress(OSError, TurnoutError), _events(spec) as events:
        events.tell(kind, **details)
    return code
