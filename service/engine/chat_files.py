"""A model with another chat template: a folder of links to its files, and the template in place of its own.

So whatever reads a model's folder (the engine, training, counts of tokens) reads the same template, and an adapter that was
trained with one is refused where another is served: the folders' digests differ.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from finetune.adapter import base_digest
from prompts.errors import BadInput
from service.engine.model_files import MANIFEST, save_manifest

TEMPLATE = "chat_template.jinja"
MARK = "-chat-"
_KEY_DIGITS = 12
_MOST_CHARACTERS = 1 << 20


def with_template(folder: Path, template: Path, models: Path) -> Path:
    """The model in `folder` with the chat template of the file `template`, below `models`; made where it is not there.

    Raises BadInput where the file cannot be read, OSError where nothing can be written.
    """
    text, base = _read(template), base_digest(folder)
    made = _place(folder, text, base, models)
    if not (made / MANIFEST).is_file():
        _make(folder, text, base, made)
    return made


def place_of(folder: Path, template: Path, models: Path) -> Path:
    """Where `with_template` has that model, or would have it. Raises BadInput where the file cannot be read."""
    return _place(folder, _read(template), base_digest(folder), models)


def is_name(name: str) -> bool:
    """Whether a folder of the cache may be one that `with_template` made, by its name."""
    return re.fullmatch(rf".+{MARK}[0-9a-f]{{{_KEY_DIGITS}}}", name) is not None


def _place(folder: Path, text: str, base: str, models: Path) -> Path:
    key = hashlib.sha256(f"{base}\0{text}".encode()).hexdigest()[:_KEY_DIGITS]
    name = folder.name if folder.parent == models else f"own-{folder.name}"
    return models / f"{name}{MARK}{key}"


def _read(template: Path) -> str:
    try:
        text = template.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"chat_template {template} cannot be read: {error}", param="chat_template") from error
    if not 0 < len(text) <= _MOST_CHARACTERS:
        raise BadInput(
            f"chat_template {template} has {len(text):,} characters: 1 to {_MOST_CHARACTERS:,} are taken",
            param="chat_template",
        )
    return text


def _make(folder: Path, text: str, base: str, made: Path) -> None:
    made.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=made.parent, prefix=f"{made.name}.part-"))
    try:
        for path in folder.iterdir():
            if path.is_file() and path.name not in (TEMPLATE, MANIFEST):
                (work / path.name).symlink_to(path.absolute())
        (work / TEMPLATE).write_text(text, encoding="utf-8")
        save_manifest(work, _manifest(folder, text, base))
        work.chmod(0o755)
        if made.is_dir():
            shutil.rmtree(made)
        work.rename(made)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        if not (made / MANIFEST).is_file():  # another process was first
            raise


def _manifest(folder: Path, text: str, base: str) -> dict[str, Any]:
    held = folder / MANIFEST
    known = json.loads(held.read_text("utf-8")) if held.is_file() else {}
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {**known, "base": base, "files": {**known.get("files", {}), TEMPLATE: f"sha256:{digest}"}}
