"""Rows to token ids by the very code that serving uses, and every reason not to train on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.plan import Row
from prompts import chat
from prompts.errors import BadInput

_REASONS_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as token ids: the prompt, then the answer with the end of its turn, which alone are labelled."""

    ids: tuple[int, ...]
    prompt_tokens: int
    answer: str = ""

    @property
    def labels(self) -> tuple[int, ...]:
        return self.ids[self.prompt_tokens :]

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids[: self.prompt_tokens]


class RefusedError(BadInput):
    """Rows that must not be trained on; `reasons` say which and why, `shown` the first of them and how many follow."""

    def __init__(self, reasons: Sequence[str]) -> None:
        shown = list(reasons[:_REASONS_AT_MOST])
        if len(reasons) > len(shown):
            shown.append(f"… and {len(reasons) - len(shown)} more")
        super().__init__("; ".join(shown), param="rows")
        self.reasons, self.shown = tuple(reasons), tuple(shown)


def refusal(error: BadInput) -> dict[str, Any]:
    """What an event says of a job that is refused: `reasons`, and the `param` that is at fault, as `rows` or `model`."""
    return {"reasons": list(error.shown) if isinstance(error, RefusedError) else [str(error)], "param": error.param}


def encode_rows(
    tokenizer: Any, rows: Sequence[Row], *, part: str, context_tokens: int, max_new_tokens: int
) -> list[EncodedRow]:
    """All rows of one part (`train` or `dev`) encoded, none truncated. Raises RefusedError with every reason."""
    encoded: list[EncodedRow] = []
    reasons: list[str] = []
    for number, row in enumerate(rows):
        try:
            one = encode_row(tokenizer, row)
            faults = list(_faults(tokenizer, one, context_tokens, max_new_tokens))
        except BadInput as error:
            faults = [str(error)]
        else:
            encoded.append(one)
        reasons += [f"{part} row {number}: {fault}" for fault in faults]
    if reasons:
        raise RefusedError(reasons)
    return encoded


def encode_row(tokenizer: Any, row: Row) -> EncodedRow:
    """Raises BadInput where the chat template refuses the messages."""
    prompt = chat.encode_prompt(tokenizer, row.messages)
    return EncodedRow((*prompt, *chat.encode_answer(tokenizer, row.answer)), len(prompt), row.answer)


def _faults(tokenizer: Any, row: EncodedRow, context_tokens: int, max_new_tokens: int) -> Iterator[str]:
    decoded = tokenizer.decode(list(row.labels[:-1]), clean_up_tokenization_spaces=False)
    answer_tokens = len(row.labels) - 1
    if not row.answer.strip() or not answer_tokens:
        yield "no labelled tokens: its answer is empty"
    if not row.prompt_tokens:
        yield "no prompt tokens: its messages are empty"
    if not row.labels or row.labels[-1] != chat.end_of_turn(tokenizer):
        yield "the end of the assistant's turn is not labelled, so the model would never learn to stop"
    if decoded.strip() != row.answer.strip():  # answers are compared without the space around them
        yield f"its labels decode to {decoded[:80]!r}, not to {row.answer[:80]!r}"
    if row.ids[0] == tokenizer.bos_token_id and row.ids[:1] == row.ids[1:2]:
        yield f"it begins with {tokenizer.bos_token!r} twice"
    if len(row.ids) > context_tokens:
        yield f"{len(row.ids)} tokens exceed the model's context of {context_tokens}; nothing is truncated: shorten it"
    if answer_tokens > max_new_tokens:
        yield f"its answer has {answer_tokens} tokens, but serving stops at {max_new_tokens}: raise max_tokens"
