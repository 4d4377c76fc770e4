"""`python -P -m service.engine START.json`: one embedded engine, told by its parent what to serve."""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path

from prompts.errors import TurnoutError
from service import arenas
from service.engine.spec import StartFile

_COLLECT_AFTER = (100_000, 20, 20)  # objects: Python's 700 cost a fifth of the start, which makes no garbage
_KEPT_PRODUCTS = 512  # that oneDNN has made: a quarter of a megabyte each, six for each number of rows
_KEPT_BYTES = 128 << 20  # of what a batch freed: the next one takes it up


def read_ahead(folder: Path) -> None:
    """Have the system read the weights while torch is imported, where it can: loading maps them into memory."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def main(arguments: list[str]) -> int:
    """Serve until the last lease is closed. Exit 2 for bad usage, 4 where the engine cannot run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -P -m service.engine START.json\n")
        return 2
    # Read by OpenMP when torch is first imported: waiting threads sleep in place of spinning beside other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_PRODUCTS))
    gc.set_threshold(*_COLLECT_AFTER)
    arenas.use_one_and_keep(_KEPT_BYTES)
    try:
        start = StartFile.read(Path(arguments[0]))
        read_ahead(start.spec.folder)
        from service.engine.server import serve

        serve(start)
    except (TurnoutError, OSError, RuntimeError) as error:
        sys.stderr.write(f"the engine cannot run: {error}\n")
        return 4
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a generator thread in the midst of a product would abort a regular exit
