"""The command `watch`: on every save the tree is checked, and the suites that the save may have changed are run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Local, Model

if TYPE_CHECKING:
    from rich.console import Console

    from prompts.errors import TurnoutError
    from service.cli.examining import Checked
    from service.cli.project import Project
    from service.cli.work import Work
    from suites.files import ResolvedSuite

POLL_S = 0.3
SHOWN_CASES = 5
BAD = ("failed", "errored")
Stamps = Mapping[Path, tuple[int, int, int]]  # of each file: when it was written, its size, which file it is


@dataclass(frozen=True)
class Scene:
    """What stands in the working tree: each prompt's file and includes, each suite's prompt and files."""

    prompts: Mapping[str, tuple[Path, tuple[str, ...]]] = field(default_factory=dict)
    suites: Mapping[str, tuple[str, tuple[Path, ...]]] = field(default_factory=dict)

    def files_of(self, suite: str) -> frozenset[Path]:
        """All that a run of `suite` depends on: its own files, its prompt's, and those of whatever that includes."""
        prompt, files = self.suites[suite]
        found, waiting, seen = set(files), [prompt], set[str]()
        while waiting:
            name = waiting.pop()
            if name in self.prompts and name not in seen:
                seen.add(name)
                path, includes = self.prompts[name]
                found.add(path)
                waiting += includes
        return frozenset(found)


def affected(changed: Iterable[Path], before: Scene, after: Scene) -> list[str]:
    """Names of the suites that a change of these files may have changed, by what they were or are made of."""
    files = frozenset(changed)
    return [
        name
        for name in after.suites
        if files & after.files_of(name)
        or (name in before.suites and files & before.files_of(name))
        or (name in before.suites and after.files_of(name) != before.files_of(name))
    ]


