"""The training step on a CUDA device: bf16 weights, an fp32 LoRA, SDPA with the pack's mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.encoding import encode_row
from finetune.plan import JobSpec, Recipe
from tests.finetune.conftest import events_of, make_rows, run_job
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cuda() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    folder = make_tiny_model(tmp_path_factory.mktemp("gpu") / "tiny")
    recipe = Recipe(rank=4, lr=3e-3)
    return JobSpec(job_id="j", base_folder=folder, output_dir=folder.parent / "out", train=make_rows(16), recipe=recipe)


def test_packed_and_single_rows_give_one_loss_and_about_one_gradient(cuda: Any, spec: JobSpec):
    import torch
    import transformers

    from finetune.model import load
    from finetune.step import accumulate

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    base = load(spec, cuda).get_base_model()
    rows = [encode_row(tokenizer, row) for row in spec.train[:8]]
    params = [param for param in base.parameters() if param.requires_grad]
    assert {param.dtype for param in params} == {torch.float32}
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16
    found = []
    for pack_tokens in (4096, 1):
        loss = accumulate(base, rows, pack_tokens).loss
        found.append((loss, torch.cat([param.grad.flatten() for param in params])))
    (packed_loss, packed), (alone_loss, alone) = found
    assert packed_loss == pytest.approx(alone_loss, rel=0.02)
    assert float((packed - alone).norm() / alone.norm()) < 0.05


def test_a_trial_tells_the_devices_memory(cuda: Any, spec: JobSpec):
    import time

    from finetune.events import Events
    from finetune.guard import Guard
    from finetune.measure import measure

    events = Events(spec.output_dir / "events.jsonl")
    found = measure(spec, events, Guard(), time.monotonic())
    events._file.close()
    assert found.fits
    assert (found.device.partition(":")[0], found.precision) == ("cuda", "bfloat16")
    assert 0 < found.peak_bytes < found.free_bytes


def test_compiled_layers_give_the_loss_and_about_the_gradient_of_plain_ones(cuda: Any, spec: JobSpec):
    import torch
    import transformers

    from finetune.compiling import compile_layers
    from finetune.model import load
    from finetune.step import accumulate

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    model = load(spec, cuda)
    base = model.get_base_model()
    rows = [encode_row(tokenizer, row) for row in spec.train[:8]]
    params = [param for param in base.parameters() if param.requires_grad]
    plain_loss = accumulate(base, rows, 4096).loss
    plain = torch.cat([param.grad.flatten() for param in params])
    compile_layers(model, cuda)
    assert accumulate(base, rows, 4096).loss == pytest.approx(plain_loss, rel=0.02)
    assert float((torch.cat([param.grad.flatten() for param in params]) - plain).norm() / plain.norm()) < 0.05


def test_a_canary_on_cuda_says_how_far_bf16_is_from_fp32(cuda: Any, spec: JobSpec):
    from finetune.bench import set_up
    from finetune.canary import canary_of
    from finetune.events import NoEvents
    from finetune.guard import Guard

    found = canary_of(set_up(spec, NoEvents(), Guard()))
    assert found is not None
    assert found.precision == "bfloat16"
    assert found.rounding is not None
    assert 0 < found.rounding < 1


def test_two_gpus_that_share_a_model_train_the_adapter_of_one(cuda: Any, spec: JobSpec, tmp_path: Path):
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    recipe = Recipe(rank=4, lr=3e-3, epochs=1, min_steps=8)
    alone, two = (
        spec.model_copy(update={"devices": devices, "recipe": recipe, "output_dir": tmp_path / f"{devices}"})
        for devices in (1, 2)
    )
    assert run_job(alone) == 0
    assert run_job(two) == 0
    first, other = ([one["loss"] for one in events_of(job) if one["type"] == "step"] for job in (alone, two))
    assert other == pytest.approx(first, rel=0.05)
