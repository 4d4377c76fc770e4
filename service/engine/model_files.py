"""Folders of model files: what one must hold, its digests, its manifest, and the room that it takes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from service.engine.sources import Wheel
from service.errors import CannotRun

MANIFEST = "turnout-model.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_HEAD_LINES = 500
EXPANSION = 12  # bytes on disk for each of a 4-bit GGUF: itself, fp32 weights at eight times, and some room


def check_model_folder(folder: Path) -> Path:
    """`folder`, which can be loaded without running code of a stranger. Raises BadInput, with what is missing."""
    if folder.is_file():
        raise BadInput(f"{folder} is a file: name the folder that it lies in, {folder.parent}", param="source")
    if not folder.is_dir():
        raise BadInput(f"model folder {folder} does not exist", param="source")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        held = f"only {pickles[0]}, a pickle, which could run code" if pickles else "no weights"
        raise BadInput(f"model folder {folder} holds {held}: save it as safetensors", param="source")
    if not (folder / "config.json").is_file():
        raise BadInput(f"model folder {folder} holds no config.json: save it with save_pretrained", param="source")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise BadInput(
            f"model folder {folder} holds no tokenizer ({', '.join(TOKENIZERS)}): save it there with save_pretrained",
            param="source",
        )
    return folder


def write_manifest(made: Path, manifest: Mapping[str, Any]) -> None:
    """Without times or places of this machine, so that the same model has the same manifest everywhere."""
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    files = {str(path.relative_to(made)): f"sha256:{sha256_of(path)}" for path in paths}
    whole = {**manifest, "size_bytes": sum(path.stat().st_size for path in paths), "files": files}
    for path in paths:
        path.chmod(0o644)
    save_manifest(made, whole)
    made.chmod(0o755)


def save_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Written and on the disk before this returns."""
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """In hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(named: Mapping[str, str]) -> str:
    """One sha256 for all weights files, by their names: that of the file, or of the lines that `sha256sum` prints."""
    if len(named) == 1:
        return next(iter(named.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(named.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def need_room(place: Path, needed_bytes: int) -> None:
    """Raise CannotRun where the disk that `place` is on has less free."""
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise CannotRun(
            f"{place} has {free:,} bytes free, {needed_bytes:,} are needed: free some, or set TURNOUT_CACHE to"
            " a folder on another disk"
        )


def explain_no_room(place: Path, wheel: Wheel | None) -> str:
    """What to do about a disk that became full."""
    needed = f"{wheel.size_bytes * EXPANSION:,} bytes are needed" if wheel else "it is larger than what is free"
    return f"the disk of {place} is full: {needed}; free some, or set TURNOUT_CACHE to another disk"


def front_matter(card: Path, key: str) -> str | None:
    """The plain value that the head of a model card (README.md) gives `key`; None where it gives none."""
    try:
        lines = card.read_text("utf-8", "replace").splitlines()[:_HEAD_LINES]
    except OSError:
        return None
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return None
    head = lines[1 : lines.index("---", 1)]
    found = (line.partition(":")[2].strip().strip("\"'") for line in head if line.startswith(f"{key}:"))
    return next((value for value in found if value), None)
