"""What is known of a model that lies on this machine, from its files alone. No torch here, and nothing is loaded."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.adapter import base_digest, tensor_header
from finetune.plan.reach import context_tokens, text_config, window_tokens
from prompts.errors import BadInput
from service.engine.model_files import MANIFEST, front_matter


@dataclass(frozen=True, slots=True)
class About:
    """A model's size on the disk, what it is, and where it may be used.

    `digest` is of its `weights` files as they came (of the GGUF, where it was converted from one), or of `samples` of them
    for a folder of one's own. `licence` is None where nothing names one.
    """

    size_bytes: int
    licence: str | None
    digest: str
    digest_of: Literal["weights", "samples"]
    family: str
    parameters: int
    dtype: str
    context_tokens: int
    window_tokens: int | None


def about(folder: Path) -> About:
    """Raises BadInput where a file of weights or the configuration is damaged, OSError where one cannot be read."""
    config = _json_of(folder / "config.json")
    if not config:
        raise BadInput(f"{folder / 'config.json'} is no JSON object: save it with save_pretrained", param="source")
    manifest = _json_of(folder / MANIFEST)
    count, dtype = _weights(folder)
    digest = manifest.get("sha256")
    return About(
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        licence=manifest.get("licence") or _licence(folder / "README.md"),
        digest=f"sha256:{digest}" if digest else base_digest(folder),
        digest_of="weights" if digest else "samples",
        family=str(text_config(config).get("model_type") or config.get("model_type") or "unknown"),
        parameters=count,
        dtype=dtype,
        context_tokens=context_tokens(config),
        window_tokens=window_tokens(config),
    )


def _weights(folder: Path) -> tuple[int, str]:
    """How many numbers the weights are, and of which type the most."""
    by_type: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        for entry in tensor_header(path).values():
            by_type[str(entry["dtype"])] += math.prod(entry["shape"])
    return by_type.total(), by_type.most_common(1)[0][0].lower() if by_type else ""


def _licence(card: Path) -> str | None:
    named = front_matter(card, "license")
    return (front_matter(card, "license_name") or named) if named == "other" else named


def _json_of(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
