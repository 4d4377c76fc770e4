"""Children: our own modules in our own interpreter, without our secrets."""

from __future__ import annotations

import os

_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_SECRET", "PASSWORD", "_CREDENTIALS")


def child_environment() -> dict[str, str]:
    """The environment for a child that needs no secret: without variables whose names say that they hold one.

    Threads that wait do not spin (a busy neighbour would slow them several times), and nothing asks a model hub.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith(_SECRET_ENDINGS)}
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
