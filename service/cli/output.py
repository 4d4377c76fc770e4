"""What commands print: with `--json` one document on stdout and all else on stderr, else tables and colours.

Here, and nowhere else, control characters in what is shown become escapes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Protocol

from service.printable import printable

if TYPE_CHECKING:
    from rich.console import Console


PIPE_WIDTH = 200  # columns for tables that nobody's window limits
DIGEST_SHOWN = 19  # characters of a digest in a table: `sha256:` and twelve
# control characters that JSON needs not escape, and bytes that are not UTF-8, of names of files, say
_RAW_IN_JSON = re.compile(r"[\x7f-\x9f\ud800-\udfff]")


class Advance(Protocol):
    """Tell a bar how far its work is."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@dataclass
class _Documents:
    """How many JSON documents this process has put on stdout: a command that gave its own gives no other."""

    printed: int = 0


documents = _Documents()


def print_json(data: Any) -> None:
    """One JSON document on stdout, in JSON's own escapes where that cannot take every character."""
    sys.stdout.write(_as_json(data, indent=2) + "\n")
    documents.printed += 1


def print_json_lines(rows: Iterable[Any]) -> None:
    """A JSON document a line on stdout, as files of examples have them: what any reader of JSON lines takes."""
    for row in rows:
        sys.stdout.write(_as_json(row) + "\n")


def _as_json(data: Any, indent: int | None = None) -> str:
    takes_all = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(data, indent=indent, ensure_ascii=not takes_all)
    return _RAW_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_text(text: str) -> None:
    """Text on stdout as it is, without wrapping."""
    _show_all()
    sys.stdout.write(printable(text))


def out() -> Console:
    """The console of results. rich honours NO_COLOR and plain pipes by itself."""
    _show_all()
    return _console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _show_all() -> None:
    """What the encoding of a terminal or a pipe has not stands there as an escape: no verdict is lost for a dash in a table."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def err() -> Console:
    """The console of progress and errors."""
    return _console(stderr=True, soft_wrap=True)


def _console(**options: Any) -> Console:
    """A console that prints texts as `printable` shows them, whatever they stand in.

    rich drops some control characters when it makes a text of them, and leaves the others, which begin what a terminal
    obeys: those are escaped in whatever is rendered.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        def print(self, *objects: Any, **more: Any) -> None:
            super().print(*(printable(shown) if isinstance(shown, str) else shown for shown in objects), **more)

        def render(self, *given: Any, **more: Any) -> Iterator[Segment]:
            for segment in super().render(*given, **more):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return Plain(highlight=False, emoji=False, **options)  # `:watch:` stands in names such as ft:base:acme:watch:1


def show_error(message: str) -> None:
    """An error on stderr, never read as markup."""
    from rich.text import Text

    err().print(Text("error: ", style="bold red") + Text(printable(message)))


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows as a table of texts."""
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        shown.add_row(*(Text("" if row.get(name) is None else printable(str(row[name]))) for name in columns))
    out().print(shown)


def short(digest: str) -> str:
    """A digest as tables show it; `--json` has all of it."""
    return digest[:DIGEST_SHOWN]


def _unseen(done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""


@contextmanager
def bar(label: str) -> Iterator[Advance]:
    """A progress bar on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield _unseen
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def advance(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, description=f"{label} {note}".strip())

        yield advance
