"""A job that is asked for several adapters keeps those of its newest evaluations, each complete."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from finetune import adapter
from finetune.guard import Guard
from finetune.plan import JobSpec, Recipe
from finetune.train import FINISHED, run
from tests.finetune.conftest import events_of

RECIPE = Recipe(lr=3e-3, rank=4, alpha=8.0, epochs=4.0, evals_per_epoch=1, min_steps=1, patience=0)


@pytest.mark.integration
def test_the_newest_evaluations_leave_adapters_and_the_last_ships(make_spec: Callable[..., JobSpec]) -> None:
    spec = make_spec(recipe=RECIPE, snapshots=3, ships="last", adapter_name="ft-a")

    assert run(spec, Guard()) == FINISHED

    folders = sorted((spec.output_dir / "snapshots").iterdir())
    points = [event for event in events_of(spec) if event["type"] == "evaluated"]
    assert [folder.name for folder in folders] == ["step-00000004", "step-00000006", "step-00000008"]
    manifests = [adapter.verify(folder) for folder in folders]
    assert [one.name for one in manifests] == ["ft-a-step-4", "ft-a-step-6", "ft-a-step-8"]
    assert manifests[-1].canary is not None
    assert adapter.verify(spec.output_dir / "adapter").digest == manifests[-1].digest
    assert [point["step"] for point in points] == [2, 4, 6, 8]
    assert all(0 <= point["dev_token_accuracy"] <= 1 and 0 <= point["train_token_accuracy"] <= 1 for point in points)
    assert manifests[-1].scores["dev_loss"] == points[-1]["dev_loss"]
