"""Compiled layers: only on CUDA, only where the steps to come repay the seconds of compiling, and with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetune.plan import JobSpec, Measured, Recipe

pytestmark = pytest.mark.integration  # what it tests imports torch

MakeSpec = Callable[..., JobSpec]


def measured(**changes: Any) -> Measured:
    given = dict.fromkeys(("largest_step_s", "row_s", "score_row_s", "tokens_per_s"), 0.1)
    given |= {"device": "cuda:0", "precision": "bfloat16", "load_s": 10.0, "step_s": 0.1, "pack_tokens": 4096}
    return Measured(**{**given, "peak_bytes": 1, "free_bytes": 2, **changes})


def test_on_a_cpu_layers_are_never_compiled():
    from finetune.compiling import is_possible

    assert [is_possible(measured(device=device)) for device in ("cuda:0", "cpu", "mps:0")] == [True, False, False]
    assert not is_possible(measured(fits=False))


def test_compiling_is_not_tried_where_the_steps_could_not_repay_it():
    from finetune.compiling import limit_s, not_worth_trying

    why = not_worth_trying(measured(), 100)
    assert why == (
        "layers are not compiled: 100 steps of 0.100 s could save 5 s at best, and trying takes 40 s at least"
    )
    assert not_worth_trying(measured(), 1000) == ""
    assert limit_s(measured(), 1000) == 60.0
    assert limit_s(measured(), 100_000) == 240.0


def test_of_both_ways_the_one_that_ends_the_run_earlier_is_taken():
    from finetune.compiling import better_of

    compiled = measured(step_s=0.06, compile=True, compile_s=20.0)
    shorter, longer = better_of(measured(), compiled, 400, ""), better_of(measured(), compiled, 1000, "")
    assert (shorter.compile, shorter.step_s) == (False, 0.1)
    assert shorter.decisions[-1] == (
        "layers are not compiled: a step takes 0.060 s compiled and 0.100 s as it is, compiling 20 s: "
        "over 400 steps 4 s more"
    )
    assert (longer.compile, longer.ways()["compile"]) == (True, True)
    assert longer.decisions[-1].startswith("layers are compiled: a step takes 0.060 s compiled")
    assert longer.decisions[-1].endswith("over 1000 steps 20 s less")


def test_a_trial_that_took_too_long_is_no_reason_to_compile():
    from finetune.compiling import better_of

    found = better_of(measured(), None, 1000, "given up after 60 s")
    assert not found.compile
    assert found.decisions[-1].endswith("the trial with compiled ones gave nothing, given up after 60 s")


@pytest.mark.slow
def test_a_job_with_compiled_layers_trains_the_same_adapter(make_spec: MakeSpec):
    import safetensors.torch
    import torch

    from tests.finetune.conftest import run_job

    recipe = Recipe(lr=3e-3, rank=4, alpha=8.0, epochs=1, min_steps=6, patience=0)
    plain, traced = make_spec("plain", recipe=recipe), make_spec("traced", recipe=recipe, compile=True)
    assert run_job(plain) == 0
    assert run_job(traced) == 0
    expected, found = (
        safetensors.torch.load_file(spec.output_dir / "adapter" / "adapter_model.safetensors")
        for spec in (plain, traced)
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-4)


def test_compiled_layers_and_several_devices_do_not_go_together(make_spec: MakeSpec):
    with pytest.raises(ValueError, match="compiled layers, are for one device"):
        make_spec(devices=2, compile=True)
