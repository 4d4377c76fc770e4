"""Our own layers beside transformers' forward pass: the same numbers, whatever the batch, the prefix and the adapters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from finetune.plan import main_memory  # noqa: E402
from service.engine import products  # noqa: E402
from service.engine.adapters import AdapterFiles  # noqa: E402
from service.engine.cache import NO_PREFIX, Prefix  # noqa: E402
from service.engine.layers import Decoder, is_known  # noqa: E402
from service.engine.model import choose_forward  # noqa: E402
from service.engine.own import OwnForward  # noqa: E402
from service.engine.whole import WholeForward  # noqa: E402
from service.engine.windows import Windows  # noqa: E402

pytestmark = [
    pytest.mark.integration,  # transformers and PEFT
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT calls it, not we
]

SHARED = np.arange(5, 17)
OWN = [np.arange(20, 20 + length) for length in (3, 37, 1, 20)]  # three stretches of a pack
VOCABULARY = 61
CLOSE = {"rtol": 0, "atol": 1e-6}  # transformers computes norms and rotations in fp32, whatever the weights are


def make_network(family: str) -> Any:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=None,
        tie_word_embeddings=family == "Llama",
    )
    torch.manual_seed(3)
    network = getattr(transformers, f"{family}ForCausalLM")(config).double().eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "norm" in name:  # as they come they are 0 and 1: a fault in them would not show
            parameter.add_(torch.randn_like(parameter) / 4)
    return network


@pytest.fixture(scope="module", params=["Llama", "Mistral", "Qwen2"])
def network(request: pytest.FixtureRequest) -> Any:
    return make_network(request.param)


def whole_logits(network: Any, ids: Sequence[int]) -> Any:
    """Of every token, by transformers in one pass."""
    return network(input_ids=torch.tensor([list(map(int, ids))])).logits[0]


def check_rows(network: Any, rows: Any, texts: list[list[int]]) -> None:
    expected = torch.stack([whole_logits(network, text)[-1] for text in texts])
    torch.testing.assert_close(rows.logits, expected, **CLOSE)


def test_rows_of_any_length_compute_what_transformers_computes_for_each(network: Any) -> None:
    forward = OwnForward(Decoder(network))
    prefix = forward.prefix_of(forward.prefill(None, [SHARED], NO_PREFIX), SHARED)
    rows = forward.prefill(None, OWN, prefix)
    texts = [[*SHARED, *own] for own in OWN]
    check_rows(network, rows, texts)
    for step in range(35):  # past the columns that were allotted at first
        tokens = [(7 * step + row) % VOCABULARY for row in range(len(texts))]
        rows = forward.advance(rows, tokens)
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]
    check_rows(network, rows, texts)


def test_weights_laid_out_anew_give_the_same(network: Any) -> None:
    narrow = copy.deepcopy(network).float()
    decoder = Decoder(narrow)
    own = decoder.head.parts[0].weight
    decoder.pack()
    assert decoder.head.joined is not None
    assert (decoder.head.joined.weight is own) == (products.packed(own) is own)  # where oneDNN is not asked it stays
    forward = OwnForward(decoder)
    prefix = forward.prefix_of(forward.prefill(None, [SHARED], NO_PREFIX), SHARED)
    rows = forward.advance(forward.prefill(None, OWN, prefix), [1, 2, 3, 4])
    texts = [[*SHARED, *begun, token] for token, begun in enumerate(OWN, start=1)]
    expected = torch.stack([whole_logits(network, text)[-1] for text in texts]).float()
    torch.testing.assert_close(rows.logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("free", "packs"), [(1 << 40, True), (1 << 10, False)])
def test_weights_are_laid_out_anew_where_memory_allows(
    network: Any, monkeypatch: pytest.MonkeyPatch, free: int, packs: bool
) -> None:
    told = []
    monkeypatch.setattr(main_memory, "free_bytes", lambda: free)
    monkeypatch.setattr(Decoder, "pack", lambda _: told.append(True))
    assert isinstance(choose_forward(network, Windows()), OwnForward)
    assert told == [True] * packs


def test_rows_kept_forked_and_joined_go_on_as_before(network: Any) -> None:
    forward = OwnForward(Decoder(network))
    prefix = forward.prefix_of(forward.prefill(None, [SHARED], NO_PREFIX), SHARED)
    after = forward.prefill(None, OWN, prefix)
    alone = forward.prefill(None, [OWN[1]], NO_PREFIX)
    rows = after.keep([2, 0, 0]).join([alone, after.keep([3])])
    texts = [[*SHARED, *OWN[2]], [*SHARED, *OWN[0]], [*SHARED, *OWN[0]], [*OWN[1]], [*SHARED, *OWN[3]]]
    assert [len(group.places) for group in rows.groups] == [4, 1]
    check_rows(network, rows, texts)
    rows = forward.advance(rows, [1, 2, 3, 4, 5]).keep([4, 1, 3])
    check_rows(network, forward.advance(rows, [6, 7, 8]), [[*texts[4], 5, 6], [*texts[1], 2, 7], [*texts[3], 4, 8]])


def test_a_prefix_that_goes_on_from_another_is_the_same(network: Any) -> None:
    forward = OwnForward(Decoder(network))
    begun = forward.prefix_of(forward.prefill(None, [SHARED[:7]], NO_PREFIX), SHARED[:7])
    whole = forward.prefix_of(forward.prefill(None, [SHARED], NO_PREFIX), SHARED)
    longer = forward.prefix_of(forward.prefill(None, [SHARED[7:]], begun), SHARED)
    for pair, other in zip(whole.pairs, longer.pairs, strict=True):
        torch.testing.assert_close(pair, other, **CLOSE)
    check_rows(network, forward.prefill(None, OWN, whole.cut(9)), [[*SHARED[:9], *own] for own in OWN])


def test_both_passes_give_the_same(network: Any) -> None:
    own, whole = OwnForward(Decoder(network)), WholeForward(network, Windows())
    prefixes = [one.prefix_of(one.prefill(None, [SHARED], NO_PREFIX), SHARED) for one in (own, whole)]
    rows = [one.prefill(None, OWN, prefix) for one, prefix in zip((own, whole), prefixes, strict=True)]
    rows = [one.advance(each, [1, 2, 3, 4]) for one, each in zip((own, whole), rows, strict=True)]
    torch.testing.assert_close(rows[0].logits, rows[1].logits, **CLOSE)
    rows = [each.keep([3, 1]).join([each.keep([0])]) for each in rows]
    rows = [one.advance(each, [5, 6, 7]) for one, each in zip((own, whole), rows, strict=True)]
    torch.testing.assert_close(rows[0].logits, rows[1].logits, **CLOSE)


@pytest.fixture
def tuned(network: Any, tmp_path: Path) -> tuple[list[Any], list[AdapterFiles]]:
    """PEFT's models of two adapters, and their files."""
    from service.engine.adapters import read_adapter

    models = []
    for seed in (1, 2):
        models.append(with_lora(copy.deepcopy(network), seed))
        models[-1].save_pretrained(tmp_path / str(seed))
    return models, [read_adapter(str(seed), tmp_path) for seed in (1, 2)]


