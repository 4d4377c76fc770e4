"""Attention of packs in blocks against one dense mask, in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

SPANS = [(0, (3, 1, 5)), (7, (4,)), (90, (3, 50, 1, 8)), (41, (2, 2))]  # tokens of the prefix, and of each row


def spans_of(prefix: int, own: tuple[int, ...]) -> Any:
    from finetune.attention import Spans

    ends = [prefix + sum(own[:at]) for at in range(len(own) + 1)]
    return Spans(prefix, tuple(pairwise(ends)))


def dense_mask(spans: Any) -> Any:
    """[query, key]: earlier keys of the prefix and of one's own row."""
    import torch

    owner = torch.zeros(spans.rows[-1][1], dtype=torch.long)
    for number, (at, to) in enumerate(spans.rows, start=1):
        owner[at:to] = number
    return ((owner[None, :] == 0) | (owner[None, :] == owner[:, None])).tril()


@pytest.mark.parametrize(("prefix", "own"), SPANS)
def test_blocks_hold_each_pair_that_is_seen_once(monkeypatch, prefix: int, own: tuple[int, ...]):
    import torch

    from finetune import attention

    monkeypatch.setattr(attention, "_TRIANGLE", 16)
    spans = spans_of(prefix, own)
    seen = torch.zeros_like(dense_mask(spans), dtype=torch.long)
    for asks, keys, causal in attention.blocks(spans):
        ones = torch.ones_like(seen[asks, keys])
        seen[asks, keys] += ones.tril() if causal else ones
    assert torch.equal(seen, dense_mask(spans).long())


@pytest.mark.parametrize(("prefix", "own"), SPANS)
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
def test_output_and_gradients_equal_those_of_a_dense_mask(monkeypatch, prefix, own, heads, groups):
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from finetune import attention

    monkeypatch.setattr(attention, "_TRIANGLE", 16)
    spans = spans_of(prefix, own)
    tokens = spans.rows[-1][1]
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(1, count, tokens, 8, dtype=torch.float64, generator=generator) for count in (heads, groups, groups)
    ]
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in made] for _ in range(2))
    found = attention._PackedAttention.apply(*ours, spans, 0.3)
    key, value = (tensor.repeat_interleave(heads // groups, dim=1) for tensor in theirs[1:])
    expected = scaled_dot_product_attention(theirs[0], key, value, attn_mask=dense_mask(spans), scale=0.3).transpose(
        1, 2
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weight = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-11)


def test_a_model_without_packs_and_one_with_a_soft_cap_go_the_dense_way(tiny_model: Path, monkeypatch):
    import torch

    from finetune import attention
    from finetune.model import load
    from finetune.plan import JobSpec

    spec = JobSpec(job_id="j", base_folder=tiny_model, output_dir=tiny_model, train=())
    base = load(spec, torch.device("cpu")).get_base_model().eval()
    assert attention.takes_spans(base)
    ids = torch.tensor([[5, 6, 7, 8]])
    monkeypatch.setattr(attention._PackedAttention, "apply", None)  # a call would raise
    plain = base(input_ids=ids).logits
    base.set_attn_implementation("sdpa")
    assert not attention.takes_spans(base)
    torch.testing.assert_close(plain, base(input_ids=ids).logits)
    q = torch.zeros(1, 2, 4, 8)
    assert attention._is_plain(base, q, q, {"scaling": 0.1, "dropout": 0.0, "sliding_window": 9, "softcap": None})
    for extra in ({"softcap": 30.0}, {"s_aux": q}, {"dropout": 0.1}, {"position_bias": q}, {"is_causal": False}):
        assert not attention._is_plain(base, q, q, extra)
