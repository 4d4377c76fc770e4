"""The text of an answer while its tokens come: only as far as no later token can change it. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"  # what a decoder makes of bytes that are no character, or not one yet
_MOST_LACKING = 3  # bytes of a character that is not whole


class Writer:
    """Puts tokens together to text, and finds where it has to stop.

    Two windows of tokens are decoded at each step, so that a tokenizer that writes a word's blank only behind another
    word is read right. What is incomplete at the end is held back: a decoder shows it as one replacement character, or, of
    a tokenizer that falls back to bytes, as one for each of them.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped_at: int | None = None
        self.given = 0  # characters that were handed out
        self._decode = decode
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._tokens: list[int] = []
        self._start = 0  # of the window that is known to be whole …
        self._read = 0  # … and of the one that may not be
        self._base = ""

    def add(self, token: int) -> None:
        """One more token; `stopped_at` tells afterwards where a stop sequence began, if one is there."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._read])
        now = self._decode(self._tokens[self._start :])
        settled = now[: len(now) - self._incomplete(now)][len(before) :]
        searched = max(0, len(self.text) - self._longest + 1)
        self.text = self._base + settled
        if not now.endswith(_INCOMPLETE):
            self._base, self._start, self._read = self.text, self._read, len(self._tokens)
        self._look_for_stops(searched)

    def take(self) -> str:
        """The text that may be handed out now and was not before: no beginning of a stop sequence stands at its end."""
        end = len(self.text) - self._may_be_stop() if self.stopped_at is None else self.stopped_at
        part = self.text[self.given : end]
        self.given += len(part)
        return part

    def end(self, tokens: Sequence[int]) -> str:
        """All of the answer, whose `tokens` are these; what is incomplete at its end stays as it is."""
        if self.stopped_at is None:
            whole = self._decode(tokens)
            given = self.text[: self.given]
            self.text = whole if whole.startswith(given) else given + whole[self.given :]
            self._look_for_stops(0)
        return self.text[: self.stopped_at]

    def _incomplete(self, now: str) -> int:
        """How many characters at the end of the window may still become others.

        Once more tokens came than a character lacks bytes, its bytes are no text and stay as they are shown.
        """
        shown = len(now) - len(now.rstrip(_INCOMPLETE))
        return shown if len(self._tokens) - self._read <= _MOST_LACKING else min(shown, _MOST_LACKING)

    def _look_for_stops(self, start: int) -> None:
        found = [place for stop in self._stops if (place := self.text.find(stop, start)) >= 0]
        if found and self.stopped_at is None:
            self.stopped_at = min(found)

    def _may_be_stop(self) -> int:
        """How many characters at the end could begin a stop sequence."""
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stops):
                return length
        return 0
