"""Children: our own modules in our own interpreter, without our secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|DSN|DATABASE_URL|STORAGE_URL|JOBS_URL)$", re.IGNORECASE)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child that needs no secret: without the variables whose names say that they hold one.

    Threads that wait do not spin (a busy neighbour would slow them several times), and nothing asks a model hub.
    """
    kept = {name: value for name, value in environment.items() if not _SECRET.search(name)}
    kept.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONUNBUFFERED="1")
    return kept
