"""`chat_template` of a model: what it is for, and that serving and counting read the same one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prompts.errors import BadInput
from service.engine.weights import Source, find
from service.model_specs import LocalSpec
from service.tokens import TokenCounter
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.integration

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content | upper }}<|im_end|>{% endfor %}<|im_start|>"
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer came without a chat template."""
    folder = make_tiny_model(tmp_path_factory.mktemp("bare") / "model")
    (folder / "chat_template.jinja").unlink()
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    return folder


def test_a_model_without_a_chat_template_does_not_load_and_says_what_to_set(bare: Path) -> None:
    import torch

    from service.engine.model import LoadedModel

    with pytest.raises(BadInput, match=r"no chat template.*`chat_template` of the model in turnout\.yaml"):
        LoadedModel(bare, torch.device("cpu"))


def test_the_template_of_the_setting_is_served_and_counted(bare: Path, tmp_path: Path) -> None:
    import torch

    from service.engine.model import LoadedModel

    file = tmp_path / "chat.jinja"
    file.write_text(TEMPLATE)
    folder = find(Source.parse(f"path:{bare}", file), tmp_path / "cache")
    assert folder is not None
    model = LoadedModel(folder, torch.device("cpu"))
    ids = model.encode(MESSAGES)
    assert model.tokenizer.decode(ids) == "<|im_start|>HELLO<|im_end|><|im_start|>"
    spec = LocalSpec(engine="local", source=f"path:{bare}", chat_template=str(file))
    counted = TokenCounter(spec, tmp_path / "cache").count(MESSAGES)
    assert (counted.count, counted.exact) == (len(ids), True)
