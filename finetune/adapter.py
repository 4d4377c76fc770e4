"""Adapter folders: what a training job gives, and what may be loaded.

```
adapter_config.json          PEFT's, as peft and vLLM read it
adapter_model.safetensors    the weights, under PEFT's names
README.md                    optional
turnout-adapter.json         the manifest, written last: digests, base, lineage, recipe, scores, canary
```
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune import durable
from prompts.errors import BadInput, TurnoutError

MANIFEST = "turnout-adapter.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MODEL_MANIFEST = "turnout-model.json"  # beside converted weights, names their source and digests

_SUFFIXES = (".json", ".safetensors", ".md")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # protocols 2 to 5; torch's zip of one
_UNSAFE_KEYS = ("auto_mapping", "trust_remote_code", "modules_to_save")  # code, or weights beyond the LoRA
_HEADER_AT_MOST = 100_000_000  # bytes, the limit of the safetensors library
_SAMPLES = 64
_SAMPLE_BYTES = 65_536


class Base(BaseModel):
    """The model that an adapter was trained on: its folder's name and `base_digest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str


class Canary(BaseModel):
    """What the model answers to a fixed prompt: shows after a load that the adapter works, and is this one.

    `ids` are the prompt's token ids; `logits` and `base_logits` the first 16 of the last position's, with the adapter
    and without. `precision` is that of the weights that gave them; where it is less than float32, `rounding` says how far
    the logits are from those of the same weights computed in float32 (the most of any; None where that was not measured).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[int, ...]
    logits: tuple[float, ...]
    base_logits: tuple[float, ...]
    precision: Literal["float32", "bfloat16"] = "float32"
    rounding: float | None = Field(None, ge=0)


class Manifest(BaseModel):
    """An adapter's name, the digests of its files, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base: Base
    created_at: str = ""
    lineage: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    canary: Canary | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:…` of the weights: what tells one adapter from another."""
        return self.files.get(WEIGHTS, "")


# ------------------------------------------------------------------------------------------------ writing


def write(folder: Path, weights: bytes, config: Mapping[str, Any], manifest: Manifest) -> Manifest:
    """Write a complete adapter folder, the manifest last; gives the manifest with its digests.

    `weights` is a safetensors file under PEFT's names, `config` PEFT's. Raises DiskFullError, having left nothing.
    """
    files = {CONFIG: durable.as_json(config), WEIGHTS: weights}
    durable.write_folder(folder, files, MANIFEST, manifest.model_dump(mode="json", exclude={"files"}))
    return verify(folder)


def install(source_folder: Path, adapters_dir: Path, name: str) -> Path:
    """Copy a verified adapter to `adapters_dir/name`, complete or not at all; gives that folder.

    Done before with the same digests, it does nothing. Raises BadInput for a bad adapter, a name that is not a plain
    folder name, or another adapter of that name; DiskFullError.
    """
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
        raise BadInput(f"{name!r} cannot name an adapter: use letters, digits, dots and dashes", param="name")
    manifest = verify(source_folder)
    target = adapters_dir / name
    if durable.read_manifest(target, MANIFEST) is not None:
        _same_or_refuse(verify(target), manifest, target)
        return target
    adapters_dir.mkdir(parents=True, exist_ok=True)
    files = {file: (source_folder / file).read_bytes() for file in manifest.files}
    durable.write_folder(target, files, MANIFEST, manifest.model_dump(mode="json", exclude={"files"}))
    _same_or_refuse(verify(target), manifest, target)  # the source may have changed while it was read
    return target


def _same_or_refuse(installed: Manifest, wanted: Manifest, target: Path) -> None:
    if installed.files != wanted.files:
        raise BadInput(f"{target} holds another adapter ({installed.digest}, not {wanted.digest}): choose another name")


def base_digest(base_folder: Path) -> str:
    """`sha256:…` that tells one base model from another.

    Of the folder's `turnout-model.json` where there is one; else of its config, its weights' index, and the length,
    the header and evenly spaced samples of each weights file: 16 GB are told apart in a moment.
    """
    if (base_folder / MODEL_MANIFEST).is_file():
        return durable.sha256_of(base_folder / MODEL_MANIFEST)
    total = hashlib.sha256()
    for name in ("config.json", "model.safetensors.index.json"):
        if (base_folder / name).is_file():
            total.update((base_folder / name).read_bytes())
    for path in sorted(base_folder.glob("*.safetensors")):
        total.update(f"{path.name}:{path.stat().st_size}".encode())
        for piece in _samples(path):
            total.update(piece)
    return "sha256:" + total.hexdigest()


def _samples(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for at in range(_SAMPLES):
            file.seek(at * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)


# ------------------------------------------------------------------------------------------------ checking


def verify(folder: Path) -> Manifest:
    """The manifest of an adapter folder that is whole, as its manifest says, and safe to load.

    Raises BadInput for a missing or extra file, a file of another kind than JSON, safetensors or Markdown, a wrong
    digest, a pickle, a link, or a configuration that names code or weights beyond the LoRA.
    """
    names = _plain_files(folder)
    manifest = _read_manifest(folder)
    listed = manifest.files.keys() | {MANIFEST}
    for name in sorted({CONFIG, WEIGHTS} - manifest.files.keys()):
        _refuse(folder, f"{MANIFEST} does not list {name}")
    for name in sorted(listed - names):
        _refuse(folder, f"{name} is missing")
    for name in sorted(names - listed):
        _refuse(folder, f"{name} is not listed in {MANIFEST}")
    for name, digest in sorted(manifest.files.items()):
        _check_content(folder, name, digest)
    _check_config(folder)
    return manifest


def _refuse(folder: Path, why: str) -> None:
    raise BadInput(f"adapter {folder}: {why}; install it again from its job", param="adapter")


def _plain_files(folder: Path) -> set[str]:
    if folder.is_symlink() or not folder.is_dir():
        _refuse(folder, "not a folder")
    names = set()
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            _refuse(folder, f"{path.name} is a link or a folder, not a file")
        if path.suffix not in _SUFFIXES:
            _refuse(folder, f"{path.name} is of a kind that adapters do not hold (only {', '.join(_SUFFIXES)})")
        names.add(path.name)
    return names


def _read_manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise BadInput(f"adapter {folder}: no {MANIFEST}, so it is not complete", param="adapter") from error
    except ValidationError as error:
        raise BadInput(f"adapter {folder}: bad {MANIFEST}: {error}", param="adapter") from error


def _check_content(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_PICKLES):
        _refuse(folder, f"{name} is a pickle, which could run code")
    if path.suffix == ".safetensors":
        tensor_header(path)
    if durable.sha256_of(path) != digest:
        _refuse(folder, f"{name} is not what {MANIFEST} says ({durable.sha256_of(path)}, not {digest})")


def tensor_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: dtype, shape and offsets by tensor name. Raises BadInput."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _HEADER_AT_MOST else None
    except (OSError, struct.error, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not a safetensors file: {error}", param="adapter") from error
    if not isinstance(header, dict):
        raise BadInput(f"{path} is not a safetensors file", param="adapter")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _check_config(folder: Path) -> None:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"adapter {folder}: {CONFIG} is not JSON: {error}", param="adapter") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        _refuse(folder, f"{CONFIG} does not describe a LoRA")
    for key, value in _entries(config):
        if key in _UNSAFE_KEYS and value not in (None, False):
            _refuse(folder, f"{CONFIG} sets {key}, which no adapter may")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _entries(inner)


def is_complete(folder: Path) -> bool:
    """Whether `verify` would pass."""
    try:
        verify(folder)
    except (TurnoutError, OSError):
        return False
    return True
