"""What an adapter folder says of itself: `turnout-adapter.json`, written last."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST = "turnout-adapter.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
MODEL_MANIFEST = "turnout-model.json"  # beside converted weights, names their source and digests


class Base(BaseModel):
    """The model that an adapter was trained on: its folder's name and its digests (`finetune.adapter.digests`).

    `tokenizer` and `chat_template` are empty where an earlier version wrote the manifest; `source`, `revision` and
    `licence` where the model's folder does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    tokenizer: str = ""
    chat_template: str = ""
    source: str = ""
    revision: str = ""
    licence: str = ""


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
    code_version: str = ""
    canary: Canary | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """`sha256:…` of the weights: what tells one adapter from another."""
        return self.files.get(WEIGHTS, "")
