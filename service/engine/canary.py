"""Whether an adapter that was loaded computes at all, and computes what it did where it was trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prompts.errors import BadInput
from service.engine.adapters import AdapterFiles
from service.engine.decoding import prefill, probes
from service.engine.model import LoadedModel

# Logits of the same weights on other hardware, or computed without a cache; those of other weights are off by more.
_CLOSE = {torch.float32: 1e-2, torch.bfloat16: 0.5}


def check_canary(model: LoadedModel, name: str, files: AdapterFiles) -> None:
    """Raises BadInput where the adapter changes nothing, or its logits are not those of its manifest."""
    canary = files.canary
    ids = np.asarray(canary.ids, dtype=np.int64) if canary else probes(model)[0]
    if not len(ids) or ids.min() < 0 or ids.max() >= model.vocabulary:
        raise BadInput(f"adapter {files.folder}: its canary holds ids that this model does not have", param="lora_path")
    with_it = prefill(model, name, [ids]).logits[0]
    without = prefill(model, None, [ids]).logits[0]
    if torch.equal(with_it, without):
        raise BadInput(
            f"adapter {files.folder} changes nothing: the logits of a fixed prompt are those of the base model;"
            " train it again (were its B matrices ever written?)",
            param="lora_path",
        )
    if canary:
        _compare(model, files, "the base model's", without, canary.base_logits)
        _compare(model, files, "its", with_it, canary.logits)


def _compare(model: LoadedModel, files: AdapterFiles, whose: str, found: Tensor, expected: Sequence[float]) -> None:
    wanted = torch.tensor(expected, device=found.device)
    off = float((found[: len(wanted)] - wanted).abs().max()) if len(wanted) else 0.0
    if not off <= _CLOSE[model.dtype]:
        raise BadInput(
            f"adapter {files.folder}: {whose} logits on the canary are off by {off:.3g}, allowed is"
            f" {_CLOSE[model.dtype]:.3g}: it belongs to another model or is damaged; train it on this model",
            param="lora_path",
        )