def changed_files(before: Stamps, after: Stamps) -> list[Path]:
    """Files that were written, made or removed in between, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


@dataclass(frozen=True)
class Moved:
    """Cases whose outcome is another than in the run before: their ids."""

    broken: tuple[str, ...]
    mended: tuple[str, ...]
    new_bad: tuple[str, ...]


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> Moved:
    """Compare the status of each case in two runs; a case that was not in the first is new."""
    return Moved(
        broken=tuple(case for case, status in after.items() if status in BAD and before.get(case) == "passed"),
        mended=tuple(case for case, status in after.items() if status == "passed" and before.get(case) in BAD),
        new_bad=tuple(case for case, status in after.items() if status in BAD and case not in before),
    )


def watch(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Run only the suites of these files or folders; all is checked.")
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Check only; ask no model.")] = False,
    model: Model = None,
    local: Local = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON on stdout for each change examined, all else on stderr.")
    ] = False,
) -> int:
    """Check the project and run its suites on every save, until interrupted: what broke, what was mended."""
    from service.cli.output import err
    from service.settings import project_of

    root = project_of(paths or [])
    wanted = [path.resolve() for path in paths or []]
    watcher = Watcher(wanted, runs=not no_run, model=model, local=local, root=root, as_json=as_json)
    seen: Stamps = {}
    while True:
        now = settled(root, watcher.sources)
        changed = changed_files(seen, now)
        if changed:
            watcher.look(changed if seen else None)
            seen = {**now, **stamps(root, watcher.sources - now.keys(), folders=())}
            err().print("watching; Ctrl-C ends it", style="dim")
        time.sleep(POLL_S)


def settled(root: Path, more: Iterable[Path]) -> Stamps:
    """The files as they are once nothing writes them: an editor may save in several steps."""
    more = list(more)
    now = stamps(root, more)
    while True:
        time.sleep(POLL_S / 3)
        again = stamps(root, more)
        if again == now:
            return now
        now = again


def stamps(root: Path, more: Iterable[Path], folders: tuple[str, ...] = ("prompts", "suites")) -> Stamps:
    """Stamps of turnout.yaml, of all files below `folders` but hidden ones, and of `more`."""
    below = (path for folder in folders for path in (root / folder).rglob("*"))
    paths = {path.resolve() for path in below if not path.name.startswith(".") and not path.name.endswith("~")}
    found = {}
    for path in {*paths, *more, root / "turnout.yaml"}:
        try:
            stat = path.stat()
        except OSError:
            continue  # gone between the listing and here, or a turnout.yaml that is not there
        if path.is_file():
            found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return found


class Watcher:
    """What is known from one save to the next. `sources` are files outside of prompts/ and suites/ to watch, too.

    `root` is the project's folder, by default that of the working folder. `as_json` tells each look as a line of JSON.
    """

    def __init__(
        self,
        wanted: list[Path],
        *,
        runs: bool,
        model: str | None = None,
        local: bool = False,
        root: Path | None = None,
        as_json: bool = False,
    ) -> None:
        self.sources: frozenset[Path] = frozenset()
        self._root = root
        self._wanted = wanted
        self._runs = runs
        self._model = model
        self._local = local
        self._as_json = as_json
        self._scene = Scene()
        self._work: Work | None = None
        self._status: dict[str, dict[str, str]] = {}

    def look(self, changed: list[Path] | None) -> None:
        """Check everything and run what `changed` affects; None means all. Whatever is at fault is told, not raised."""
        from prompts.errors import TurnoutError
        from service.cli.output import err, show_error

        err().print(f"{time.strftime('%H:%M:%S')}  {_saved(changed, self._root)}", style="bold", markup=False)
        try:
            seen = self._look(changed)
        except TurnoutError as error:
            show_error(str(error))
            seen = _refused(error)
        if self._as_json:
            _print_line({"changed": None if changed is None else _shown(changed, self._root), **seen})

    def _look(self, changed: list[Path] | None) -> dict[str, Any]:
        """What was found, as JSON: what `check` tells, and each run."""
        from service.cli.project import Project
        from service.settings import FILE_NAME, load_settings

        everything = changed is None or any(path.name == FILE_NAME for path in changed)
        if everything:
            self._work = None  # models may be others now
        project = Project(load_settings(start=self._root), (self._model,) if self._model else ())
        found = project.examine()
        _show_check(found, None if everything else changed, self._out)
        before, self._scene = self._scene, scene_of(found)
        self.sources = frozenset(path for _, files in self._scene.suites.values() for path in files)
        names = list(self._scene.suites) if everything else affected(changed or (), before, self._scene)
        wanted = [suite for suite in found.suites if suite.name in names and self._is_wanted(suite)]
        return {**found.data, "runs": [self._run(project, found, suite) for suite in wanted if self._runs]}

    @property
    def _out(self) -> Console:
        """Where results are shown: with --json stdout is for that alone."""
        from service.cli.output import err, out

        return err() if self._as_json else out()

    def _is_wanted(self, suite: ResolvedSuite) -> bool:
        files = self._scene.files_of(suite.name)
        return not self._wanted or any(file.is_relative_to(path) for file in files for path in self._wanted)

    def _run(self, project: Project, found: Checked, suite: ResolvedSuite) -> dict[str, Any]:
        """One suite's run as JSON: its figures and the cases that moved, or why there is none."""
        from prompts.errors import TurnoutError
        from service.cli.output import err, show_error
        from suites.outcomes import statuses_of, with_ids

        at_fault = self._files_at_fault(project, found, suite)
        if at_fault:
            why = f"not run before {', '.join(at_fault)} is mended"
            err().print(f"{suite.name}: {why}", markup=False)
            return {"suite": suite.name, "error": why}
        try:
            result = self._result(project, suite)
        except TurnoutError as error:
            show_error(f"{suite.name}: {error}")
            return {"suite": suite.name, "error": str(error)}
        status = statuses_of(with_ids(result.pop("case_status"), (case.id for case in suite.suite.tests)))
        before = self._status.get(suite.name)
        self._status[suite.name] = dict(status)
        moves = moved(before or {}, status)
        self._show(result, moves, first=before is None)
        return {**result, "newly_broken": moves.broken, "newly_mended": moves.mended, "new_failed": moves.new_bad}

    def _files_at_fault(self, project: Project, found: Checked, suite: ResolvedSuite) -> list[str]:
        """The files of a suite that have errors, or its prompt where that cannot be read."""
        wrong = {(project.root / fault.path).resolve() for fault in found.errors}
        wrong |= {Path(fault.path).resolve() for fault in found.errors}
        at_fault = [project.shown(path) for path in sorted(self._scene.files_of(suite.name) & wrong)]
        prompt = suite.suite.prompt
        return at_fault or ([f"prompt {prompt}"] if prompt in project.tree.broken else [])

    def _result(self, project: Project, suite: ResolvedSuite) -> dict[str, Any]:
        from service.cli.output import bar
        from service.cli.testing import Plan, push_plans
        from service.cli.work import connect_work
        from service.gates import RunRequest

        self._work = self._work or connect_work(project.settings, local=self._local)
        plan = Plan(suite.name, suite.suite.prompt, suite.suite, None)
        versions = push_plans(self._work, project, [plan])
        tested, prompt = versions[("suite", suite.name)], versions[("prompt", plan.prompt)]
        with bar(suite.name) as advance:
            return self._work.run(RunRequest(suite=tested, prompt=prompt, model=self._model), advance)

    def _show(self, result: dict[str, Any], moves: Moved, *, first: bool) -> None:
        from rich.text import Text

        changes = [] if first else [f"{len(moves.broken)} broke", f"{len(moves.mended)} mended"]
        line = f"{result['suite']}: {result['passed']} of {result['total']} passed"
        style = "green" if result["verdict"] == "pass" else "red"
        self._out.print(Text(", ".join([line, *changes]), style=style))
        words = dict.fromkeys(moves.new_bad, "failed" if first else "new, failed")
        words |= dict.fromkeys(moves.broken, "broke") | dict.fromkeys(moves.mended, "mended")
        for text in self._cases(result["run_id"], words):
            self._out.print(Text(text))

    def _cases(self, run_id: str, words: Mapping[str, str]) -> Iterator[str]:
        if not words or self._work is None:
            return
        cases = {case["case_id"]: case for case in self._work.cases(run_id)}
        for case_id, word in list(words.items())[:SHOWN_CASES]:
            case = cases.get(case_id)
            why = (
                case["error"] or "; ".join(o["reason"] for o in case["outcomes"] if o["status"] != "passed")
                if case
                else ""
            )
            yield f"  case {case['index'] + 1 if case else '?'} {word}{': ' + why[:160] if why else ''}"
        if len(words) > SHOWN_CASES:
            yield f"  … and {len(words) - SHOWN_CASES} more"


