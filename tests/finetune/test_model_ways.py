"""Ways to hold a base model that does not fit as it is: in 4 bits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from finetune.plan import JobSpec, Measured, make_plan, read_shape
from tests.finetune.conftest import events_of, run_job

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def nf4() -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra quantize")


def test_only_linear_layers_but_the_head_are_held_in_4_bits(make_spec: MakeSpec, nf4: None):
    import torch
    from bitsandbytes.nn import Linear4bit

    from finetune.model import load

    spec = make_spec(four_bit=True)
    model = load(spec, torch.device("cpu"))
    held = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(held) == 14  # seven a layer
    assert {(one.weight.quant_state.quant_type, one.weight.quant_state.nested) for one in held} == {("nf4", True)}
    base = model.get_base_model()
    assert not isinstance(base.get_output_embeddings(), Linear4bit)
    assert base.get_input_embeddings().weight.dtype == torch.float32
    trained = [param for param in model.parameters() if param.requires_grad]
    assert (len(trained), {param.dtype for param in trained}) == (28, {torch.float32})


def test_gradients_on_4_bits_are_those_on_the_weights_they_stand_for(make_spec: MakeSpec, nf4: None):
    """The oracle: a full model whose weights are set to what the 4-bit ones spell."""
    import torch
    import transformers
    from bitsandbytes.functional import dequantize_4bit

    from finetune.encoding import encode_row
    from finetune.model import load
    from finetune.step import accumulate

    cpu, found = torch.device("cpu"), []
    quantised, full = load(make_spec(four_bit=True), cpu), load(make_spec(), cpu)
    theirs = dict(full.named_parameters())
    with torch.no_grad():
        for name, param in quantised.named_parameters():
            state = getattr(param, "quant_state", None)
            theirs[name].copy_(param if state is None else dequantize_4bit(param.data, state))
    for model in (quantised, full):
        torch.manual_seed(3)
        for name, param in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(param, std=0.1)
        spec = make_spec()
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
        loss = accumulate(model.get_base_model(), [encode_row(tokenizer, row) for row in spec.train[:4]], 4096).loss
        found.append((loss, {name: param.grad for name, param in model.named_parameters() if param.requires_grad}))
    (loss, gradients), (expected_loss, expected) = found
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # as in model.py
def test_an_adapter_trained_on_4_bits_has_the_canary_of_the_full_base(make_spec: MakeSpec, nf4: None):
    import peft
    import torch
    import transformers

    spec = make_spec(four_bit=True)
    assert run_job(spec) == 0
    assert events_of(spec)[0]["parameters"] == 54_144
    canary = json.loads((spec.output_dir / "adapter" / "turnout-adapter.json").read_text())["canary"]
    base = transformers.AutoModelForCausalLM.from_pretrained(spec.base_folder).eval()
    ids = torch.tensor([canary["ids"]])
    with torch.no_grad():
        assert base(input_ids=ids).logits[0, -1, :16].tolist() == pytest.approx(canary["base_logits"], abs=1e-5)
        served = peft.PeftModel.from_pretrained(base, spec.output_dir / "adapter").eval()
        logits = served(input_ids=ids).logits[0, -1, :16].tolist()
    assert logits == pytest.approx(canary["logits"], rel=1e-4, abs=1e-5)
    assert logits != pytest.approx(canary["base_logits"], rel=1e-2)
    assert events_of(spec)[-1]["dev_exact"] == 1.0
    again = make_spec("again", four_bit=True)
    assert run_job(again) == 0
    assert events_of(again)[-1]["digest"] == events_of(spec)[-1]["digest"]


def test_without_room_for_the_full_base_there_is_no_canary_and_the_events_say_so(
    make_spec: MakeSpec, nf4: None, monkeypatch
):
    from finetune import canary, memory
    from finetune.bench import set_up

    with opened(make_spec(four_bit=True)) as (spec, events, guard):
        bench = set_up(spec, events, guard)
        monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
        assert canary.canary_of(bench) is None
    told = events_of(spec)[-1]
    assert (told["type"], told["what"]) == ("decision", "canary")
    assert "main memory, 1000 are free: the adapter has no canary" in told["because"]


class opened:  # noqa: N801  used as a function
    """A job's folder, events and guard, as `measure` and `set_up` want them."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec.model_copy(update={"threads": None})

    def __enter__(self) -> tuple[JobSpec, Any, Any]:
        from finetune.events import Events
        from finetune.guard import Guard

        self.spec.output_dir.mkdir(parents=True)
        self.events = Events(self.spec.output_dir / "events.jsonl")
        return self.spec, self.events, Guard()

    def __exit__(self, *_: object) -> None:
        self.events._file.close()


