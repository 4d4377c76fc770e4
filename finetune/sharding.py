"""A base model whose weights are spread over several devices (FSDP), for one that fits on none of them alone.

Each decoder layer's frozen weights lie in equal parts on all devices, and are gathered where the layer is computed. The
embeddings, the head and the LoRA are on every device: they are small beside the layers, and so the LoRA, its optimizer,
checkpoints and adapters are those of a job on one device. Each rank computes some rows of a batch; the gradients of the
LoRA are added up.

Sharding is accelerate's `fsdp2_prepare_model`, which calls torch's `fully_shard` (Zhao et al., PyTorch FSDP, 2023).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from finetune import ranks, scoring
from finetune.encoding import EncodedRow
from finetune.model import load, precision, weights_dtype
from finetune.packing import fewest_packs
from finetune.plan import JobSpec
from finetune.step import Gradient, OutOfMemoryError, halved, is_out_of_memory


def load_sharded(spec: JobSpec, device: torch.device) -> Any:
    """`model.load` for several devices. The ranks load in turn, so that main memory holds one whole model at most."""
    model: Any = None
    for turn in ranks.in_turn():
        if turn == ranks.number():
            model = shard(load(spec, device, weights_dtype(device)), device)
    return model


def shard(model: Any, device: torch.device) -> Any:
    """Spread the decoder layers of a model over the ranks, in place; the rest moves to `device`."""
    base = model.get_base_model()
    body = getattr(base, base.base_model_prefix)
    lora = [module for name, module in body.named_modules() if name.endswith(("lora_A", "lora_B"))]
    whole = [one for one in (base.get_input_embeddings(), base.get_output_embeddings(), *lora) if one is not None]
    for module in whole:
        module.to(device)
    _prepare(body, whole, device)
    return model.to(device)


def _prepare(body: Any, whole: list[Any], device: torch.device) -> None:
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import fsdp2_prepare_model

    threads = torch.get_num_threads()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        ignored_modules=whole,
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else accelerate sets them on a CPU, and warns
    accelerator = Accelerator(cpu=device.type == "cpu", fsdp_plugin=plugin)
    accelerator.state.fsdp_plugin = plugin  # accelerate 1.15 takes it on accelerators alone, though it works on CPUs
    fsdp2_prepare_model(accelerator, body)
    torch.set_num_threads(threads)


def accumulate(base: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> Gradient:
    """`step.accumulate` of all ranks together: the gradient of the mean loss of `rows`, each rank computing some of them.

    Ranks take as many passes as the one with the most, since all gather a layer's weights at once; a pass too many
    counts for nothing. Raises RankOutOfMemoryError, and OutOfMemoryError where a single row does not fit.
    """
    mine, full = share_of(rows, ranks.number(), ranks.count()), ""
    try:
        return _accumulate(base, rows, mine, pack_tokens)
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        full = str(error)
    raise ranks.RankOutOfMemoryError(halved(mine or rows[:1], pack_tokens, full))


def _accumulate(base: Any, rows: Sequence[EncodedRow], mine: Sequence[EncodedRow], pack_tokens: int) -> Gradient:
    base.train()
    device = next(base.parameters()).device
    trained = [param for param in base.parameters() if param.requires_grad]
    for param in trained:
        param.grad = None
    labels = sum(len(row.labels) for row in rows)
    made = list(fewest_packs(mine or rows[:1], pack_tokens, device))
    shares = [1 / labels if mine else 0.0] * len(made)
    missing = max(ranks.each(len(made), device)) - len(made)
    total = torch.zeros((), device=device)
    for one, share in zip([*made, *made[:1] * missing], [*shares, *[0.0] * missing], strict=True):
        with precision(device):
            loss = scoring.loss_sum(base, one) * share
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += loss.detach()
    _add_gradients(trained)
    tokens = sum(one.tokens for one in made) if mine else 0
    return Gradient(float(ranks.added(total)), sum(ranks.each(tokens, device)), pack_tokens)


def _add_gradients(trained: Sequence[torch.Tensor]) -> None:
    """The sum of all ranks' gradients in each parameter, sent as one piece."""
    grads = [param.grad for param in trained if param.grad is not None]
    whole = ranks.added(torch.cat([grad.flatten() for grad in grads]))
    for grad, part in zip(grads, torch.split(whole, [grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def share_of(rows: Sequence[EncodedRow], rank: int, count: int) -> list[EncodedRow]:
    """The rows of a batch that one of `count` ranks computes: dealt out by length, so that all have about as much."""
    by_length = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    return by_length[rank::count]


__all__ = ["OutOfMemoryError", "accumulate", "load_sharded", "shard", "share_of"]
