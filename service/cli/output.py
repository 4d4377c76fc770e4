"""What commands print: with `--json` one document on stdout and all else on stderr, else tables and colours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console


PIPE_WIDTH = 200  # columns for tables that nobody's window limits


class Advance(Protocol):
    """Tell a bar how far its work is."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def out() -> Console:
    """The console of results. rich honours NO_COLOR and plain pipes by itself."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """The console of progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_error(message: str) -> None:
    """An error on stderr, never read as markup."""
    from rich.text import Text

    err().print(Text("error: ", style="bold red") + Text(message))


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows as a table of texts."""
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        shown.add_row(*(Text("" if row.get(name) is None else str(row[name])) for name in columns))
    out().print(shown)


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
