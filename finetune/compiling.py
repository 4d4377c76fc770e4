"""Compiled decoder layers (torch.compile): whether they pay, and how they are made.

Never on a CPU: there the first step of SmolLM2-135M took 204 s. On a GPU small models are bound by the launches of their
kernels, which compiling fuses; whether that repays the seconds of compiling depends on how many steps follow.
"""

from __future__ import annotations

from typing import Any

import torch

from finetune.plan import Measured

_COULD_SAVE = 0.5  # of a step, at best
_COMPILING_S = 30.0  # what compiling takes at least, about: it is not tried where the whole run could not save as much
_LIMIT_S = 240.0


def is_possible(found: Measured) -> bool:
    """Whether compiled layers are thought of at all for the device that `found` is of."""
    return found.fits and found.device.startswith("cuda")


def not_worth_trying(found: Measured, steps: int) -> str:
    """Why compiled layers are not even tried for `steps` steps like those of `found`; empty where they are."""
    could_save_s = _COULD_SAVE * steps * found.step_s
    least_s = _COMPILING_S + found.load_s
    if could_save_s >= least_s:
        return ""
    return (
        f"layers are not compiled: {steps} steps of {found.step_s:.3f} s could save {could_save_s:.0f} s at best, and "
        f"trying takes {least_s:.0f} s at least"
    )


def limit_s(found: Measured, steps: int) -> float:
    """The seconds that a trial with compiled layers may take: no more than it could save, and some minutes at most."""
    return min(_LIMIT_S, found.load_s + _COULD_SAVE * steps * found.step_s)


def better_of(found: Measured, compiled: Measured | None, steps: int, ended: str) -> Measured:
    """The faster way for a run of `steps`, with the figures of both in its decisions.

    `compiled` is None where its trial `ended` without a result.
    """
    if compiled is None or not compiled.fits:
        why = f"layers are not compiled: the trial with compiled ones gave nothing, {ended or 'it does not fit'}"
        return found.model_copy(update={"decisions": (*found.decisions, why)})
    saved_s = steps * (found.step_s - compiled.step_s) - compiled.compile_s
    figures = (
        f"a step takes {compiled.step_s:.3f} s compiled and {found.step_s:.3f} s as it is, compiling "
        f"{compiled.compile_s:.0f} s: over {steps} steps {abs(saved_s):.0f} s"
    )
    if saved_s > 0:
        return compiled.model_copy(update={"decisions": (*found.decisions, f"layers are compiled: {figures} less")})
    why = f"layers are not compiled: {figures} more"
    return found.model_copy(update={"decisions": (*found.decisions, why)})


def compile_layers(model: Any, device: torch.device) -> None:
    """Let the decoder layers of a model compute as compiled code, in place.

    One layer at a time, since all are alike and share what is compiled; for any length, since packs differ. On a CPU
    torch only traces them: what a test can run.
    """
    base = model.get_base_model()
    body = getattr(base, base.base_model_prefix)
    for layer in body.layers:
        layer.compile(backend="inductor" if device.type == "cuda" else "eager", dynamic=True)
