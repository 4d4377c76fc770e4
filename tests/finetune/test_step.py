"""A batch's gradient: in few or many passes, with layers checkpointed, and where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetune.encoding import EncodedRow, encode_row
from finetune.plan import JobSpec, Row
from tests.finetune.conftest import make_rows
from tests.finetune.test_lora import load_double

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]
MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


def encoded(spec: JobSpec, rows: tuple[Row, ...]) -> list[EncodedRow]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    return [encode_row(tokenizer, row) for row in rows]


def two_prompts() -> tuple[Row, ...]:
    """Six rows under two prompts, by turns, with answers of many lengths."""
    systems = ("Route the ticket to the queue that handles it. ", "Name the language that this text is written in. ")
    return tuple(
        Row(
            messages=(
                {"role": "system", "content": systems[at % 2] * 4},
                {"role": "user", "content": f"text {at}" * at},
            ),
            answer="yes" * (at + 1),
        )
        for at in range(6)
    )


def gradient(base: Any, rows: list[EncodedRow], pack_tokens: int = 4096) -> tuple[Any, list[Any]]:
    from finetune.step import accumulate

    made = accumulate(base, rows, pack_tokens)
    return made, [param.grad.clone() for param in base.parameters() if param.requires_grad]


def same(found: list[Any], expected: list[Any]) -> None:
    import torch

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_rows_of_two_prompts_are_packed_apart_with_the_same_gradient(make_spec: MakeSpec):
    from finetune.packing import fewest_packs, pack

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, two_prompts())
    made = list(fewest_packs(rows, 4096))
    assert [len(one.label_counts) for one in made] == [3, 3]
    assert sum(one.tokens for one in made) < pack(rows).tokens / 1.5
    whole, expected = gradient(base, rows)
    small, found = gradient(base, rows, 1)  # a row a pass
    assert whole.loss == pytest.approx(small.loss, rel=1e-6)
    assert whole.packed_tokens < small.packed_tokens
    same(found, expected)


def test_fewest_packs_fill_what_a_pass_may_hold(make_spec: MakeSpec):
    from finetune.packing import fewest_packs, shared_prefix

    rows = [EncodedRow((1, 2, 3, 4, *range(10, 10 + own)), 5) for own in (9, 3, 8, 4)]  # 8, 2, 7 and 3 of their own
    assert shared_prefix(rows) == 4
    made = list(fewest_packs(rows, 4 + 11))
    assert [one.tokens - one.prefix_tokens for one in made] == [11, 9]  # 8 with 3, 7 with 2


def test_checkpointed_layers_give_the_same_gradient(make_spec: MakeSpec):
    spec = make_spec()
    rows = encoded(spec, make_rows(4))
    _, expected = gradient(load_double(spec).get_base_model(), rows)
    ways = spec.model_copy(update={"gradient_checkpointing": True})
    base = load_double(ways).get_base_model()
    assert any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    same(gradient(base, rows)[1], expected)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(MESSAGE)])
def test_out_of_memory_halves_the_passes_and_takes_the_step_again(make_spec: MakeSpec, monkeypatch, error: Exception):
    from finetune import scoring

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, make_rows(8))
    whole, expected = gradient(base, rows)
    real, passes = scoring.loss_sum, []

    def full_beyond_three_rows(model: Any, pack: Any) -> Any:
        passes.append(len(pack.label_counts))
        if len(pack.label_counts) > 3:
            raise error
        return real(model, pack)

    monkeypatch.setattr(scoring, "loss_sum", full_beyond_three_rows)
    made, found = gradient(base, rows)
    assert passes[:2] == [8, 4]  # and then from the beginning again
    assert sum(passes[2:]) == 8
    assert max(passes[2:]) == 2
    assert whole.pack_tokens == 4096 > made.pack_tokens
    assert made.loss == pytest.approx(whole.loss, rel=1e-6)
    same(found, expected)
    passes.clear()
    gradient(base, rows, made.pack_tokens)
    assert (sum(passes), max(passes)) == (8, 2)  # the smaller size holds from here on


def test_memory_that_runs_out_after_some_passes_leaves_nothing_of_them(make_spec: MakeSpec, monkeypatch):
    from finetune import scoring

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, make_rows(8))
    _, expected = gradient(base, rows)
    real, passes = scoring.loss_sum, []

    def full_at_the_second(model: Any, pack: Any) -> Any:
        passes.append(len(pack.label_counts))
        if len(passes) == 2:
            raise MemoryError
        return real(model, pack)

    monkeypatch.setattr(scoring, "loss_sum", full_at_the_second)
    _, found = gradient(base, rows, 120)
    assert len(passes) > 3
    same(found, expected)


def test_a_single_row_that_does_not_fit_is_said_so(make_spec: MakeSpec, monkeypatch):
    from finetune import scoring
    from finetune.step import OutOfMemoryError, accumulate

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, make_rows(4))
    monkeypatch.setattr(scoring, "loss_sum", lambda model, pack: (_ for _ in ()).throw(RuntimeError(MESSAGE)))
    with pytest.raises(OutOfMemoryError, match=r"at a single row of \d+ tokens: free memory, shorten the longest"):
        accumulate(base, rows, 4096)


def test_other_errors_are_not_taken_for_full_memory(make_spec: MakeSpec, monkeypatch):
    from finetune import scoring
    from finetune.step import accumulate

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, make_rows(2))
    monkeypatch.setattr(scoring, "loss_sum", lambda model, pack: (_ for _ in ()).throw(RuntimeError("bad shape")))
    with pytest.raises(RuntimeError, match="bad shape"):
        accumulate(base, rows, 4096)
