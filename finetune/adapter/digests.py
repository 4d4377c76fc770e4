"""What tells one base model from another: of its weights, its tokenizer and its chat template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune import durable
from finetune.adapter.manifest import MODEL_MANIFEST, Base, Manifest
from prompts.errors import BadInput

TEMPLATE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (  # whatever of these there is; a template of its own has a digest of its own
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    TOKENIZER_CONFIG,
)
_SAMPLES = 64
_SAMPLE_BYTES = 65_536
_NOT_THE_TOKENIZER = (
    "chat_template",
    "name_or_path",
    "transformers_version",
    "is_local",
    "local_files_only",
    "backend",
)


def describe_base(base_folder: Path) -> Base:
    """The base model of a folder with all its digests; source, revision and licence where its manifest has them."""
    about = _model_manifest(base_folder)
    told = {name: str(about.get(name) or "") for name in ("source", "revision", "licence")}
    if told["source"].startswith("path:"):
        told["source"] = ""  # a folder of somebody's machine
    return Base(
        name=base_folder.name,
        digest=base_digest(base_folder),
        tokenizer=tokenizer_digest(base_folder),
        chat_template=chat_template_digest(base_folder),
        **told,
    )


def check_base(manifest: Manifest, base_folder: Path) -> None:
    """Raises BadInput, with both digests, where an adapter was trained on other weights, tokenizer or chat template."""
    trained = manifest.base
    for what, wanted, digest_of in (
        ("weights", trained.digest, base_digest),
        ("tokenizer", trained.tokenizer, tokenizer_digest),
        ("chat template", trained.chat_template, chat_template_digest),
    ):
        found = digest_of(base_folder) if wanted else ""
        if found != wanted:
            raise BadInput(
                f"adapter {manifest.name!r} was trained on another base model: the {what} of {trained.name} had"
                f" {wanted}, those of {base_folder} have {found}; use it with that model, or train it on this one",
                param="base",
            )


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


def tokenizer_digest(base_folder: Path) -> str:
    """`sha256:…` of the tokenizer's files, without the chat template and what only says where they came from; "" for none."""
    total, found = hashlib.sha256(), False
    for name in TOKENIZER_FILES:
        path = base_folder / name
        if path.is_file():
            content = _settled(path) if name == TOKENIZER_CONFIG else path.read_bytes()
            total.update(f"{name}:{len(content)}:".encode() + content)
            found = True
    return "sha256:" + total.hexdigest() if found else ""


def chat_template_digest(base_folder: Path) -> str:
    """`sha256:…` of the chat template's text, wherever the folder keeps it; "" where it has none."""
    text = chat_template(base_folder)
    return durable.sha256_of_bytes(text.encode()) if text else ""


def chat_template(base_folder: Path) -> str:
    """The chat template's text: of `chat_template.jinja`, else of the tokenizer's configuration (the one called `default`)."""
    if (base_folder / TEMPLATE).is_file():
        return (base_folder / TEMPLATE).read_text("utf-8")
    found = _read(base_folder / TOKENIZER_CONFIG).get("chat_template") or ""
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == "default"), "")
    return str(found)


def code_version() -> str:
    """Turnout's version and twelve digits of a digest of the training code: the same for the same code."""
    total = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    try:
        known = version("turnout")
    except PackageNotFoundError:  # a checkout that nobody installed
        known = "0"
    return f"{known}+{total.hexdigest()[:12]}"


def _settled(path: Path) -> bytes:
    return durable.as_json({key: value for key, value in _read(path).items() if key not in _NOT_THE_TOKENIZER})


def _model_manifest(base_folder: Path) -> dict[str, Any]:
    return _read(base_folder / MODEL_MANIFEST)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of a file; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}", param="base") from error
    return found if isinstance(found, dict) else {}
