"""One request on its way through the generator: the rows that answer it, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import torch

from prompts.errors import TurnoutError
from service.engine.asks import Answer, Ask, Chance, Choice, Listener, Piece
from service.engine.cache import Ids
from service.engine.guided import Guide
from service.engine.sampling import Pick, is_greedy, make_generator
from service.engine.text import Writer


class Words(Protocol):
    """What a model says of its tokens."""

    def decode(self, ids: Sequence[int]) -> str: ...
    def bytes_of(self, token: int) -> bytes: ...


class Diverged(TurnoutError):
    """An answer that was begun anew went another way than what was told of it already."""


@dataclass(slots=True, eq=False)
class Request:
    """One request, which came at `born` (of the monotonic clock). `seed` is its own or one drawn for it; the future is
    done when all its `n` answers are."""

    ask: Ask
    ids: Ids
    future: Future[Answer]
    most_tokens: int
    seed: int
    arrival: int
    born: float
    words: Words
    make_guide: Callable[[], Guide | None]
    listener: Listener | None = None
    begun_at: float | None = None
    first_token_at: float | None = None
    cached_tokens: int | None = None
    asked_again: bool = False
    choices: dict[int, Choice] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """A row for each of its answers; one for all where they would be the same."""
        several = [tuple(range(self.ask.n))] if is_greedy(self.ask) else [(index,) for index in range(self.ask.n)]
        made = [Job(self, indexes) for indexes in several]
        for job in made:
            job.restart()
        return made

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more: it is answered, failed, or its client hung up."""
        return self.future.done()

    def is_late(self, now: float) -> bool:
        return self.ask.timeout_s is not None and now - self.born > self.ask.timeout_s

    def fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):  # its client hung up, or it was answered before
            self.future.set_exception(error)

    def tell(self, piece: Piece) -> None:
        if self.listener is not None and not self.is_over:
            self.listener(piece)

    def finish(self, indexes: Sequence[int], choice: Choice) -> None:
        self.choices.update((index, choice) for index in indexes)
        if len(self.choices) < self.ask.n:
            return
        ordered = tuple(self.choices[index] for index in range(self.ask.n))
        answer = Answer(ordered, len(self.ids), self.cached_tokens or 0, self.asked_again)
        with suppress(InvalidStateError):  # its client hung up in this very moment
            self.future.set_result(answer)


