"""`python -P -m finetune SPEC.json`: one training job in a process of its own.

With `--trial` before the spec it takes a few steps, writes what they took to `measured.json` beside it, and trains nothing.

It ends when its standard input is a pipe that closes. Exit codes: 0 the adapter is complete; 2 refused (bad usage, bad
spec or rows that must not be trained on); 4 failed; 130 cancelled, with a checkpoint to resume from.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from finetune.guard import Guard


def main(arguments: list[str]) -> int:
    started_s = time.monotonic()
    is_trial = arguments[:1] == ["--trial"]
    files = arguments[is_trial:]
    if len(files) != 1 or files[0].startswith("-"):
        print("usage: python -P -m finetune [--trial] SPEC.json", file=sys.stderr)  # noqa: T201  there is no logger before a spec
        return 2
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else idle threads of torch spin, and starve their neighbours
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rows are encoded one by one
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever a job needs is in its base folder
    guard = Guard()
    guard.watch()
    from finetune import measure, train  # here: torch reads the environment when it is imported, and takes seconds

    path = Path(files[0])
    return measure.run_file(path, guard, started_s) if is_trial else train.run_file(path, guard)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
