"""`python -P -m service.engine START.json`: one embedded engine, told by its parent what to serve."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from prompts.errors import TurnoutError
from service.engine.spec import StartFile


def main(arguments: list[str]) -> int:
    """Serve until the last lease is closed. Exit 2 for bad usage, 4 where the engine cannot run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -P -m service.engine START.json\n")
        return 2
    # Read by OpenMP when torch is first imported: waiting threads sleep in place of spinning beside other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from service.engine.server import serve

    try:
        serve(StartFile.read(Path(arguments[0])))
    except (TurnoutError, OSError, RuntimeError) as error:
        sys.stderr.write(f"the engine cannot run: {error}\n")
        return 4
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a generator thread in the midst of a product would abort a regular exit
