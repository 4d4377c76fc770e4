from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from service.engine.choosing import own_tokens

pytestmark = pytest.mark.integration  # imports torch


def jobs(*texts: str) -> list[Any]:
    return [SimpleNamespace(ids=np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)) for text in texts]


@pytest.mark.parametrize(
    ("texts", "held", "computed"),
    [
        (["shared:ab", "shared:c"], 0, 7 + 2 + 1),
        (["shared:ab", "shared:c"], 4, 3 + 2 + 1),
        (["shared:ab", "shared:c"], 8, 2 + 1),  # of one of them more is held
        (["alone"], 0, 5),
        (["alone"], 3, 2),
        (["alone"], 5, 1),  # the last token is always computed
    ],
)
def test_what_all_begin_with_is_counted_once_and_what_is_held_not_at_all(
    texts: list[str], held: int, computed: int
) -> None:
    assert own_tokens(jobs(*texts), held) == computed
