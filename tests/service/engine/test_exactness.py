"""The same answers whoever else is asked: many cases in any order, of the base and of many adapters at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.engine.adapters import read_adapter
from service.engine.asks import Ask
from tests.service.engine.references import generate_alone

pytestmark = [
    pytest.mark.integration,  # PEFT and a tiny model
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT calls it, not we
]

RULE = "Sort the ticket into one of the queues: billing, account, bug. Answer with the queue and nothing else."
ADAPTERS = [f"a{number}" for number in range(32)]


@pytest.fixture(scope="module")
def loras(tiny_folder: Path, make_lora: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 32 adapters: as PEFT saves one, with other numbers in each."""
    import torch
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("loras")
    like = make_lora(root / "like")
    weights = load_file(like / "adapter_model.safetensors")
    for seed, name in enumerate(ADAPTERS):
        torch.manual_seed(seed)
        (root / name).mkdir()
        (root / name / "adapter_config.json").write_bytes((like / "adapter_config.json").read_bytes())
        save_file(
            {key: torch.randn_like(one) / 2 for key, one in weights.items()}, root / name / "adapter_model.safetensors"
        )
    return root


@pytest.fixture(scope="module")
def engine(tiny_folder: Path, loras: Path) -> Iterator[Any]:
    """A generator with all 32 adapters loaded, of which 16 rows go together."""
    import torch

    from service.engine.core import Generator
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel

    made = Generator(LoadedModel(tiny_folder, torch.device("cpu")), Limits(rows=16))
    made.start()
    for name in ADAPTERS:
        made.load_adapter(name, read_adapter(name, loras)).result(60)
    yield made
    made.stop()


def ask(text: str, adapter: str | None, tokens: int) -> Ask:
    messages = ({"role": "system", "content": RULE}, {"role": "user", "content": text})
    return Ask(messages, adapter, tokens, 0.0)


def alone(engine: Any, loras: Path, one: Ask) -> str:
    model = engine._model
    folder = loras / one.adapter if one.adapter else None
    return str(model.decode(generate_alone(model.folder, folder, model.encode(one.messages), one.max_tokens or 1)))


def test_200_shuffled_cases_of_base_and_adapters_are_answered_as_one_by_one(engine: Any) -> None:
    kinds = [None, None, "a0", "a1", "a2"]
    asks = [ask(f"{number} " + "black " * (number % 6), kinds[number % 5], 3 + number % 8) for number in range(200)]
    one_by_one = [engine.submit(one).result(60).text for one in asks]
    order = list(range(200))
    random.Random(4).shuffle(order)  # noqa: S311  # a repeatable order, not a secret
    futures = {index: engine.submit(asks[index]) for index in order}
    assert [futures[index].result(60).text for index in range(200)] == one_by_one
    assert max(engine.counters.batch_sizes) >= 16
    assert len(set(one_by_one)) > 40


def test_32_adapters_over_one_base_answer_as_each_does_in_peft(engine: Any, loras: Path) -> None:
    asks = [ask("the screen is black", name, 6) for name in (None, *ADAPTERS)]
    got = [future.result(60).text for future in [engine.submit(one) for one in asks]]
    assert got == [alone(engine, loras, one) for one in asks]
    assert len(set(got)) > 15


def test_adapters_come_and_go_while_others_are_answered(engine: Any, loras: Path) -> None:
    long = engine.submit(ask("long", "a3", 400))
    before = engine.submit(ask("short", "a4", 4)).result(60).text
    engine.unload_adapter("a4").result(60)
    engine.load_adapter("a4", read_adapter("a4", loras)).result(60)
    assert not long.done()
    assert engine.submit(ask("short", "a4", 4)).result(60).text == before
    long.result(60)


def test_a_suite_s_shared_prefix_is_computed_once_for_each_adapter_and_held_for_the_next_run(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, computed = engine._model.forward, []
    prefill = forward.prefill

    def counted(adapter: str | None, own: Any, prefix: Any) -> Any:
        computed.append((adapter, sum(map(len, own))))
        return prefill(adapter, own, prefix)

    monkeypatch.setattr(forward, "prefill", counted)
    rule = "Say what the customer wants, in one word of your own choice and in small letters. " * 3

    def run() -> dict[str | None, int]:
        computed.clear()
        texts = [f"ticket {number}" for number in range(10, 50)]
        messages = [({"role": "system", "content": rule}, {"role": "user", "content": text}) for text in texts]
        futures = [engine.submit(Ask(one, kind, 2, 0.0)) for one in messages for kind in (None, "a5")]
        for future in futures:
            future.result(60)
        return {kind: sum(tokens for adapter, tokens in computed if adapter == kind) for kind in (None, "a5")}

    first, second = run(), run()
    own = len("10<|im_end|>\n<|im_start|>assistant\n") - len("<|im_end|><|im_start|>") + 2  # tokens are bytes here
    for kind in (None, "a5"):
        assert second[kind] <= 40 * (own + 2)
        # who goes with whom decides whether a first letter of the ticket's number is shared, too: 40 at most
        assert len(rule) - 40 < first[kind] - second[kind] < 2 * len(rule) - 40