def with_lora(network: Any, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=3, lora_alpha=5, target_modules=targets, use_rslora=seed == 2, task_type="CAUSAL_LM")
    model = get_peft_model(network, config, autocast_adapter_dtype=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def packed_forward(network: Any) -> OwnForward:
    decoder = Decoder(network)
    decoder.pack()
    return OwnForward(decoder)


@pytest.mark.parametrize(
    "path", [lambda n: OwnForward(Decoder(n)), packed_forward, lambda n: WholeForward(n, Windows())]
)
def test_rows_of_the_base_and_of_adapters_go_together(
    network: Any, tuned: tuple[list[Any], list[AdapterFiles]], path: Callable[[Any], Any]
) -> None:
    import copy

    models, files = tuned
    forward = path(copy.deepcopy(network))
    computing: dict[str | None, Any] = {None: network, "one": models[0], "two": models[1]}
    forward.add_adapter("one", files[0])
    forward.add_adapter("two", files[1])
    order = ["one", None, "two", "one"]
    rows = None
    for adapter, own in zip(order, OWN, strict=True):
        prefix = forward.prefix_of(forward.prefill(adapter, [SHARED], NO_PREFIX), SHARED)
        begun = forward.prefill(adapter, [own], prefix)
        rows = begun if rows is None else rows.join([begun])
    rows = forward.advance(rows, [1, 2, 3, 4])
    texts = [[*SHARED, *own, token] for own, token in zip(OWN, (1, 2, 3, 4), strict=True)]
    expected = [whole_logits(computing[adapter], text)[-1] for adapter, text in zip(order, texts, strict=True)]
    torch.testing.assert_close(rows.logits, torch.stack(expected), **CLOSE)
    kept = [3, 1, 0]  # in another order than their adapters'
    rows = forward.advance(rows.keep(kept), [5, 6, 7])
    texts = [[*texts[row], token] for row, token in zip(kept, (5, 6, 7), strict=True)]
    expected = [whole_logits(computing[order[row]], text)[-1] for row, text in zip(kept, texts, strict=True)]
    torch.testing.assert_close(rows.logits, torch.stack(expected), **CLOSE)
    forward.remove_adapter("one")
    check_rows(network, forward.prefill(None, OWN, Prefix(np.empty(0, dtype=np.int64), [])), [list(o) for o in OWN])


def test_parts_that_are_not_written_out_are_left_to_transformers() -> None:
    import transformers

    assert is_known(make_network("Llama"))
    strange = make_network("Llama")
    strange.config.hidden_act = "gelu"
    assert not is_known(strange)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    assert not is_known(transformers.Qwen3ForCausalLM(config))
