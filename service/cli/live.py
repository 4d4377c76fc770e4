"""A training job as it goes on, on a terminal: a bar with the time left, curves of loss and dev score, and what was decided."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from service.cli.course import Course
from service.cli.output import err
from service.cli.plotting import Chart, chart
from service.cli.progress import Narrator, duration, gigabytes, run_in_words
from service.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

HEIGHT, MOST_WIDTH, GUTTER = 8, 60, 8
STYLES = ("cyan", "yellow")  # of the first and the second curve of a chart
REDRAWN_PER_S = 4


class Watcher(NamedTuple):
    """`show` takes a job's events, `say` writes a line above what is drawn, where another console would write into it."""

    show: Callable[[dict[str, Any]], None]
    say: Callable[[str], None]


@contextmanager
def watching(label: str) -> Iterator[Watcher]:
    """A live view on a terminal, else a line for each thing that happened."""
    if not sys.stderr.isatty():
        plain = Narrator(Tenths())
        yield Watcher(plain.narrate, plain.tell)
        return
    from rich.live import Live

    course = Course()
    narrator = Narrator(lambda *_: None)
    view = View(label, course, narrator)
    with Live(view, console=err(), auto_refresh=False, transient=True) as live, _redrawn(live) as changed:
        narrator.tell = lambda text: live.console.print(text, markup=False)

        def watch(event: dict[str, Any]) -> None:
            course.add(event)
            narrator.narrate(event)
            changed.set()

        yield Watcher(watch, narrator.tell)


@contextmanager
def _redrawn(live: Live) -> Iterator[threading.Event]:
    """Draws anew where the event that it gives was set, at most `REDRAWN_PER_S` times a second: a job has quiet hours."""
    changed, ended = threading.Event(), threading.Event()

    def draw() -> None:
        while not ended.wait(1 / REDRAWN_PER_S):
            if changed.is_set():
                changed.clear()
                live.refresh()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield changed
    finally:
        ended.set()
        thread.join()


class Tenths:
    """Progress where no bar can be drawn: a line for each tenth of what is under way."""

    def __init__(self) -> None:
        self._told = ("", -1)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        what, tenth = note.partition(", loss")[0], done * 10 // max(total, 1)
        if tenth and (what, tenth) != self._told:
            err().print(f"  {note}: {done} of {total}", markup=False)
        self._told = (what, tenth)


class View:
    """What is drawn, as the job stands now."""

    def __init__(self, label: str, course: Course, narrator: Narrator) -> None:
        self._label = label
        self._course = course
        self._narrator = narrator

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        course = self._course
        line = Table.grid(padding=(0, 1))
        share = course.cases[0] / course.cases[1] if course.cases and course.phase != "training" else course.share
        figures = map(Text, (f"{share:.0%}", *self._time_left()))
        line.add_row(Text(self._label), ProgressBar(total=1.0, completed=share, width=30), *figures)
        yield line
        yield Text(", ".join(self._figures()), no_wrap=True, overflow="ellipsis")
        if course.losses and options.max_width >= GUTTER * 4:
            width = min(MOST_WIDTH, options.max_width // 2 - GUTTER - 2)
            charts = Table.grid(padding=(0, 2))
            losses = chart([course.losses, course.dev_losses], width, HEIGHT)
            scores = chart([course.dev_scores], width, HEIGHT, bounds=(0.0, 1.0))
            losses_named = Text.assemble(("train loss", STYLES[0]), ", ", ("dev loss", STYLES[1]))
            charts.add_row(losses_named, Text("dev, share exact"))
            charts.add_row(drawn(losses, "{:.3g}"), drawn(scores, "{:.0%}") if course.dev_scores else Text(""))
            yield charts

    def _figures(self) -> list[str]:
        course = self._course
        told = [course.phase]
        if course.phase == "training" and course.run:
            where = printable(run_in_words(course.run, self._narrator.rates))
            told = [f"{where} ({len(course.runs)} of {max(course.runs_planned, len(course.runs))})"]
            told += [f"step {course.step}/{course.of}", f"{course.tokens_per_s:,.0f} tokens/s"]
            told += [gigabytes(course.memory_bytes)] if course.memory_bytes else []
        return told

    def _time_left(self) -> list[str]:
        left_s = self._course.left_s if self._course.phase in ("training", "planning") else None
        return [f"{duration(left_s)} left"] if left_s is not None else []


def drawn(found: Chart, form: str) -> Any:
    """A chart as rich shows it: the range of y at its left, each curve in its colour."""
    from rich.text import Text

    text = Text()
    for number, row in enumerate(found.cells):
        bound = found.high if number == 0 else found.low if number == len(found.cells) - 1 else None
        text.append(("" if bound is None else form.format(bound)).rjust(GUTTER - 1) + " ", style="dim")
        for character, curve in row:
            text.append(character, style=STYLES[curve] if curve >= 0 else "")
        text.append("\n" if number < len(found.cells) - 1 else "")
    return text
