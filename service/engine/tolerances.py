"""How far logits of a batch are from those computed alone, kept between starts: measuring it takes two CPU seconds.

The difference follows from the weights and how they are laid out, the adapter, the libraries that compute, the device
and our code. Each is in the key, so that a change of any of them measures anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import secrets
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from finetune.adapter import base_digest
from service.engine import decoding
from service.engine.adapters import AdapterFiles
from service.engine.model import LoadedModel

_LOG = logging.getLogger(__name__)
_MOST_KEPT = 256
_CODE = (
    "attention",
    "cache",
    "decoding",
    "forward",
    "layers",
    "loras",
    "own",
    "peft_layers",
    "products",
    "whole",
    "windows",
)


class Noises:
    """Measured differences of one model, in the file at `path`; None keeps nothing."""

    def __init__(self, model: LoadedModel, path: Path | None = None) -> None:
        self._model = model
        self._path = path

    def of(self, adapter: str | None, files: AdapterFiles | None) -> float:
        """The largest absolute difference of a logit, as `decoding.measure_noise` gives it for the adapter of `files`."""
        if self._path is None:
            return decoding.measure_noise(self._model, adapter)
        key = self._key(files)
        kept = _read(self._path).get(key)
        if isinstance(kept, float) and math.isfinite(kept) and kept >= 0:
            return kept
        noise = decoding.measure_noise(self._model, adapter)
        if math.isfinite(noise):
            self._keep(self._path, key, noise)
        return noise

    def _key(self, files: AdapterFiles | None) -> str:
        return hashlib.sha256(json.dumps([self._place, _told(files)]).encode()).hexdigest()

    @cached_property
    def _place(self) -> list[Any]:
        """All but the adapter that the difference follows from."""
        model = self._model
        cuda = model.device.type == "cuda"
        device = torch.cuda.get_device_name(model.device) if cuda else torch.backends.cpu.get_cpu_capability()
        precision = [str(model.dtype), torch.get_num_threads(), os.cpu_count(), model.forward.kind]
        libraries = [version(name) for name in ("torch", "transformers", "peft")]
        return [base_digest(model.folder), *libraries, str(model.device), device, *precision, _code_digest()]

    def _keep(self, path: Path, key: str, noise: float) -> None:
        """Another engine may write at the same time: whoever is last wins, and what is lost is measured once more."""
        kept = {**_read(path), key: noise}
        newest = dict(list(kept.items())[-_MOST_KEPT:])
        half = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            half.write_text(json.dumps(newest), "utf-8")
            half.replace(path)
        except OSError as error:
            _LOG.warning("%s cannot be written (%s): the tolerance is measured at each start", path, error)


def _told(files: AdapterFiles | None) -> list[Any]:
    if files is None:
        return []
    with files.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [digest, files.rank, files.alpha, files.rank_stabilized, files.target_modules]


def _code_digest() -> str:
    total = hashlib.sha256()
    for name in _CODE:
        total.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return total.hexdigest()


def _read(path: Path) -> Mapping[str, Any]:
    """What the file holds; nothing where there is none yet, or it is damaged: then all is measured anew."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
