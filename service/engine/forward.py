"""The seam between decoding and a forward pass: `own` for the families written out here, `whole` for all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from torch import Tensor

from service.engine.adapters import AdapterFiles
from service.engine.cache import Ids, Prefix

_Rows = TypeVar("_Rows")


class Rows(Protocol):
    """Rows being decoded together, of one adapter or of several.

    `logits` [rows, vocabulary] in fp32 (or wider) are of each row's next token.
    """

    logits: Tensor

    def __len__(self) -> int: ...

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values are allotted to these rows, shared prefixes left out where they are held once."""
        ...

    def keep(self, indexes: Sequence[int]) -> Self:
        """These rows in this order; one named several times goes on in several ways."""
        ...

    def join(self, others: Sequence[Self]) -> Self:
        """These rows and those of the others, in this order."""
        ...


class Forward(Protocol[_Rows]):
    """One copy of a model's weights, and the adapters laid beside it. Used by one thread only."""

    @property
    def kind(self) -> str:
        """How it computes, in words: another kind adds in another order."""
        ...

    @property
    def adapters(self) -> tuple[str, ...]: ...

    def add_adapter(self, name: str, files: AdapterFiles) -> None:
        """Raises BadInput where its weights do not fit this model."""

    def remove_adapter(self, name: str) -> None: ...

    def prefill(self, adapter: str | None, own: Sequence[Ids], prefix: Prefix) -> _Rows:
        """Compute the tokens that each row has after `prefix`: at least one."""
        ...

    def advance(self, rows: _Rows, tokens: Sequence[int]) -> _Rows:
        """One more token in each row. `rows` must not be used again."""
        ...

    def prefix_of(self, rows: _Rows, ids: Ids) -> Prefix:
        """All that the one row of `rows` has computed, which are `ids`."""
        ...
