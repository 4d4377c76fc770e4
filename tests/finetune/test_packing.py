"""Packed rows against the same rows one by one, in float64 on the tiny model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from finetune.encoding import EncodedRow, RefusedError, encode_row, encode_rows
from finetune.plan import JobSpec, Row
from prompts import chat
from tests.finetune.conftest import make_rows

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lora(tiny_model: Path) -> tuple[Any, Any]:
    """The tiny model in float64 with a LoRA that is not zero, and its tokenizer."""
    import torch
    import transformers

    from finetune.model import load

    spec = JobSpec(job_id="j", base_folder=tiny_model, output_dir=tiny_model, train=())
    torch.manual_seed(1)
    model = load(spec, torch.device("cpu")).double()
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(norm_in_float64, module)
    return model, transformers.AutoTokenizer.from_pretrained(tiny_model)


def norm_in_float64(norm: Any, hidden: Any) -> Any:
    """RMSNorm without the detour through fp32 that transformers takes, which would hide the digits compared here."""
    return norm.weight * hidden * (hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()


def one_by_one(base: Any, rows: list[EncodedRow]) -> Any:
    """The mean loss over labelled tokens from the model's own logits, a row at a time."""
    import torch

    losses = []
    for row in rows:
        logits = base(input_ids=torch.tensor([row.ids])).logits[0, row.prompt_tokens - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels), reduction="sum"))
    return sum(losses) / sum(len(row.labels) for row in rows)


@pytest.mark.parametrize("pack_tokens", [4096, 90])
def test_loss_and_gradients_equal_those_of_the_rows_one_by_one(lora: tuple[Any, Any], pack_tokens: int, monkeypatch):
    import torch

    from finetune import scoring
    from finetune.packing import packs

    monkeypatch.setattr(scoring, "_HEAD_CHUNK", 7)  # several chunks
    model, tokenizer = lora
    answers = ["ok", "billing now", "x", "returns"]
    rows = [
        encode_row(tokenizer, row.model_copy(update={"answer": answer}))
        for row, answer in zip(make_rows(4), answers, strict=True)
    ]
    params = [param for param in model.parameters() if param.requires_grad]
    base = model.get_base_model()
    expected = one_by_one(base, rows)
    expected_gradients = torch.autograd.grad(expected, params)
    labels = sum(len(row.labels) for row in rows)
    made = list(packs(rows, pack_tokens))
    loss = sum(scoring.loss_sum(base, one) for one in made) / labels
    gradients = torch.autograd.grad(loss, params)
    assert (len(made) == 1) == (pack_tokens == 4096)
    assert made[0].prefix_tokens >= 40
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_rows_of_one_prompt_keep_the_token_that_their_first_label_needs(lora: tuple[Any, Any]):
    from finetune.packing import pack

    tokenizer = lora[1]
    row = encode_row(tokenizer, make_rows(1)[0])
    made = pack([row, row])
    assert made.prefix_tokens == row.prompt_tokens - 1
    assert made.labels.tolist() == [*row.labels, *row.labels]
    assert made.tokens == made.prefix_tokens + 2 * len(row.labels)


def generated(model: Any, tokenizer: Any, row: EncodedRow, max_new_tokens: int) -> str:
    """transformers' own greedy answer."""
    import torch

    ids = torch.tensor([row.prompt])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=2,
    )
    return str(tokenizer.decode(out[0, row.prompt_tokens :], skip_special_tokens=True))


def test_scores_are_those_of_greedily_generated_answers(lora: tuple[Any, Any]):
    import torch

    from finetune.scoring import score

    model, tokenizer = lora
    base, rows = model.get_base_model().eval(), make_rows(8)
    answers = [generated(base, tokenizer, encode_row(tokenizer, row), 4).strip() for row in rows]
    half = [answer if at % 2 else "no" for at, answer in enumerate(answers)]  # four right answers, cut off at 4 tokens
    made = [
        EncodedRow((*prompt, *chat.encode_answer(tokenizer, answer)), len(prompt), answer)
        for row, answer in zip(rows, half, strict=True)
        for prompt in [chat.encode_prompt(tokenizer, row.messages)]
    ]
    found = score(base, tokenizer, made, max_new_tokens=4, pack_tokens=4096)
    assert found.exact == sum(a == b for a, b in zip(answers, half, strict=True)) / 8 == 0.5
    with torch.no_grad():
        assert found.loss == pytest.approx(float(one_by_one(base, made)), rel=1e-6)


def test_only_the_answer_and_the_end_of_its_turn_are_labelled(lora: tuple[Any, Any]):
    tokenizer = lora[1]
    row = encode_row(tokenizer, make_rows(1, "billing")[0])
    assert tokenizer.decode(list(row.labels)) == "billing<|im_end|>"
    assert list(row.prompt) == chat.encode_prompt(tokenizer, make_rows(1)[0].messages)


@pytest.mark.parametrize(
    ("row", "limits", "reason"),
    [
        (make_rows(1, " ")[0], {}, "no labelled tokens"),
        (make_rows(1)[0], {"context_tokens": 10}, "exceed the model's context of 10"),
        (make_rows(1, "a long answer")[0], {"max_new_tokens": 4}, "serving stops at 4"),
        (Row(messages=({"role": "user", "content": None},), answer="ok"), {}, "reads text only"),
    ],
)
def test_rows_that_must_not_be_trained_on_are_refused(lora: tuple[Any, Any], row: Row, limits: dict, reason: str):
    bounds = {"context_tokens": 2048, "max_new_tokens": 64} | limits
    with pytest.raises(RefusedError, match=reason) as caught:
        encode_rows(lora[1], [make_rows(1)[0].model_copy(update={"answer": "x"}), row], part="dev", **bounds)
    assert any(why.startswith("dev row 1: ") for why in caught.value.reasons)


def test_the_reasons_left_out_are_counted_once_whoever_passes_them_on(make_spec: Any):
    import transformers

    from finetune.bench import encode

    spec = make_spec(train=make_rows(30, " "), dev=make_rows(12, " "))
    with pytest.raises(RefusedError, match=r"… and 22 more$") as caught:
        encode(spec, transformers.AutoTokenizer.from_pretrained(spec.base_folder))
    assert len(caught.value.reasons) == 42
    assert (len(caught.value.shown), caught.value.shown[-1]) == (21, "… and 22 more")


def test_a_double_beginning_is_refused(tiny_model: Path):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "<|im_start|>" + tokenizer.chat_template
    with pytest.raises(RefusedError, match=r"begins with '<\|im_start\|>' twice"):
        encode_rows(tokenizer, make_rows(1), part="train", context_tokens=2048, max_new_tokens=8)
