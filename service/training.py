"""The training process as its parent sees it: started from a frozen spec, watched, started again when it dies.

While it runs, engines of the home that serve from its device give memory back (`engine_shares`), whoever it is that trains.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.plan import JobSpec, Measured, expected_s, make_plan, read_shape, read_spec
from prompts.errors import BadInput
from service.child import child_environment
from service.engine_shares import Share, on_device, shared
from service.errors import CannotRun

POLL_S = 0.1  # how soon its end, and the wish for it, are seen
LOOK_S = 0.5  # between two looks at what it tells
ATTEMPTS_WITHOUT_PROGRESS = 3
EXIT_REFUSED, EXIT_FAILED = 2, 4
MEASURED_FILE = "measured.json"
QUIET_EVENTS_S = 1.0  # steps come faster than anybody reads


def train(
    folder: Path, run_dir: Path, tell: Callable[..., None], check: Callable[[], None], told_lines: int
) -> dict[str, Any]:
    """Run `folder/spec.json` to its end; returns its last event `finished`, or `refused` or `diverged` with `reasons`.

    `refused` says in `param` whether the `examples` or the `model` is at fault.
    `tell` passes on the process's events beyond the first `told_lines`, `check` raises when the job is to end. The engines
    of `run_dir` share their memory until it has ended.
    Raises CannotRun where it dies again and again without getting further, or the disk is full.
    """
    with _room(folder, run_dir):
        return _run_to_end(folder, tell, check, told_lines)


def _room(folder: Path, run_dir: Path) -> AbstractContextManager[Sequence[Share]]:
    return shared(run_dir, read_spec(folder / "spec.json").device)


def _run_to_end(folder: Path, tell: Callable[..., None], check: Callable[[], None], told_lines: int) -> dict[str, Any]:
    log = _EventLog(folder / "training" / "events.jsonl", told_lines)
    fruitless, furthest = 0, -1
    while True:
        code = _run_once(folder, (), log, tell, check)
        ended = _ended(code, log.last())
        if ended is not None:
            return ended
        step = log.furthest_step()
        fruitless = 0 if step > furthest else fruitless + 1
        furthest = max(furthest, step)
        if fruitless >= ATTEMPTS_WITHOUT_PROGRESS:
            raise CannotRun(f"training died {fruitless} times at step {furthest}: exit {code}; {_tail(folder)}")
        tell("restarted", exit=code, from_step=max(step, 0))
        time.sleep(0.2 * (fruitless + 1))


def _ended(code: int, last: dict[str, Any]) -> dict[str, Any] | None:
    """How the process ended; None where it only died. Raises CannotRun where it says that it cannot go on."""
    if code == 0 and last.get("type") == "finished":
        return last
    if code == EXIT_REFUSED:
        reasons = last.get("reasons", ["the training process refused its spec"])
        return {"type": "refused", "reasons": reasons, "param": _at_fault(last)}
    if code == EXIT_FAILED and last.get("diverged"):
        return {"type": "diverged", "reasons": [str(last.get("message"))]}
    if code == EXIT_FAILED:
        raise CannotRun(str(last.get("message") or "the training process failed"))
    return None


def _at_fault(refused: Mapping[str, Any]) -> str:
    return "model" if refused.get("param") == "model" else "examples"


def measure(folder: Path, run_dir: Path, check: Callable[[], None]) -> tuple[Measured, list[Share]]:
    """What a few real steps of `folder/spec.json` took, in a process of their own, and the engines that made room for them.

    One that is killed is started again. Raises BadInput where the `examples` or the `model` (its param) are refused, CannotRun
    where it dies again and again.
    """
    with _room(folder, run_dir) as shares:
        measured = _measure(folder, check)
    return measured, on_device(shares, measured.device)


def figures(spec: JobSpec, measured: Measured, engines: Sequence[Share], decisions: Sequence[str]) -> dict[str, Any]:
    """What is told of a training before it begins: rows, recipe, search, memory, time, and why; `engines` are `measure`'s."""
    ways: dict[str, Any] = {"on_cuda": measured.device.startswith("cuda")}
    ways |= {"four_bit": spec.four_bit, "devices": spec.devices}
    cost = make_plan(read_shape(spec.base_folder), spec.recipe, spec.train, **ways)
    return {
        "train": len(spec.train),
        "dev": len(spec.dev),
        "recipe": spec.recipe.model_dump(),
        "search": spec.search.model_dump(mode="json"),
        "plan": cost.model_dump(),
        "measured": measured.model_dump(mode="json"),
        "training_s": round(expected_s(spec, measured), 1),
        "decisions": [*decisions, *map(str, engines)],
        "engines": [asdict(share) for share in engines],
    }


