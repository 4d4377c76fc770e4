from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from service.engine.attention import attend, attend_plainly, put_together  # noqa: E402

pytestmark = pytest.mark.integration  # imports torch


def drawn(*shape: int) -> list[object]:
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64) for _ in range(3)]


def test_the_plain_way_computes_what_the_kernel_computes() -> None:
    q, k, v = drawn(2, 3, 5, 8)
    hidden = torch.zeros(2, 1, 1, 5, dtype=torch.float64)
    hidden[1, ..., 3:] = -torch.inf
    for options in ({}, {"causal": True}, {"mask": hidden}):
        for found, plain in zip(attend(q, k, v, 0.3, **options), attend_plainly(q, k, v, 0.3, **options), strict=True):
            torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_two_sets_of_keys_put_together_are_all_keys() -> None:
    q, k, v = drawn(1, 2, 6, 8)
    first = attend(q, k[:, :, :2], v[:, :, :2], 0.3)
    second = attend(q, k[:, :, 2:], v[:, :, 2:], 0.3)
    torch.testing.assert_close(put_together(*first, *second), attend(q, k, v, 0.3)[0], rtol=0, atol=1e-12)
