"""An engine served by this very process: a tiny model behind the engine's HTTP, and the openai package in front."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKEN = "of-the-test"


@contextlib.contextmanager
def serving(folder: Path, adapters_dir: Path, **limits: Any) -> Iterator[tuple[Any, str]]:
    """The generator and the base URL that it is asked at."""
    import torch
    import uvicorn

    from service.engine.core import Generator
    from service.engine.leases import Leases
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel
    from service.engine.server import make_app
    from service.engine.spec import EngineSpec
    from service.listening import listen

    generator = Generator(LoadedModel(folder, torch.device("cpu")), Limits(**limits))
    generator.start()
    app = make_app(EngineSpec("tiny", folder, adapters_dir), TOKEN, generator, Leases(60), "cpu")
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield generator, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(10)
            generator.stop()


def until(condition: Any, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