def _measure(folder: Path, check: Callable[[], None]) -> Measured:
    log = _EventLog(folder / "training" / "events.jsonl", 0)
    found = folder / MEASURED_FILE
    for _ in range(ATTEMPTS_WITHOUT_PROGRESS):
        code = _run_once(folder, ("--trial",), log, lambda *_, **__: None, check)
        if code == EXIT_REFUSED:
            last = log.last()
            raise BadInput("; ".join(last.get("reasons", [_tail(folder)])), param=_at_fault(last))
        if code == 0 and found.is_file():
            return Measured.model_validate_json(found.read_bytes())
        if code == EXIT_FAILED:
            break
    raise CannotRun(f"the trial step failed: exit {code}; {_tail(folder)}")


def _run_once(
    folder: Path, options: tuple[str, ...], log: _EventLog, tell: Callable[..., None], check: Callable[[], None]
) -> int:
    with (folder / "training.log").open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "finetune", *options, str(folder / "spec.json")],
            cwd=folder, env=child_environment(os.environ), stdin=subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    look_at_s = 0.0
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            if time.monotonic() >= look_at_s:
                look_at_s = time.monotonic() + LOOK_S
                log.pass_on(tell)
            check()
        log.pass_on(tell, everything=True)
        return process.returncode
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The child ends by itself when its input closes; it is killed where it does not."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


class _EventLog:
    """Reads the process's events.jsonl as it grows; lines passed on once are not passed on again.

    Each line is read once: a training of hours tells tens of thousands.
    """

    def __init__(self, path: Path, told_lines: int) -> None:
        self._path = path
        self._told = told_lines
        self._quiet_until = 0.0
        self._forget()

    def _forget(self) -> None:
        self._read_lines, self._read_bytes, self._last_line = 0, 0, b""

    def lines(self) -> Iterator[dict[str, Any]]:
        try:
            told = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in told.split(b"\n")[:-1]:  # what follows the last is half written; U+2028 ends no line
            yield json.loads(line)

    def pass_on(self, tell: Callable[..., None], *, everything: bool = False) -> None:
        fresh = [(number, event) for number, event in self._grown() if number > self._told]
        if not fresh:
            return
        now = time.monotonic()
        steps_wanted = everything or now >= self._quiet_until
        newest = fresh[-1][0]
        for number, event in fresh:
            if event["type"] != "step" or (steps_wanted and number == newest):
                tell("training", line=number, event=event)
        if steps_wanted:
            self._quiet_until = now + QUIET_EVENTS_S
        self._told = newest

    def _grown(self) -> list[tuple[int, dict[str, Any]]]:
        """The lines that came since, numbered from 1; all of them where the file was cut, as who goes on from a checkpoint does."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes - len(self._last_line))
                if file.read(len(self._last_line)) != self._last_line:
                    self._forget()
                    file.seek(0)
                whole = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        first = self._read_lines + 1
        if whole:
            self._last_line = whole[-1] + b"\n"
            self._read_lines += len(whole)
            self._read_bytes += sum(len(line) + 1 for line in whole)
        return [(number, json.loads(line)) for number, line in enumerate(whole, first)]

    def last(self) -> dict[str, Any]:
        events = list(self.lines())
        return events[-1] if events else {}

    def furthest_step(self) -> int:
        return max((event.get("done", 0) for event in self.lines()), default=0)


def _tail(folder: Path) -> str:
    lines = (folder / "training.log").read_text("utf-8", "replace").strip().splitlines()
    return f"see {folder / 'training.log'}: {lines[-1][:300]}" if lines else f"see {folder / 'training.log'}"