class Fake:
    """A machine on which so much is free, and a pass of a full or of a quantised model takes so much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, full: int, quantised: int) -> None:
        from finetune import memory, scoring

        self.peak, real = 0, scoring.loss_sum

        def loss_sum(base: Any, pack: Any) -> Any:
            self.peak = max(self.peak, quantised if getattr(base, "is_loaded_in_4bit", False) else full)
            return real(base, pack)

        monkeypatch.setattr(scoring, "loss_sum", loss_sum)
        monkeypatch.setattr(memory, "held_bytes", lambda device: 0)
        monkeypatch.setattr(memory, "free_bytes", lambda device: free)
        monkeypatch.setattr(memory, "forget_peak", lambda device: setattr(self, "peak", 0))
        monkeypatch.setattr(memory, "peak_bytes", lambda device: self.peak)


def measured(make_spec: MakeSpec, **changes: Any) -> Measured:
    from finetune.measure import measure

    with opened(make_spec(**changes)) as (spec, events, guard):
        return measure(spec, events, guard, time.monotonic())


def test_a_base_that_fits_as_it_is_stays_so(make_spec: MakeSpec, nf4: None, monkeypatch):
    Fake(monkeypatch, free=1_000_000, full=50_000, quantised=5_000)
    found = measured(make_spec)
    assert (found.fits, found.four_bit, found.decisions) == (True, False, ())


def test_where_not_one_row_fits_even_checkpointed_the_base_is_held_in_4_bits(
    make_spec: MakeSpec, nf4: None, monkeypatch
):
    Fake(monkeypatch, free=1_000_000, full=2_000_000, quantised=5_000)
    found = measured(make_spec)
    assert (found.fits, found.four_bit, found.gradient_checkpointing) == (True, True, False)
    assert found.ways() == {"pack_tokens": 4096, "gradient_checkpointing": False, "four_bit": True}
    assert found.decisions == ("a base model in 4 bits: without it not even one example fits into the free memory",)


def test_weights_that_do_not_fit_are_not_even_loaded(make_spec: MakeSpec, nf4: None, monkeypatch):
    from finetune import bench

    Fake(monkeypatch, free=200_000, full=2_000_000, quantised=5_000)
    loaded, real = [], bench.load
    monkeypatch.setattr(bench, "load", lambda spec, *rest: loaded.append(spec.four_bit) or real(spec, *rest))
    found = measured(make_spec)
    assert (found.fits, found.four_bit, loaded) == (True, True, [True])
    assert found.decisions == ("a base model in 4 bits: its weights take 0.0 GiB, and 0.0 GiB are free here",)


def test_what_does_not_fit_in_4_bits_either_is_refused(make_spec: MakeSpec, nf4: None, monkeypatch):
    Fake(monkeypatch, free=1_000_000, full=2_000_000, quantised=2_000_000)
    found = measured(make_spec)
    assert (found.fits, found.four_bit, found.decisions) == (False, True, ())
    assert found.reason.startswith(
        "the training does not even fit with a base model in 4 bits: one example of 59 tokens"
    )


def test_without_the_extra_the_reason_names_it(make_spec: MakeSpec, monkeypatch):
    from finetune import quantize

    Fake(monkeypatch, free=1_000_000, full=2_000_000, quantised=5_000)
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    found = measured(make_spec)
    assert (found.fits, found.four_bit) == (False, False)
    assert "; install turnout[quantize] for a 4-bit base, free memory, shorten the longest example, or" in found.reason


def test_a_plan_counts_half_a_byte_for_what_is_quantised(make_spec: MakeSpec):
    spec = make_spec()
    shape = read_shape(spec.base_folder)
    # 41,472 weights of linear layers at 0.5159 bytes, 12,672 others (embeddings, norms) at 4
    assert shape.weights_bytes(4) == 54_144 * 4
    assert shape.weights_bytes(4, four_bit=True) == 12_672 * 4 + 21_395
    full, quantised = (make_plan(shape, spec.recipe, spec.train, four_bit=four_bit) for four_bit in (False, True))
    assert full.memory_bytes - quantised.memory_bytes == 54_144 * 4 - (12_672 * 4 + 21_395)