def scene_of(found: Checked) -> Scene:
    """The scene of what a check could read."""
    return Scene(
        {name: (Path(source.document.path).resolve(), source.includes) for name, source in found.prompts.items()},
        {suite.name: (suite.suite.prompt, suite.sources) for suite in found.suites},
    )


def _refused(error: TurnoutError) -> dict[str, Any]:
    """What stopped a look, as JSON: the faults of turnout.yaml, or any other error in the shape of every command."""
    from prompts.errors import BadFile
    from service.cli.examining import check_data
    from service.cli.exits import of_error

    if isinstance(error, BadFile):
        return {**check_data(error.faults), "runs": []}
    return {"error": {"message": str(error), "exit_code": of_error(error)}}


def _print_line(data: dict[str, Any]) -> None:
    """One JSON document on one line of stdout, at once for whoever reads the pipe; in ASCII, control characters escaped."""
    from service.cli.output import documents

    sys.stdout.write(json.dumps(data).replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()
    documents.printed += 1


def _saved(changed: list[Path] | None, root: Path | None) -> str:
    if changed is None:
        return "everything"
    names = _shown(changed, root)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shown(changed: list[Path], root: Path | None) -> list[str]:
    """Files as they are told: from the project's folder on."""
    below = (root or Path.cwd()).resolve()
    return [str(path.relative_to(below) if path.is_relative_to(below) else path) for path in changed]


def _show_check(found: Checked, changed: list[Path] | None, shown_on: Console) -> None:
    """The faults of the files that were saved (None: of all), and how many the others have."""
    from prompts.wording import many
    from service.cli.output import err

    saved = None if changed is None else frozenset(changed)
    shown = [fault for fault in found.faults if saved is None or Path(fault.path).resolve() in saved]
    for fault in shown:
        err().print(str(fault), markup=False, style="red" if fault.level == "error" else None)
    others = [fault for fault in found.faults if fault not in shown]
    if others:
        errors = sum(fault.level == "error" for fault in others)
        err().print(
            f"other files: {many(errors, 'fault')}, {many(len(others) - errors, 'warning')}; `turnout check` tells them"
        )
    if not found.errors:
        counts = f"{many(len(found.prompts), 'prompt')} and {many(len(found.suites), 'suite')}"
        shown_on.print(f"check: {counts} are fine")
