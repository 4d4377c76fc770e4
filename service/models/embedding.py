"""The optional seam beside `prompts.messages.Model`: models that place texts in a space where near means alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prompts.messages import Usage


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector a text, in the order of the texts, and the tokens that they took."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


@runtime_checkable
class Embedder(Protocol):
    """A model that can embed. Those that cannot have no such method."""

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """Embed all texts at once; raises what `Model.complete` raises."""
        ...
