from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from finetune import adapter, durable
from prompts.errors import BadInput

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
MANIFEST = adapter.Manifest(
    name="triage",
    base=adapter.Base(name="tiny", digest="sha256:0"),
    created_at="2025-01-01T00:00:00Z",
    scores={"dev_exact": 1.0},
    canary=adapter.Canary(ids=(1, 2), logits=(0.5,), base_logits=(0.25,)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adapter.write(tmp_path / "adapter", WEIGHTS, CONFIG, MANIFEST)
    return tmp_path / "adapter"


def relist(folder: Path) -> None:
    """Make the manifest agree with whatever the folder holds now, as an attacker would."""
    manifest = json.loads((folder / adapter.MANIFEST).read_text())
    files = [path for path in folder.iterdir() if path.name != adapter.MANIFEST]
    manifest["files"] = {path.name: durable.sha256_of(path) for path in files}
    (folder / adapter.MANIFEST).write_text(json.dumps(manifest))


def test_a_written_adapter_verifies(folder: Path):
    manifest = adapter.verify(folder)
    assert manifest.name == "triage"
    assert manifest.canary == MANIFEST.canary
    assert manifest.digest == durable.sha256_of_bytes(WEIGHTS)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "turnout-adapter.json",
    ]


def test_a_changed_byte_is_refused(folder: Path):
    (folder / adapter.WEIGHTS).write_bytes(WEIGHTS[:-1] + b"\1")
    with pytest.raises(BadInput, match=r"adapter_model.safetensors is not what turnout-adapter.json says"):
        adapter.verify(folder)


def test_a_missing_or_extra_file_is_refused(folder: Path):
    (folder / "notes.md").write_text("hello")
    with pytest.raises(BadInput, match=r"notes.md is not listed"):
        adapter.verify(folder)
    (folder / "notes.md").unlink()
    (folder / adapter.WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"adapter_model.safetensors is missing"):
        adapter.verify(folder)


def test_a_folder_that_another_process_deletes_is_still_known_by_its_manifest(folder: Path):
    (folder / adapter.WEIGHTS).unlink()
    assert adapter.named_in(folder) == ("triage", durable.sha256_of_bytes(WEIGHTS))
    (folder / adapter.MANIFEST).unlink()
    assert adapter.named_in(folder) is None
    assert adapter.named_in(folder.with_name("gone")) is None


def test_a_card_may_be_written_anew(folder: Path, tmp_path: Path):
    adapter.write_card(folder, "# first\n")
    adapter.write_card(folder, "# second\n")
    assert adapter.verify(folder).name == "triage"
    assert (folder / "README.md").read_text() == "# second\n"
    installed = adapter.install(folder, tmp_path / "shelf", "triage")
    assert adapter.install(folder, tmp_path / "shelf", "triage") == installed
    assert not (installed / "README.md").exists()  # it says what was known elsewhere
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "shelf"]


def test_a_folder_without_manifest_is_not_complete(folder: Path):
    (folder / adapter.MANIFEST).unlink()
    with pytest.raises(BadInput, match="not complete"):
        adapter.verify(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "weights.pt", "run.py"])
def test_other_kinds_of_files_are_refused(folder: Path, name: str):
    (folder / name).write_bytes(b"x")
    relist(folder)
    with pytest.raises(BadInput, match="of a kind"):
        adapter.verify(folder)


@pytest.mark.parametrize("magic", [b"\x80\x02}q\x00.", b"\x80\x04\x95", b"PK\x03\x04data.pkl"])
def test_a_pickle_under_another_name_is_refused(folder: Path, magic: bytes):
    (folder / adapter.WEIGHTS).write_bytes(magic)
    relist(folder)
    with pytest.raises(BadInput, match="pickle"):
        adapter.verify(folder)


def test_weights_that_are_not_safetensors_are_refused(folder: Path):
    (folder / adapter.WEIGHTS).write_bytes(b"\xff" * 64)
    relist(folder)
    with pytest.raises(BadInput, match="not a safetensors file"):
        adapter.verify(folder)


def test_a_link_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere.md").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "elsewhere.md")
    relist(folder)
    with pytest.raises(BadInput, match="link"):
        adapter.verify(folder)


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_mapping": {"parent_library": "evil"}},
        {"modules_to_save": ["lm_head"]},
        {"runtime_config": {"trust_remote_code": True}},
        {"peft_type": "PREFIX_TUNING"},
    ],
)
def test_a_configuration_that_names_code_or_more_than_a_lora_is_refused(folder: Path, extra: dict[str, object]):
    (folder / adapter.CONFIG).write_text(json.dumps({**CONFIG, **extra}))
    relist(folder)
    with pytest.raises(BadInput):
        adapter.verify(folder)


def test_installing_twice_is_once(folder: Path, tmp_path: Path):
    first = adapter.install(folder, tmp_path / "adapters", "triage-1")
    assert adapter.install(folder, tmp_path / "adapters", "triage-1") == first
    assert adapter.verify(first) == adapter.verify(folder)
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["triage-1"]


def test_another_adapter_under_an_installed_name_is_refused(folder: Path, tmp_path: Path):
    adapter.install(folder, tmp_path / "adapters", "triage-1")
    adapter.write(tmp_path / "other", WEIGHTS[:-1] + b"\1", CONFIG, MANIFEST)
    with pytest.raises(BadInput, match="holds another adapter"):
        adapter.install(tmp_path / "other", tmp_path / "adapters", "triage-1")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a\\b"])
def test_a_name_that_is_not_a_plain_folder_name_is_refused(folder: Path, tmp_path: Path, name: str):
    with pytest.raises(BadInput, match="cannot name an adapter"):
        adapter.install(folder, tmp_path / "adapters", name)


def test_a_half_installed_adapter_is_installed_anew(folder: Path, tmp_path: Path):
    target = adapter.install(folder, tmp_path / "adapters", "triage-1")
    (target / adapter.WEIGHTS).write_bytes(b"half")
    adapter.verify(adapter.install(folder, tmp_path / "adapters", "triage-1"))


def test_base_models_are_told_apart(tmp_path: Path):
    for name, last in (("one", b"\0"), ("other", b"\1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(WEIGHTS[:-1] + last)
    assert adapter.base_digest(tmp_path / "one") != adapter.base_digest(tmp_path / "other")
    (tmp_path / "one" / "turnout-model.json").write_text('{"source": "hub"}')
    assert adapter.base_digest(tmp_path / "one") == durable.sha256_of(tmp_path / "one" / "turnout-model.json")


def test_a_full_disk_leaves_nothing_and_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(durable.DiskFullError) as caught:
        adapter.write(tmp_path / "adapter", WEIGHTS, CONFIG, MANIFEST)
    assert caught.value.bytes_needed > len(WEIGHTS)
    assert list(tmp_path.iterdir()) == []
