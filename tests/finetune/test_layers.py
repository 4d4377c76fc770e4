"""Decoder layers written out against the model's own, in float64, for each family and for what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.encoding import EncodedRow

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # as in model.py
]

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KNOWN = {
    "Llama": {
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    },
    "Mistral": {"head_dim": 10},
    "Qwen2": {"tie_word_embeddings": True},
}
UNKNOWN = {"Qwen3": {"head_dim": 8}, "Gemma": {"head_dim": 8}, "Phi3": {}}
ROWS = [EncodedRow(tuple(3 + at % 90 for at in range(40)) + own, 40 + prompt) for own, prompt in (
    ((50, 51, 52, 53, 2), 3), ((60, 61, 2), 1), ((70, 2), 0), ((80, 81, 82, 83, 84, 85, 2), 2))]  # fmt: skip


def in_float64(norm: Any) -> Any:
    """RMSNorm without the detour through fp32 that transformers takes, which would hide the digits compared here."""

    def forward(hidden: Any) -> Any:
        epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
        weight = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
        return weight * hidden * (hidden.square().mean(-1, keepdim=True) + epsilon).rsqrt()

    return forward


def make(family: str, rank: int = 4, **changes: Any) -> Any:
    """A tiny model of random weights in float64 with a LoRA that is not zero, as a training holds it."""
    import peft
    import torch
    import transformers

    from finetune.attention import use_packed_attention
    from finetune.lora import make_lean
    from finetune.model import _linear_names

    config = getattr(transformers, f"{family}Config")(**SIZES, **changes)
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()
    use_packed_attention(base)
    lora = peft.LoraConfig(r=rank, lora_alpha=6, target_modules=sorted(_linear_names(base)), task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, lora).double()
    make_lean(model)
    for name, param in model.named_parameters():
        if "lora_B" in name or "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(param, mean=1.0 if "norm" in name else 0.0, std=0.2)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = in_float64(module)
    return model.train()


def gradients(model: Any, rows: list[EncodedRow]) -> tuple[float, dict[str, Any]]:
    """The mean loss over labelled tokens and its gradients, by one pack."""
    from finetune.packing import pack
    from finetune.scoring import loss_sum

    loss = loss_sum(model.get_base_model(), pack(rows)) / sum(len(row.labels) for row in rows)
    loss.backward()
    return float(loss.detach()), _gradients(model)


def _gradients(model: Any) -> dict[str, Any]:
    return {name: param.grad for name, param in model.named_parameters() if param.grad is not None}


def by_the_model_itself(model: Any, rows: list[EncodedRow]) -> tuple[float, dict[str, Any]]:
    """The mean loss over labelled tokens and its gradients, a row at a time, by transformers' and peft's own code."""
    import torch
    from peft.tuners.lora.layer import Linear

    from finetune.lora import LeanLinear

    for module in model.modules():
        if type(module) is LeanLinear:
            module.__class__ = Linear
    base = model.get_base_model()
    base.set_attn_implementation("sdpa")
    model.zero_grad()
    losses = []
    for row in rows:
        logits = base(input_ids=torch.tensor([row.ids])).logits[0, row.prompt_tokens - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels), reduction="sum"))
    loss = torch.stack(losses).sum() / sum(len(row.labels) for row in rows)
    loss.backward()
    return float(loss.detach()), _gradients(model)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    import torch

    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-8, atol=1e-11, msg=lambda why, name=name: f"{name}: {why}"
        )


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], [EncodedRow((*row.ids[37:],), row.prompt_tokens - 37) for row in ROWS]]
)
@pytest.mark.parametrize("family", KNOWN)
def test_loss_and_gradients_are_those_of_the_model_itself(family: str, rows: list[EncodedRow]):
    import torch

    from finetune import layers
    from finetune.packing import pack

    model = make(family, **KNOWN[family])
    assert isinstance(layers.label_hidden(model.get_base_model(), pack(rows)), torch.Tensor)
    loss, found = gradients(model, rows)
    expected_loss, expected = by_the_model_itself(model, rows)
    assert len(found) == 2 * 7 * 3
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert_same(found, expected)


@pytest.mark.parametrize("family", UNKNOWN)
def test_a_family_of_another_shape_goes_its_own_way_with_the_same_gradients(family: str):
    from finetune import layers
    from finetune.packing import pack

    model = make(family, **UNKNOWN[family])
    assert layers.label_hidden(model.get_base_model(), pack(ROWS)) is None
    loss, found = gradients(model, ROWS)
    expected_loss, expected = by_the_model_itself(model, ROWS)
    assert loss == pytest.approx(expected_loss, rel=1e-7)
    assert_same(found, expected)


def test_rows_without_a_common_prefix_are_computed_alike():
    rows = [EncodedRow((5, 6, 7, 8, 2), 3), EncodedRow((9, 10, 2), 1)]
    model = make("Llama")
    loss, found = gradients(model, rows)
    expected_loss, expected = by_the_model_itself(model, rows)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert_same(found, expected)


def test_what_is_not_plain_training_goes_the_models_own_way():
    import torch

    from finetune import layers
    from finetune.model import checkpoint_layers, set_dropout
    from finetune.packing import pack

    def is_written_out(model: Any) -> bool:
        return layers.label_hidden(model.get_base_model(), pack(ROWS)) is not None

    model = make("Llama")
    assert is_written_out(model)
    with model.disable_adapter():
        assert not is_written_out(model)
    set_dropout(model, 0.1)
    assert not is_written_out(model)
    assert is_written_out(model.eval())  # nothing is dropped while it is scored
    set_dropout(model.train(), 0.0)
    model.get_base_model().model.layers[1].mlp.down_proj.scaling["default"] = 0.5
    assert not is_written_out(model)
    assert not is_written_out(make("Llama", hidden_act="gelu"))
    assert not is_written_out(make("Llama", attention_dropout=0.1))
    checkpointed = make("Llama")
    checkpoint_layers(checkpointed)
    assert not is_written_out(checkpointed)
    other = make("Llama")
    other.get_base_model().set_attn_implementation("sdpa")
    assert not is_written_out(other)
    mixed = make("Llama").float()
    mixed.get_base_model().model.layers[0].mlp.up_proj.lora_A["default"].to(torch.float64)
    assert not is_written_out(mixed)


def test_what_a_step_keeps_for_its_backward_pass_is_less_than_by_the_models_own_layers(monkeypatch):
    from finetune import layers
    from finetune.packing import pack
    from tests.finetune.test_plan import kept_bytes

    base, made = make("Llama").get_base_model(), pack(ROWS)
    ours = kept_bytes(base, made)
    monkeypatch.setattr(layers, "label_hidden", lambda model, pack: None)
    assert ours < 0.8 * kept_bytes(base, made)
