"""Sliding windows over rows with padding: counted by position, where transformers counts columns.

A batch's columns are a shared prefix, padding, and each row's own tokens (see `decoding`). Two tokens of a row are
farther apart in columns than in positions, so a window over columns would hide what the row sees when it is alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.plan.reach import window_tokens
from service.errors import CannotRun

_KNOWN = ("full_attention", "sliding_attention")
_COMPUTED_BY_POSITION = frozenset({"gemma2", "gemma3_text", "mistral", "phi3", "qwen2", "qwen3"})


@dataclass(frozen=True, slots=True)
class Windows:
    """How the layers of a model attend.

    `window` is how many tokens a layer sees, itself included, or None where all layers see everything; `kinds` are
    the kinds of its layers where they differ, and `additive` says that its attention adds masks to its scores.
    """

    window: int | None = None
    kinds: tuple[str, ...] = ()
    additive: bool = False

    @classmethod
    def of(cls, config: Any, name: str) -> Windows:
        """Of a model's configuration. Raises CannotRun, naming the model, where it attends in another way."""
        if any(hasattr(config, f"{sense}_config") for sense in ("vision", "audio")):
            raise CannotRun(
                f"the model in {name} reads images or sounds, too, which the embedded engine does not do: take the family's"
                " model for text alone, or serve it with vLLM and name its base_url in turnout.yaml"
            )
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        window = window_tokens(config.to_dict())
        strange = sorted(kinds - set(_KNOWN)) + ["both directions"] * bool(
            getattr(config, "use_bidirectional_attention", False)
        )
        if window and config.model_type not in _COMPUTED_BY_POSITION:
            strange.append(f"a sliding window of the family {config.model_type}")
        if strange:
            raise CannotRun(
                f"the model in {name} attends by {', '.join(strange)}, which the embedded engine does not do: serve it"
                " with vLLM and name its base_url in turnout.yaml"
            )
        apart = tuple(sorted(kinds)) if getattr(config, "layer_types", None) else ()
        return cls(window, apart, additive=config._attn_implementation == "eager")

    def mask(self, real: Tensor, new: int, dtype: torch.dtype) -> Tensor | Mapping[str, Tensor]:
        """What transformers is to be given for `real` [rows, columns], False at padding, of which `new` are asked.

        `real` itself while no window can be passed; else a mask [rows, 1, new, columns], one for each kind of layer
        where a model has several.
        """
        if self.window is None or real.shape[1] <= self.window:
            return real
        apart = _apart(real, new)
        columns = torch.arange(real.shape[1], device=real.device)
        itself = columns[None, :] == columns[-new:, None]  # for padding, too: what sees nothing becomes NaN
        seen = ((apart >= 0) & real[:, None, :]) | itself
        whole = {
            "full_attention": self._given(seen, dtype),
            "sliding_attention": self._given(seen & (apart < self.window), dtype),
        }
        return {kind: whole[kind] for kind in self.kinds} if self.kinds else whole["sliding_attention"]

    def _given(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        if not self.additive:
            return seen[:, None]
        return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _apart(real: Tensor, new: int) -> Tensor:
    """By how many positions each of the `new` last columns is behind every column: [rows, new, columns]."""
    positions = real.long().cumsum(1) - 1
    return positions[:, -new:, None] - positions[:, None, :]
