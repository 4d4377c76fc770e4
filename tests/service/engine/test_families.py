"""Each family, tiny and random: alone, together, after a shared prefix, with a LoRA, and one step of training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_families import FAMILIES, WINDOW, make_tiny_family

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft 0.21's call
]

RULE = "Answer in few words, please: "  # longer than any window
QUESTIONS = ["Why?", "Who wrote the long letter to the king?", "What is 17 + 25, and what is half of that number?"]
NEW_TOKENS = 8


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_family(tmp_path_factory.mktemp("family") / request.param, request.param)


@pytest.fixture(scope="module")
def network(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    import torch

    from service.engine.model import LoadedModel

    return LoadedModel(folder, torch.device("cpu"))


def are_greedy(network: Any, prompts: Sequence[Any], found: Sequence[Sequence[int]]) -> bool:
    """Whether transformers itself, given each prompt and answer whole and alone, would have said every token next."""
    import torch

    for prompt, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([[*map(int, prompt), *answer]])
        with torch.inference_mode():
            said = network(input_ids=ids, use_cache=False).logits[0].argmax(-1)
        if said[len(prompt) - 1 : -1].tolist() != list(answer):
            return False
    return True


def answers(model: Any, adapter: str | None, prompts: Sequence[Any], prefix: Any) -> list[list[int]]:
    from service.engine.decoding import advance, prefill

    rows = prefill(model, adapter, prompts, prefix)
    found: list[list[int]] = [[] for _ in prompts]
    for step in range(NEW_TOKENS):
        tokens = [int(token) for token in rows.logits.argmax(-1)]
        for answer, token in zip(found, tokens, strict=True):
            answer.append(token)
        if step < NEW_TOKENS - 1:
            rows = advance(model, rows, tokens)
    return found


def every_way(model: Any, adapter: str | None) -> tuple[list[Any], list[list[list[int]]]]:
    """The prompts, and their answers alone, together, and together after the prefix that they share."""
    from service.engine.cache import NO_PREFIX, PrefixCache
    from service.engine.decoding import shared_prefix

    prompts = [model.encode([{"role": "user", "content": RULE + question}]) for question in QUESTIONS]
    alone = [answers(model, adapter, [prompt], NO_PREFIX)[0] for prompt in prompts]
    prefix, _ = shared_prefix(model, PrefixCache(1 << 30), adapter, prompts)
    assert len(prefix.ids) > WINDOW
    together = answers(model, adapter, prompts, NO_PREFIX)
    return prompts, [alone, together, answers(model, adapter, prompts, prefix)]


def test_a_family_answers_as_transformers_does_alone_together_and_after_a_prefix(model: Any, network: Any) -> None:
    prompts, ways = every_way(model, None)
    assert are_greedy(network, prompts, ways[0])
    assert ways == [ways[0]] * 3
    assert len({tuple(answer) for answer in ways[0]}) > 1  # a model that says one thing would show nothing


def test_a_lora_over_every_linear_layer_answers_as_peft_does(model: Any, network: Any, tmp_path: Path) -> None:
    import copy

    from finetune.model import _linear_names
    from service.engine.adapters import read_adapter

    names = sorted(_linear_names(network))
    assert ({"qkv_proj", "gate_up_proj"} <= set(names)) == (network.config.model_type == "phi3")
    tuned = random_lora(copy.deepcopy(network), names)
    tuned.save_pretrained(tmp_path / "adapters" / "red")
    model.add_adapter("red", read_adapter("red", tmp_path / "adapters"))
    prompts, ways = every_way(model, "red")
    assert are_greedy(tuned, prompts, ways[0])
    assert ways == [ways[0]] * 3
    assert not are_greedy(network, prompts, ways[0])


def random_lora(base: Any, names: list[str]) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21's call
        model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_a_family_trains_packed_as_row_by_row(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from finetune.encoding import encode_row
    from finetune.model import check_packing, context_tokens, load
    from finetune.plan import JobSpec, Recipe
    from finetune.step import accumulate
    from tests.finetune.conftest import make_rows

    spec = JobSpec(job_id="j", base_folder=folder, output_dir=folder / "out", train=make_rows(4), recipe=Recipe(rank=4))
    rows = [encode_row(AutoTokenizer.from_pretrained(folder), row) for row in spec.train]
    windowed = context_tokens(folder) == WINDOW
    if windowed:
        rows = [shortened(row, WINDOW) for row in rows]
    model = load(spec, torch.device("cpu"))
    check_packing(model, rows)
    assert accumulate(model.get_base_model(), rows, 4096).loss > 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None for gradient in gradients)


def shortened(row: Any, tokens: int) -> Any:
    from finetune.encoding import EncodedRow

    return EncodedRow(row.ids[-tokens:], tokens - len(row.labels), row.answer)


def test_an_attention_that_the_engine_does_not_do_is_refused_with_its_name() -> None:
    from transformers import LlamaConfig

    from service.engine.windows import Windows
    from service.errors import CannotRun

    config = LlamaConfig(layer_types=["full_attention", "chunked_attention"], num_hidden_layers=2)
    with pytest.raises(CannotRun, match="attends by chunked_attention"):
        Windows.of(config, "m")


def test_a_window_hides_by_position_whatever_padding_lies_between() -> None:
    import torch

    from service.engine.windows import Windows

    real = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
    seen = Windows(window=3).mask(real, 2, torch.float32)
    assert isinstance(seen, torch.Tensor)
    assert seen[:, 0].int().tolist() == [
        [[1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 1]],
        [[0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]],
    ]


def test_within_the_window_transformers_masks_are_kept() -> None:
    import torch

    from service.engine.windows import Windows

    real = torch.ones(1, 3).bool()
    assert Windows(window=3).mask(real, 1, torch.float32) is real


def test_a_model_that_also_reads_images_is_refused_with_what_to_take() -> None:
    from transformers import Gemma3Config

    from service.engine.windows import Windows
    from service.errors import CannotRun

    with pytest.raises(CannotRun, match="take the family's model for text alone"):
        Windows.of(Gemma3Config(), "m")
