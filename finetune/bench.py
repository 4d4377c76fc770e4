"""What every run of one process works with, set up once: device, tokenizer, encoded rows, and the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from finetune import ranks
from finetune.checkpoint import Tensors
from finetune.compiling import compile_layers
from finetune.encoding import EncodedRow, RefusedError, encode_rows
from finetune.events import Events
from finetune.guard import Guard
from finetune.model import check_packing, context_tokens, load
from finetune.plan import JobSpec
from finetune.sharding import load_sharded


@dataclass(frozen=True)
class Bench:
    """The model with its LoRA, which runs train one after another, and all that they share."""

    spec: JobSpec
    model: Any
    tokenizer: Any
    train: list[EncodedRow]
    dev: list[EncodedRow]
    events: Events
    guard: Guard

    @property
    def base(self) -> Any:
        """The model as transformers knows it, its linear layers those with the LoRA."""
        return self.model.get_base_model()

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def params(self) -> Tensors:
        """What is trained, under PEFT's names of the files it writes."""
        named = self.model.named_parameters()
        return {name.replace(".default.", "."): param for name, param in named if param.requires_grad}

    @property
    def trainable_count(self) -> int:
        return sum(param.numel() for param in self.params.values())


def set_up(spec: JobSpec, events: Events, guard: Guard, seat: ranks.Seat | None = None, *options: str) -> Bench:
    """Load once what all runs of `spec` need. Raises RefusedError for rows or a model that must not be trained.

    `seat` is this process's among several ranks, None in the first; `options` are those that the others are started with.
    """
    device = prepare(spec)
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder, local_files_only=True)
    train, dev = encode(spec, tokenizer)
    ranks.gather(spec, device, guard, seat, *options)  # here: what is refused before is refused by one process
    model = load_sharded(spec, device) if spec.devices > 1 else load(spec, device)
    check_packing(model, train)
    if spec.compile:
        compile_layers(model, device)
    return Bench(spec, model, tokenizer, train, dev, events, guard)


def prepare(spec: JobSpec) -> torch.device:
    """Set what torch shares in a process, and choose the device: CUDA, then MPS, then the CPU."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    name: str = spec.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cpu":  # elsewhere it forbids the fast attention kernels
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time; unstubbed
    torch.manual_seed(spec.recipe.seed)
    return torch.device(name)


def encode(spec: JobSpec, tokenizer: Any) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """Token ids of train and dev. Raises RefusedError with the reasons of both."""
    longest = context_tokens(spec.base_folder)
    parts: list[list[EncodedRow]] = []
    reasons = [] if spec.train else ["no rows to train on"]
    for part, rows in (("train", spec.train), ("dev", spec.dev)):
        try:
            limits = {"context_tokens": longest, "max_new_tokens": spec.max_new_tokens}
            parts.append(encode_rows(tokenizer, rows, part=part, **limits))
        except RefusedError as error:
            reasons += error.reasons
    if reasons:
        raise RefusedError(reasons)
    return parts[0], parts[1]
