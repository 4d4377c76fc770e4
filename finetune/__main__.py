"""`python -P -m finetune SPEC.json`: one training job in a process of its own.

With `--trial` before the spec it takes a few steps, writes what they took to `measured.json` beside it, and trains nothing.
With `--export` the spec is one of an export (`finetune/export/`).

It ends when its standard input is a pipe that closes. Exit codes: 0 the adapter is complete; 2 refused (bad usage, bad
spec or rows that must not be trained on); 4 failed; 5 one of several processes died, start it again; 130 cancelled, with
a checkpoint to resume from. `--rank` and `--meeting` are for those that help one with several devices.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.guard import Guard
from finetune.plan import read_spec
from prompts.errors import BadInput

_REFUSED = 2
_COLLECT_AFTER = (100_000, 20, 20)  # objects: Python's 700 cost a fifth of importing, which makes no garbage

_KEPT_PRODUCTS = 64  # oneDNN keeps half a megabyte for each shape, and packs are of any length: some 15 shapes a pack


@contextmanager
def _importing() -> Iterator[None]:
    """What is imported meanwhile is never looked at by the garbage collector, which afterwards is as it was."""
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT_AFTER)
    yield
    gc.freeze()
    gc.set_threshold(*before)


def settle_environment() -> None:
    """What torch and transformers read when they are imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else idle threads of torch spin, and starve their neighbours
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rows are encoded one by one
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever a job needs is in its base folder
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_PRODUCTS))


def main(arguments: list[str]) -> int:
    started_s = time.monotonic()
    given = _read(arguments)
    settle_environment()
    guard = Guard()
    guard.watch()
    if given.export:
        with _importing():
            from finetune.export import run  # torch, too
        return run.run_file(given.spec)
    try:
        spec = read_spec(given.spec)
    except BadInput as error:
        print(json.dumps({"type": "refused", "reasons": [str(error)]}), file=sys.stderr)  # noqa: T201  no events yet
        return _REFUSED
    with _importing():  # here: importing torch takes seconds
        from finetune import measure, ranks, train
    if given.rank:
        be_rank = measure.be_rank if given.trial else train.be_rank
        return be_rank(spec, guard, ranks.Seat(given.rank, given.meeting))
    return measure.run(spec, given.spec.parent, guard, started_s) if given.trial else train.run(spec, guard)


def _read(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -P -m finetune", description="One training job from a frozen spec.")
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("--trial", action="store_true", help="take a few steps, and train nothing")
    parser.add_argument("--export", action="store_true", help="write an adapter in another form, and train nothing")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--meeting", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