@dataclass(slots=True, eq=False)
class Job:
    """One row: the answer number `indexes` of a request. `alone` marks one that is asked again without company, `had_room`
    one for which the prefixes held of others were dropped."""

    request: Request
    indexes: tuple[int, ...]
    alone: bool = False
    had_room: bool = False
    generator: torch.Generator | None = None
    guide: Guide | None = None
    tokens: list[int] = field(default_factory=list)
    writer: Writer | None = None
    chances: list[Chance] = field(default_factory=list)
    told: int = 0  # chances
    said: str = ""  # text that was told
    repeats: str = ""  # of that, what comes again since it was begun anew

    # What `waiting.Waits` and `sampling.Row` ask for.
    @property
    def ask(self) -> Ask:
        return self.request.ask

    @property
    def ids(self) -> Ids:
        return self.request.ids

    @property
    def adapter(self) -> str | None:
        return self.request.ask.adapter

    @property
    def flow(self) -> str:
        return self.request.ask.flow

    @property
    def priority(self) -> int:
        return self.request.ask.priority

    @property
    def arrival(self) -> int:
        return self.request.arrival

    @property
    def cost(self) -> int:
        return len(self.request.ids) + self.request.most_tokens

    @property
    def is_over(self) -> bool:
        """Whether it is answered, which others of its request may not be, or nobody waits for it any more."""
        return self.request.is_over or self.indexes[0] in self.request.choices

    def restart(self) -> None:
        """Begin anew. What was told of it stays told: the new answer goes on behind that."""
        self.repeats = self.said
        self.tokens, self.chances = [], []
        self.generator = make_generator(self.ask, self.request.seed, self.ids, self.indexes[0])
        self.guide = self.request.make_guide()
        self.writer = Writer(self.request.words.decode, self.ask.stop) if self._is_watched else None

    @property
    def _is_watched(self) -> bool:
        return self.request.listener is not None or bool(self.ask.stop)

    def joins(self, cached_tokens: int) -> None:
        """It is being computed, `cached_tokens` of its prompt were not."""
        if self.request.begun_at is None:
            self.request.begun_at = time.monotonic()
        if self.request.cached_tokens is None or self.alone:
            self.request.cached_tokens = 0 if self.alone else cached_tokens
        self.request.asked_again = self.request.asked_again or self.alone

    def add(self, pick: Pick, stop_ids: frozenset[int]) -> bool:
        """One more token of the answer; gives whether it is whole, and delivers it then."""
        if self.request.first_token_at is None:
            self.request.first_token_at = time.monotonic()
        self.tokens.append(pick.token)
        guided_to_end = self.guide is not None and self.guide.take(pick.token)
        if pick.token in stop_ids:
            return self._end("stop", self.tokens[:-1])
        self._note(pick)
        if self.writer is not None:
            self.writer.add(pick.token)
            if self.writer.stopped_at is not None:
                return self._end("stop", self.tokens)
        if not guided_to_end and self._follows_from_here():
            return self._end("stop", self.tokens)
        if guided_to_end or len(self.tokens) >= self.request.most_tokens:
            return self._end("stop" if guided_to_end else "length", self.tokens)
        self._tell(None)
        return False

    def _follows_from_here(self) -> bool:
        """Whether the guide leaves one answer only: it is written out, unless its log-probabilities are asked for."""
        whole = self.guide.whole() if self.guide is not None and self.ask.top_logprobs is None else None
        if whole is None or len(whole) - 1 > self.request.most_tokens:
            return False
        for token in whole[len(self.tokens) : -1]:
            self.tokens.append(token)
            if self.writer is not None:
                self.writer.add(token)
        return True

    def _note(self, pick: Pick) -> None:
        if self.ask.top_logprobs is not None:
            text = self.request.words.bytes_of
            top = tuple((text(token), logprob) for token, logprob in pick.top)
            self.chances.append(Chance(text(pick.token), pick.logprob, top))

    def _end(self, reason: str, tokens: Sequence[int]) -> bool:
        whole = self.request.words.decode(tokens) if self.writer is None else self.writer.end(tokens)
        if self.writer is not None and self.writer.stopped_at is not None:
            reason, self.chances = "stop", _within(self.chances, whole)
        self._tell(reason, whole)
        chances = None if self.ask.top_logprobs is None else tuple(self.chances)
        self.request.finish(self.indexes, Choice(whole, reason, len(self.tokens), chances))
        return True

    def _tell(self, reason: str | None, whole: str | None = None) -> None:
        """What is new and final, to who listens; with `reason` all that is left."""
        if self.request.listener is None or self.writer is None:
            return
        part = self.writer.take() if whole is None else whole[self.writer.given :]
        part, self.repeats = _behind(part, self.repeats)
        self.said += part
        chances = self._new_chances(is_last=reason is not None)
        if part or chances or reason:
            for index in self.indexes:
                self.request.tell(Piece(index, part, chances, reason))

    def _new_chances(self, *, is_last: bool) -> tuple[Chance, ...]:
        if self.ask.top_logprobs is None or self.writer is None:
            return ()
        told_bytes = len(self.writer.text[: self.writer.given].encode())
        end = len(self.chances) if is_last else len(_within(self.chances, told_bytes))
        fresh = tuple(self.chances[self.told : end])
        self.told = max(self.told, end)
        return fresh


def _behind(part: str, given: str) -> tuple[str, str]:
    """What of `part` comes behind `given`, and what of `given` is still to come."""
    common = min(len(part), len(given))
    if part[:common] != given[:common]:
        raise Diverged("the answer asked again alone differs from what was streamed; ask once more")
    return part[common:], given[common:]


def _within(chances: Sequence[Chance], text: str | int) -> list[Chance]:
    """The leading tokens of which at least one byte lies within `text`, or within so many bytes."""
    end, size = (len(text.encode()) if isinstance(text, str) else text), 0
    found = []
    for chance in chances:
        if size >= end:
            break
        found.append(chance)
        size += len(chance.text)
    return found
