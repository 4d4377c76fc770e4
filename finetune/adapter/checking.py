"""Whether an adapter folder is whole, as its manifest says, and safe to load."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune import durable
from finetune.adapter.manifest import CARD, CONFIG, MANIFEST, WEIGHTS, Manifest
from prompts.errors import BadInput, TurnoutError

_SUFFIXES = (".json", ".safetensors", ".md")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # protocols 2 to 5; torch's zip of one
_UNSAFE_KEYS = ("auto_mapping", "trust_remote_code", "modules_to_save")  # code, or weights beyond the LoRA
_HEADER_AT_MOST = 100_000_000  # bytes, the limit of the safetensors library


def verify(folder: Path) -> Manifest:
    """The manifest of an adapter folder that is whole, as its manifest says, and safe to load.

    Raises BadInput for a missing or extra file, a file of another kind than JSON, safetensors or Markdown, a wrong
    digest, a pickle, a link, or a configuration that names code or weights beyond the LoRA. The card, which nothing loads
    and which is written anew when more is known, needs no digest.
    """
    names = _plain_files(folder)
    manifest = _read_manifest(folder)
    listed = manifest.files.keys() | {MANIFEST}
    for name in sorted({CONFIG, WEIGHTS} - manifest.files.keys()):
        _refuse(folder, f"{MANIFEST} does not list {name}")
    for name in sorted(listed - names - {CARD}):
        _refuse(folder, f"{name} is missing")
    for name in sorted(names - listed - {CARD}):
        _refuse(folder, f"{name} is not listed in {MANIFEST}")
    for name, digest in sorted(manifest.files.items()):
        if name != CARD:
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
    """The header of a safetensors file: dtype, shape and offsets by tensor name. Raises BadInput, also where it is cut short."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _HEADER_AT_MOST else None
            if not isinstance(header, dict):
                raise BadInput(f"{path} is not a safetensors file", param="adapter")
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            whole = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
            size = file.seek(0, 2)
    except (OSError, struct.error, ValueError, RecursionError, KeyError, TypeError, IndexError) as error:
        raise BadInput(f"{path} is not a safetensors file: {error}", param="adapter") from error
    if size < whole:
        raise BadInput(f"{path} is cut short: it has {size:,} of {whole:,} bytes; get it anew", param="adapter")
    return tensors


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


def named_in(folder: Path) -> tuple[str, str] | None:
    """The name and digest that a folder's manifest gives, unchecked: also of one that another process deletes. Else None."""
    try:
        manifest = _read_manifest(folder)
    except BadInput:
        return None
    return manifest.name, manifest.digest
