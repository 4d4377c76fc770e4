from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.plan import (
    JobSpec,
    ModelShape,
    Recipe,
    Row,
    learning_rate_at,
    make_plan,
    make_recipe,
    read_spec,
    total_steps,
    write_spec,
)
from prompts.errors import BadInput

SMOL = ModelShape(
    parameter_count=135_000_000, linears=((576, 576), (1536, 576)), vocabulary=49_152, context_tokens=8192
)


@pytest.mark.parametrize(
    ("parameters", "rows", "lr", "epochs"),
    [(135_000_000, 150, 1e-3, 5), (1_500_000_000, 500, 5e-4, 3), (7_000_000_000, 5000, 3e-4, 2)],
)
def test_the_recipe_follows_the_size_of_the_model_and_of_the_data(parameters, rows, lr, epochs):
    recipe = make_recipe(parameters, rows)
    assert (recipe.rank, recipe.alpha, recipe.lr, recipe.epochs) == (16, 32, lr, epochs)


def test_an_expert_overrides_any_field():
    given = {"rank": 8, "alpha": 8.0, "lr": 0.01}
    assert make_recipe(1, 1, given) == make_recipe(1, 1).model_copy(update=given)


def test_a_rank_alone_takes_its_alpha_along():
    recipe = make_recipe(1, 1, {"rank": 512})
    assert (recipe.rank, recipe.alpha) == (512, 1024.0)


def test_every_fault_of_a_recipe_is_told_with_its_range_and_an_example():
    with pytest.raises(BadInput) as caught:
        make_recipe(1, 1, {"lr": "fast", "rank": 0, "epoch": 3, "learning_rates": 0.01})
    assert str(caught.value).split("; ") == [
        "recipe.lr: expected a number above 0 up to 1, found 'fast' (write 0.001, say)",
        "recipe.rank: expected a whole number from 1 up to 512, found 0 (write 16, say)",
        "unknown key 'recipe.epoch' (did you mean 'epochs'?)",
        "unknown key 'recipe.learning_rates' (known here: " + ", ".join(sorted(Recipe.model_fields)) + ")",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 1.0e9}, r"epochs: expected a number above 0 up to 1,000, found 1000000000.0 \(write 5, say"),
        ({"epochs": float("nan")}, "epochs: expected a number above 0 up to 1,000, found nan"),
        ({"alpha": None}, "alpha: expected a number above 0, found nothing"),
        ({"min_steps": 10**9}, "min_steps: expected a whole number from 1 up to 1,000,000, found 1000000000"),
        ({"batch_size": 100_000}, "batch_size: expected a whole number from 1 up to 4,096, found 100000"),
        ({"batch_size": 8.5}, "batch_size: expected a whole number from 1 up to 4,096, found 8.5"),
        ({"evals_per_epoch": 101}, "evals_per_epoch: expected a whole number from 1 up to 100, found 101"),
        ({"patience": True}, "patience: expected a whole number from 0 up to 100,000, found True"),
        ({"dropout": False}, "dropout: expected a number from 0 and below 1, found False"),
        (
            {"epochs": 1000, "batch_size": 1},
            "1000 epochs of 2,000 rows in batches of 1 are 2,000,000 steps, 1,000,000 at",
        ),
    ],
)
def test_a_value_beyond_all_use_is_refused_before_anything_is_planned(given: dict[str, Any], said: str):
    with pytest.raises(BadInput, match=said):
        make_recipe(135_000_000, 2000, given)


def test_small_sets_get_sixty_steps():
    assert total_steps(Recipe(epochs=5), 16) == 60
    assert total_steps(Recipe(epochs=5), 170) == 110


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero_after_the_last_step():
    recipe = Recipe(lr=1.0, warmup_share=0.2)
    rates = [round(learning_rate_at(recipe, step, 10), 3) for step in range(1, 12)]
    assert rates == [0.5, 1.0, 0.889, 0.778, 0.667, 0.556, 0.444, 0.333, 0.222, 0.111, 0.0]


