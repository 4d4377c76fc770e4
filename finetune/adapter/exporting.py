"""What an export is asked for and what it says of itself; and the one form that needs no torch, PEFT's own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune import durable
from finetune.adapter.digests import TEMPLATE, TOKENIZER_FILES, chat_template
from finetune.adapter.folders import check_name
from finetune.adapter.manifest import CARD, CONFIG, WEIGHTS, Manifest
from prompts.errors import BadInput

EXPORT_MANIFEST = "turnout-export.json"  # written last; a folder that holds it is one that --force may replace
Format = Literal["peft", "merged", "gguf", "gguf-lora"]
OutType = Literal["auto", "f32", "f16", "bf16", "q8_0"]
OUT_TYPES: dict[Format, tuple[OutType, ...]] = {
    "peft": ("auto",),
    "merged": ("auto", "f32", "f16", "bf16"),
    "gguf": ("auto", "f32", "f16", "bf16", "q8_0"),
    "gguf-lora": ("auto", "f32", "f16"),
}


class ExportSpec(BaseModel):
    """One export, frozen: what its process reads.

    `out_type` auto is the base model's own type for merged weights, f16 for a GGUF and f32 for a LoRA's. `base_name` is what
    others know the base model by; `card` the text of its README.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter_folder: Path
    base_folder: Path
    target: Path
    format: Format
    out_type: OutType = "auto"
    base_name: str
    card: str
    force: bool = False


def write_export_spec(spec: ExportSpec, path: Path) -> None:
    """Raises DiskFullError."""
    durable.write_file(path, spec.model_dump_json(indent=1).encode())


def read_export_spec(path: Path) -> ExportSpec:
    """Raises BadInput."""
    try:
        return ExportSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"cannot use the export spec {path}: {error}") from error


def check_out_type(format_name: Format, out_type: OutType) -> None:
    """Raises BadInput where a format cannot be written in a type."""
    if out_type not in OUT_TYPES[format_name]:
        known = ", ".join(OUT_TYPES[format_name])
        raise BadInput(f"--outtype {out_type} is not one of --format {format_name}: {known}", param="outtype")


def check_target(target: Path, *, force: bool) -> None:
    """Raises BadInput where nothing may be written to `target`: it is there, and not an export that `force` may replace."""
    check_name(target.name)
    if not target.parent.is_dir():
        raise BadInput(f"{target.parent} is not a folder: make it first", param="to")
    if not target.is_symlink() and not target.exists():
        return
    if target.is_symlink() or not target.is_dir():
        raise BadInput(f"{target} is a link or a file: name a new folder", param="to")
    if force and (not any(target.iterdir()) or (target / EXPORT_MANIFEST).is_file()):
        return
    what = "is not an export of Turnout, which --force replaces" if force else "exists already"
    raise BadInput(f"{target} {what}: name a new folder" + ("" if force else ", or add --force"), param="to")


@contextlib.contextmanager
def new_folder(target: Path, *, force: bool, needed_bytes: int = 0) -> Iterator[Path]:
    """A folder to write in, which becomes `target` at the end: flushed and whole, or not at all.

    `needed_bytes` is what will be written, so that a disk without that much is told before anything is computed.
    Raises BadInput where `target` may not be written, DiskFullError, having left nothing.
    """
    check_target(target, force=force)
    draft = draft_of(target)
    durable.remove(draft)  # of an export that was killed
    if shutil.disk_usage(target.parent).free < needed_bytes:
        raise durable.DiskFullError(target.parent, needed_bytes)
    try:
        draft.mkdir()
        yield draft
        _flush(draft)
        check_target(target, force=force)  # it may have come meanwhile
        durable.remove(target)
        draft.replace(target)
        durable.flush_folder(target.parent)
    except OSError as error:
        needed_bytes = max(needed_bytes, durable.size_of(draft))
        durable.remove(draft)
        raise durable.explained(error, target.parent, needed_bytes) from error
    except BaseException:
        durable.remove(draft)
        raise


def draft_of(target: Path) -> Path:
    """Where an export is written before it is whole; what a killed one leaves there is of no use."""
    return target.with_name(f".{target.name}.draft")


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone
        with path.open("rb") as file:
            os.fsync(file.fileno())
    durable.flush_folder(folder)


def write_about(draft: Path, spec: ExportSpec, manifest: Manifest, out_type: str, **more: Any) -> dict[str, Any]:
    """Write what the exported folder says of itself, with the digest of every other file; gives it."""
    (draft / CARD).write_text(spec.card, "utf-8")
    about: dict[str, Any] = {
        "format": spec.format,
        "out_type": out_type,
        "adapter": {"name": manifest.name, "digest": manifest.digest},
        "base": {**manifest.base.model_dump(), "name": spec.base_name},
        **more,
        "files": {path.name: durable.sha256_of(path) for path in sorted(draft.iterdir())},
    }
    (draft / EXPORT_MANIFEST).write_bytes(durable.as_json(about))
    return about


def export_peft(spec: ExportSpec, manifest: Manifest) -> dict[str, Any]:
    """The adapter as peft and vLLM read it, with the tokenizer and the chat template of its base where these are here.

    `spec.base_folder` may hold neither. Raises BadInput, DiskFullError.
    """
    with new_folder(spec.target, force=spec.force) as draft:
        shutil.copyfile(spec.adapter_folder / WEIGHTS, draft / WEIGHTS)
        config = json.loads((spec.adapter_folder / CONFIG).read_bytes())
        (draft / CONFIG).write_bytes(durable.as_json(named_config(config, spec.base_name)))
        copy_tokenizer(spec.base_folder, draft)
        return write_about(draft, spec, manifest, "auto")


def named_config(config: Mapping[str, Any], base_name: str) -> dict[str, Any]:
    """PEFT's configuration with a base model that others can find."""
    return {**config, "base_model_name_or_path": base_name, "inference_mode": True}


def copy_tokenizer(base_folder: Path, draft: Path) -> None:
    """The base's tokenizer files and its chat template, those that there are."""
    for name in TOKENIZER_FILES:
        if (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, draft / name)
    if text := chat_template(base_folder):
        (draft / TEMPLATE).write_text(text, "utf-8")
