from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from service.engine import decoding, tolerances  # noqa: E402
from service.engine.adapters import AdapterFiles  # noqa: E402
from service.engine.tolerances import Noises  # noqa: E402

pytestmark = pytest.mark.integration  # imports torch


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The adapters that were measured; each time another difference is found."""
    asked: list[str | None] = []

    def measure(_: Any, adapter: str | None) -> float:
        asked.append(adapter)
        return float(len(asked))

    monkeypatch.setattr(decoding, "measure_noise", measure)
    return asked


@pytest.fixture
def model(tmp_path: Path) -> Any:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    return SimpleNamespace(folder=tmp_path / "model", forward=SimpleNamespace(kind="own"), **place)


def files(folder: Path, weights: bytes) -> AdapterFiles:
    (folder / "weights").write_bytes(weights)
    return AdapterFiles(folder, folder / "weights", 4, 8.0, False, ("q_proj",), None)


def test_the_next_start_finds_what_was_measured(model: Any, measured: list[str | None], tmp_path: Path) -> None:
    kept = tmp_path / "tolerances.json"
    lora = files(tmp_path, b"one")
    assert [Noises(model, kept).of(None, None), Noises(model, kept).of("a", lora)] == [1.0, 2.0]
    assert [Noises(model, kept).of(None, None), Noises(model, kept).of("another name", lora)] == [1.0, 2.0]
    assert measured == [None, "a"]


def test_other_weights_code_or_adapters_are_measured_anew(
    model: Any, measured: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "tolerances.json"
    lora = files(tmp_path, b"one")
    Noises(model, kept).of("a", lora)
    assert Noises(model, kept).of("a", replace(lora, alpha=16.0)) == 2.0
    assert Noises(model, kept).of("a", files(tmp_path, b"two")) == 3.0
    model.dtype = torch.bfloat16
    assert Noises(model, kept).of("a", lora) == 4.0
    (model.folder / "config.json").write_text('{"other": 1}')
    assert Noises(model, kept).of("a", lora) == 5.0
    model.forward.kind = "own, packed"
    assert Noises(model, kept).of("a", lora) == 6.0
    monkeypatch.setattr(tolerances, "_code_digest", lambda: "changed")
    assert Noises(model, kept).of("a", lora) == 7.0
    monkeypatch.setattr(tolerances, "version", lambda name: "99" if name == "transformers" else "1")
    assert Noises(model, kept).of("a", lora) == 8.0


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"KEY": NaN}', '{"KEY": -1.0}', '{"KEY": "0"}'])
def test_a_damaged_file_is_measured_over(damage: str, model: Any, measured: list[str | None], tmp_path: Path) -> None:
    kept = tmp_path / "tolerances.json"
    Noises(model, kept).of(None, None)
    (key,) = json.loads(kept.read_text())
    kept.write_text(damage.replace("KEY", key))
    assert Noises(model, kept).of(None, None) == 2.0
    assert json.loads(kept.read_text())[key] == 2.0


def test_what_cannot_be_kept_is_measured_each_time(model: Any, measured: list[str | None], tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "tolerances.json"
    assert [Noises(model, path).of(None, None) for path in (nowhere, nowhere, None)] == [1.0, 2.0, 3.0]
