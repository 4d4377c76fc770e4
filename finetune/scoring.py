"""Loss and greedy answers of packed rows, the head run only where there is a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's documentation and users call it so
from torch.utils.checkpoint import checkpoint

from finetune import layers, ranks
from finetune.attention import takes_spans
from finetune.encoding import EncodedRow
from finetune.packing import Pack, packs, shared_prefix
from finetune.products import frozen_product

_HEAD_CHUNK = 512  # labelled positions whose logits exist at once: 512 × 150,000 words in fp32 are 300 MB
_EVAL_OWN_TOKENS = 512  # where attention takes T² on a CPU: beyond, that costs more than computing the prefix again


def label_hidden(model: Any, pack: Pack) -> torch.Tensor:
    """Hidden states (N, D) where a label is predicted: by layers written out where these are known, else the model's own."""
    written_out = layers.label_hidden(model, pack)
    if written_out is not None:
        return written_out
    body = getattr(model, model.base_model_prefix)
    spans = {"spans": pack.spans} if takes_spans(model) else {}
    states = body(
        input_ids=pack.ids,
        attention_mask=_given(model, pack.mask),
        position_ids=pack.positions,
        use_cache=False,
        **spans,
    )
    return states.last_hidden_state[0, pack.label_at]  # type: ignore[no-any-return]  # bodies of transformers are untyped


def _given(model: Any, seen: torch.Tensor) -> torch.Tensor:
    """A pack's mask as the model's attention takes it: the one written out in Python adds it to its scores."""
    if model.config.get_text_config()._attn_implementation != "eager":
        return seen
    dtype = next(model.parameters()).dtype
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """(N, D) to logits (N, V), with the scalings that some families put after their head."""
    config = model.config.get_text_config()
    layer = model.get_output_embeddings()
    is_plain = type(layer) is torch.nn.Linear and not layer.weight.requires_grad and hidden.device.type == "cpu"
    logits: torch.Tensor = frozen_product(hidden, layer.weight, layer.bias) if is_plain else layer(hidden)
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return logits if cap is None else cap * torch.tanh(logits / cap)


def loss_sum(model: Any, pack: Pack) -> torch.Tensor:
    """Cross-entropy summed over the pack's N labels: a scalar in the precision of the logits, fp32 at least."""
    hidden = label_hidden(model, pack)
    pieces = list(zip(torch.split(hidden, _HEAD_CHUNK), torch.split(pack.labels, _HEAD_CHUNK), strict=True))
    if len(pieces) == 1:
        return _cross_entropy(model, *pieces[0])
    losses = [checkpoint(_cross_entropy, model, *piece, use_reentrant=False) for piece in pieces]
    return torch.stack(losses).sum()


