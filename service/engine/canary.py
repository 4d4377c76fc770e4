"""Whether what was loaded computes at all, and an adapter what it did where it was trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finetune.adapter import Canary
from prompts.errors import BadInput, TurnoutError
from service.engine.adapters import AdapterFiles
from service.engine.decoding import prefill, probes
from service.engine.model import LoadedModel
from service.errors import CannotRun

# Logits of the same weights on other hardware, or computed without a cache; those of other weights are off by more.
_CLOSE = {torch.float32: 1e-2, torch.bfloat16: 0.5}
_ROUNDINGS = 4.0  # times what the trainer measured: an engine rounds the same sums in another order


def check_base(model: LoadedModel) -> None:
    """Raises CannotRun where the base model's logits say nothing: at each start, for a kept tolerance does not tell."""
    if _say_nothing(prefill(model, None, probes(model)[:1]).logits):
        raise not_finite(model, None)


def _say_nothing(logits: Tensor) -> bool:
    """NaN or infinite, or all the same: the latter of sums that overflowed before a norm."""
    return not logits.isfinite().all() or bool(logits.min() == logits.max())


def not_finite(model: LoadedModel, files: AdapterFiles | None) -> TurnoutError:
    """What to raise where logits say nothing: with the adapter of `files`, or of the base model."""
    dtype = str(model.dtype).rpartition(".")[2]
    why = f"its logits are not finite or all the same: its weights are damaged, or too large for {dtype}"
    if files is None:
        return CannotRun(f"the model in {model.folder} cannot be served: {why}; get it anew")
    return BadInput(f"adapter {files.folder}: {why}; train it again", param="lora_path")


def check_canary(model: LoadedModel, name: str, files: AdapterFiles) -> None:
    """Raises BadInput where the adapter gives no numbers, changes nothing, or its logits are not those of its manifest."""
    canary = files.canary
    ids = np.asarray(canary.ids, dtype=np.int64) if canary else probes(model)[0]
    if not len(ids) or ids.min() < 0 or ids.max() >= model.vocabulary:
        raise BadInput(f"adapter {files.folder}: its canary holds ids that this model does not have", param="lora_path")
    with_it = prefill(model, name, [ids]).logits[0]
    if _say_nothing(with_it):
        raise not_finite(model, files)
    without = prefill(model, None, [ids]).logits[0]
    if torch.equal(with_it, without):
        raise BadInput(
            f"adapter {files.folder} changes nothing: the logits of a fixed prompt are those of the base model;"
            " train it again (were its B matrices ever written?)",
            param="lora_path",
        )
    if canary:
        allowed = tolerance(canary, model.dtype)
        _compare(files, "the base model's", without, canary.base_logits, allowed)
        _compare(files, "its", with_it, canary.logits, allowed)


def tolerance(canary: Canary, dtype: torch.dtype) -> float:
    """How far a logit may be from the manifest's on an engine of this `dtype`: as the coarser of trainer and engine rounds.

    For bf16 on either side it follows from what the trainer measured, where it did.
    """
    if torch.bfloat16 not in (dtype, getattr(torch, canary.precision)):
        return _CLOSE[torch.float32]
    if canary.rounding is None:
        return _CLOSE[torch.bfloat16]
    return max(_CLOSE[torch.float32], _ROUNDINGS * canary.rounding)


def _compare(files: AdapterFiles, whose: str, found: Tensor, expected: Sequence[float], allowed: float) -> None:
    wanted = torch.tensor(expected, device=found.device)
    off = float((found[: len(wanted)] - wanted).abs().max()) if len(wanted) else 0.0
    if not off <= allowed:
        raise BadInput(
            f"adapter {files.folder}: {whose} logits on the canary are off by {off:.3g}, allowed is"
            f" {allowed:.3g}: it belongs to another model or is damaged; train it on this model",
            param="lora_path",
        )
