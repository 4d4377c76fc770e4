"""Adapter folders: written complete or not at all, installed under their names, with a card that may change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune import durable
from finetune.adapter.checking import verify
from finetune.adapter.manifest import CARD, CONFIG, MANIFEST, WEIGHTS, Manifest
from prompts.errors import BadInput


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
    check_name(name)
    manifest = verify(source_folder)
    target = adapters_dir / name
    if durable.read_manifest(target, MANIFEST) is not None:
        _same_or_refuse(verify(target), manifest, target)
        return target
    adapters_dir.mkdir(parents=True, exist_ok=True)
    files = {file: (source_folder / file).read_bytes() for file in manifest.files if file != CARD}
    durable.write_folder(target, files, MANIFEST, manifest.model_dump(mode="json", exclude={"files"}))
    _same_or_refuse(verify(target), manifest, target)  # the source may have changed while it was read
    return target


def _same_or_refuse(installed: Manifest, wanted: Manifest, target: Path) -> None:
    if _but_the_card(installed) != _but_the_card(wanted):
        raise BadInput(f"{target} holds another adapter ({installed.digest}, not {wanted.digest}): choose another name")


def _but_the_card(manifest: Manifest) -> dict[str, str]:
    return {file: digest for file, digest in manifest.files.items() if file != CARD}


def check_name(name: str) -> str:
    """`name` where it is a plain folder name. Raises BadInput."""
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name or "\0" in name:
        raise BadInput(f"{name!r} cannot name an adapter: use letters, digits, dots and dashes", param="name")
    return name


def write_card(folder: Path, text: str) -> None:
    """Put `text` in place of an installed adapter's card. Raises DiskFullError."""
    draft = folder.with_name(f".{folder.name}.card")  # beside it: whoever loads the folder now knows all files in it
    durable.write_file(draft, text.encode())
    draft.replace(folder / CARD)


def size_bytes(folder: Path) -> int:
    """What the files of an adapter's folder take; 0 where it is not there."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0


def remove(folder: Path) -> None:
    """Delete an adapter's folder, which may not be there; under its own name it is gone at once."""
    durable.remove(folder)