def _cross_entropy(model: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = head(model, hidden)
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    return F.cross_entropy(logits, labels, reduction="sum")


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on rows: the share answered exactly, the mean loss over labelled tokens, the share of these it says.

    A token counts as said where it is the likeliest behind the right ones before it.
    """

    exact: float
    loss: float
    token_accuracy: float = 0.0


@torch.no_grad()
def score(model: Any, tokenizer: Any, rows: Sequence[EncodedRow], *, max_new_tokens: int, pack_tokens: int) -> Score:
    """Compare the greedy answers of `model` with the expected ones, both without the space around them.

    One pass over the labelled rows gives the loss and decides almost all: while the likeliest token is the label at
    every position the greedy answer *is* the labels; at the first other token it is decided too, unless what it spells
    so far still begins the expected text. Only such a row is generated on, token by token.
    """
    losses: list[torch.Tensor] = []
    exact = said = 0
    open_rows: list[EncodedRow] = []  # their `ids` end with a token that the model chose and the label did not
    device = next(model.parameters()).device
    tokens_at_most = _eval_tokens(model, rows, pack_tokens)
    groups = iter(rows)
    for one in packs(rows, tokens_at_most, device):
        loss, likeliest = _token_losses(model, one)
        losses.append(loss.sum())
        said += int((likeliest == one.labels).sum())
        guesses = torch.split(likeliest.cpu(), list(one.label_counts))
        for guess, row in zip(guesses, groups, strict=False):
            chosen = _until_wrong(guess.tolist(), row.labels)
            exact += chosen == row.labels
            if chosen != row.labels:
                open_rows.append(replace(row, ids=(*row.prompt, *chosen)))
    exact += _generate(model, tokenizer, open_rows, max_new_tokens, tokens_at_most)
    labels = sum(len(row.labels) for row in rows)
    return Score(exact / len(rows), float(torch.stack(losses).sum()) / labels, said / labels)


def _until_wrong(guess: Sequence[int], labels: Sequence[int]) -> tuple[int, ...]:
    wrong = (at for at, (token, label) in enumerate(zip(guess, labels, strict=True)) if token != label)
    return tuple(guess[: next(wrong, len(labels)) + 1])


def _generate(model: Any, tokenizer: Any, rows: Sequence[EncodedRow], max_new_tokens: int, tokens_at_most: int) -> int:
    """How many of the begun answers end as expected."""
    exact = 0
    while rows:
        ended = [row for row in rows if _has_ended(tokenizer, row, max_new_tokens)]
        exact += sum(_text(tokenizer, row).strip() == row.answer.strip() for row in ended)
        rows = [row for row in rows if row not in ended and _may_match(tokenizer, row)]
        rows = _one_more(model, rows, tokens_at_most)
    return exact


def _one_more(model: Any, rows: Sequence[EncodedRow], tokens_at_most: int) -> list[EncodedRow]:
    """Each row with its likeliest next token."""
    if not rows:
        return []
    device = next(model.parameters()).device
    asked = [EncodedRow((*row.ids, 0), len(row.ids)) for row in rows]  # the 0 stands where the answer is wanted
    hidden = [label_hidden(model, one) for one in packs(asked, tokens_at_most, device)]
    tokens = ranks.agreed(head(model, torch.cat(hidden)).argmax(-1)).tolist()
    return [replace(row, ids=(*row.ids, token)) for row, token in zip(rows, tokens, strict=True)]


@torch.no_grad()
def answers(
    model: Any, tokenizer: Any, rows: Sequence[EncodedRow], *, max_new_tokens: int, pack_tokens: int
) -> list[str]:
    """The greedy answer of `model` to each row's prompt, without the space around it, in the order of the rows."""
    begun = dict(enumerate(_one_more(model, [replace(row, ids=row.prompt) for row in rows], pack_tokens)))
    texts: dict[int, str] = {}
    while begun:
        ended = {at: row for at, row in begun.items() if _has_ended(tokenizer, row, max_new_tokens)}
        texts |= {at: _text(tokenizer, row).strip() for at, row in ended.items()}
        open_rows = {at: row for at, row in begun.items() if at not in ended}
        begun = dict(zip(open_rows, _one_more(model, [*open_rows.values()], pack_tokens), strict=True))
    return [texts[at] for at in range(len(rows))]


@torch.no_grad()
def token_accuracy(model: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> float:
    """The share of the rows' labelled tokens that are the likeliest, given the right ones before them."""
    device = next(model.parameters()).device
    made = packs(rows, _eval_tokens(model, rows, pack_tokens), device)
    said = sum(int((_token_losses(model, one)[1] == one.labels).sum()) for one in made)
    return said / sum(len(row.labels) for row in rows)


@torch.no_grad()
def row_losses(model: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> list[float]:
    """The mean cross-entropy over the labelled tokens of each row, in the order of the rows."""
    losses: list[float] = []
    device = next(model.parameters()).device
    for one in packs(rows, _eval_tokens(model, rows, pack_tokens), device):
        each, _ = _token_losses(model, one)
        losses += [float(row.mean()) for row in torch.split(each, list(one.label_counts))]
    return losses


def _token_losses(model: Any, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each of the pack's N labels, and the likeliest tokens in their places; logits in chunks."""
    losses, likeliest = [], []
    pieces = zip(
        torch.split(label_hidden(model, pack), _HEAD_CHUNK), torch.split(pack.labels, _HEAD_CHUNK), strict=True
    )
    for hidden, labels in pieces:
        logits = head(model, hidden)
        losses.append(F.cross_entropy(logits.float(), labels, reduction="none"))
        likeliest.append(logits.argmax(-1))
    return ranks.agreed(torch.cat(losses)), ranks.agreed(torch.cat(likeliest))


def _has_ended(tokenizer: Any, row: EncodedRow, max_new_tokens: int) -> bool:
    return _stops(tokenizer, row.ids[-1]) or len(row.labels) >= max_new_tokens


def _stops(tokenizer: Any, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return token == tokenizer.eos_token_id or (added is not None and added.special)


def _text(tokenizer: Any, row: EncodedRow) -> str:
    kept = row.labels[:-1] if _stops(tokenizer, row.ids[-1]) else row.labels
    return str(tokenizer.decode(list(kept), clean_up_tokenization_spaces=False))


def _may_match(tokenizer: Any, row: EncodedRow) -> bool:
    begun = _text(tokenizer, row).rstrip("\ufffd").strip()  # U+FFFD: a character whose bytes are not all there yet
    return row.answer.strip().startswith(begun)


def _eval_tokens(model: Any, rows: Sequence[EncodedRow], pack_tokens: int) -> int:
    if takes_spans(model) or next(model.parameters()).device.type != "cpu":
        return pack_tokens
    return min(pack_tokens, shared_prefix(rows) + _EVAL_OWN_TOKENS)