def test_the_plan_adds_up():
    rows = [Row(messages=({"role": "user", "content": "x" * 300},), answer="billing")] * 40
    plan = make_plan(SMOL, Recipe(rank=8), rows)
    assert plan.trainable_count == 8 * (576 + 576) + 8 * (1536 + 576)
    assert plan.weights_bytes == 135_000_000 * 4
    assert plan.steps == 60
    assert plan.memory_bytes == sum(
        (plan.weights_bytes, plan.adapter_bytes, plan.optimizer_bytes, plan.activation_bytes)
    )
    assert make_plan(SMOL, Recipe(rank=8), rows, on_cuda=True).weights_bytes == 135_000_000 * 2


def test_devices_that_share_a_model_hold_their_part_of_its_layers_and_all_of_the_rest():
    shape = ModelShape(1_000_000, linears=((100, 1000),) * 8, vocabulary=100, context_tokens=64, layers=8, width=8)
    assert shape.weights_bytes(2) == 2_000_000
    parts, gathered = 800_000 * 2 // 4, 2 * 100_000 * 2  # a quarter of the layers, and two whole ones for the moment
    assert shape.weights_bytes(2, devices=4) == 200_000 * 2 + parts + gathered
    rows = [Row(messages=({"role": "user", "content": f"{at}" * 300},), answer="billing") for at in range(8)]
    alone, shared = (make_plan(shape, Recipe(rank=8), rows, on_cuda=True, devices=devices) for devices in (1, 4))
    assert (alone.devices, shared.devices) == (1, 4)
    assert shared.weights_bytes == 1_200_000
    assert shared.adapter_bytes == alone.adapter_bytes
    assert shared.activation_bytes < alone.activation_bytes / 3  # two of the eight rows


def kept_bytes(base: Any, pack: Any) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass, the weights not counted."""
    import torch

    from finetune.scoring import loss_sum

    weights = {param.untyped_storage().data_ptr() for param in base.parameters()}
    kept: dict[int, torch.Tensor] = {}  # held, so that no address is given out twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_sum(base, pack)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.integration
def test_activations_are_estimated_within_a_factor_of_two(tiny_model: Path):
    import torch

    from finetune.encoding import EncodedRow
    from finetune.model import checkpoint_layers, load
    from finetune.packing import pack
    from finetune.plan.cost import activation_bytes, read_shape

    spec = JobSpec(job_id="j", base_folder=tiny_model, output_dir=tiny_model, train=(), recipe=Recipe(rank=4))
    model = load(spec, torch.device("cpu")).train()
    one = pack([EncodedRow(tuple(range(3, 203)), 190)] * 2)
    plain = kept_bytes(model.get_base_model(), one)
    checkpoint_layers(model)
    saved = kept_bytes(model.get_base_model(), one) + plain // 2  # while one of the two layers is computed again
    shape, labelled = read_shape(tiny_model), len(one.labels)
    estimates = [activation_bytes(shape, 4, one.tokens, labelled, checkpointed=way) for way in (False, True)]
    assert plain / 2 <= estimates[0] <= plain * 2, (plain, estimates)
    assert saved / 2 <= estimates[1] <= saved * 2, (saved, estimates)


def test_a_common_prefix_is_counted_once():
    rows = [
        Row(messages=({"role": "system", "content": "s" * 900}, {"role": "user", "content": f"{n:03}"}), answer="a")
        for n in range(8)
    ]
    assert 300 < make_plan(SMOL, Recipe(), rows).pack_tokens < 400


def test_a_spec_comes_back_as_it_was_written(tmp_path: Path):
    row = Row(messages=({"role": "user", "content": "hi"},), answer="yes")
    spec = JobSpec(job_id="j", base_folder=tmp_path, output_dir=tmp_path, train=(row,), lineage={"suite": "s"})
    write_spec(spec, tmp_path / "deep" / "spec.json")
    assert read_spec(tmp_path / "deep" / "spec.json") == spec
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["spec.json"]


def test_a_bad_spec_is_refused(tmp_path: Path):
    (tmp_path / "spec.json").write_text('{"job_id": "j", "epoch": 1}')
    with pytest.raises(BadInput, match="epoch"):
        read_spec(tmp_path / "spec.json")
