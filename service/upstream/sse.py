"""Server-sent events, byte by byte (WHATWG HTML §9.2.6): what comes in any pieces, as the data of whole events."""

from __future__ import annotations

MOST_EVENT_BYTES = 8 << 20  # of one event, and of one line


class EventTooLong(ValueError):
    """An event or a line is longer than `MOST_EVENT_BYTES`."""


class EventReader:
    """Takes bytes as they come, and gives the data of each event that they complete.

    Lines may end in LF, CRLF or CR. Comments and all fields but `data` are passed over; several lines of data are joined
    by a line feed. Work is linear in the bytes, however small the pieces are.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._data: list[bytes] = []  # of an event that has not ended
        self._held_bytes = 0
        self._after_cr = False
        self._is_first = True

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that end in `data`; raises EventTooLong."""
        plain = self._plain(data)
        if plain is not None:
            return plain
        data = self._with_line_feeds(data)
        first, *rest = data.split(b"\n")
        self._pieces.append(first)
        self._hold(len(first))
        found: list[bytes] = []
        for after in rest:
            self._end_line(found)
            self._pieces.append(after)
            self._hold(len(after))
        return found

    def pending(self) -> bytes:
        """The data of an event that nothing has ended: what a stream without a last empty line leaves."""
        left: list[bytes] = []
        self._end_line(left)
        return left[0] if left else b"\n".join(self._data)

    def _plain(self, data: bytes) -> list[bytes] | None:
        """The same in one go for what most servers send, whole events of one line of data each; None for all else."""
        is_amid = self._data or self._after_cr or any(self._pieces)
        if is_amid or not data.endswith(b"\n\n") or b"\r" in data or len(data) > MOST_EVENT_BYTES:
            return None
        events = data[:-2].split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: ") or b"\n" in event:
                return None
        self._is_first = False
        return [event[6:] for event in events]

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._is_first and data:
            self._is_first = False
            data = data.removeprefix(b"\xef\xbb\xbf")
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if b"\r" not in data:
            self._after_cr = self._after_cr and not data
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        if self._held_bytes > MOST_EVENT_BYTES:
            raise EventTooLong(f"an event of the stream is longer than {MOST_EVENT_BYTES} bytes")

    def _end_line(self, found: list[bytes]) -> None:
        pieces = self._pieces
        line = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if not line:
            if self._data:
                found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
            self._held_bytes = 0
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")
        else:
            self._held_bytes -= len(line)  # a comment, or a field that says nothing to us
