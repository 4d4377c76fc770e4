"""Some real steps of a job before it starts: what they take here, and how the job fits into the memory there is.

The ways are tried in this order: one device; several that share the base model; a base model in 4 bits. Where the model
fits on one GPU, and the steps to come would repay it, compiled layers are tried as well.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from finetune import compiling, durable, memory, plan, quantize, ranks
from finetune.bench import prepare, set_up
from finetune.encoding import refusal
from finetune.events import Events, NoEvents
from finetune.guard import LOST, Guard
from finetune.model import weights_dtype
from finetune.plan import JobSpec, Measured
from finetune.step import OutOfMemoryError
from finetune.trial import SHARE, Trial, gib, name_of
from prompts.errors import BadInput

MEASURED_FILE = "measured.json"
DONE, REFUSED, FAILED = 0, 2, 4
_LOST_WAIT_S = 2.0
_APART_S = 900.0  # a trial apart that takes longer hangs


def run(spec: JobSpec, folder: Path, guard: Guard, started_s: float) -> int:
    """Measure a job for `folder`; `started_s` is when the process began (monotonic). Gives the exit code."""
    spec.output_dir.mkdir(parents=True, exist_ok=True)
    events = Events(spec.output_dir / "events.jsonl")
    try:
        measured = measure(spec, events, guard, started_s)
    except BadInput as error:
        events.tell("refused", **refusal(error))
        return REFUSED
    except ranks.RankOutOfMemoryError as error:
        print(error, file=sys.stderr)  # noqa: T201  whoever tries this way asks for no more than that it does not fit
        return LOST
    except Exception as error:  # noqa: BLE001  the process ends here: its parent reads events, not tracebacks
        traceback.print_exc()
        if spec.devices > 1 and guard.lost.wait(_LOST_WAIT_S):
            return LOST
        events.tell("failed", message=f"{type(error).__name__}: {error}")
        return FAILED
    durable.write_file(folder / MEASURED_FILE, measured.model_dump_json(indent=1).encode())
    return DONE


def be_rank(spec: JobSpec, guard: Guard, seat: ranks.Seat) -> int:
    """Be one of the other ranks of a trial on several devices."""
    try:
        _try(spec, NoEvents(), guard, time.monotonic(), seat)
    except ranks.RankOutOfMemoryError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return LOST
    return DONE


def measure(spec: JobSpec, events: Events, guard: Guard, started_s: float) -> Measured:
    """What steps of `spec` take. The model that took them is worth nothing and is not kept."""
    device = prepare(spec)
    too_large = "" if spec.four_bit else _too_large(spec, device)
    found = _does_not_fit(spec, device, too_large) if too_large else _try(spec, events, guard, started_s)
    if spec.devices > 1 or spec.four_bit or spec.compile:
        return found
    _free()
    if found.fits:
        return _with_devices(_perhaps_compiled(spec, found), device)
    shared = _shared(spec, found, device)
    if shared.fits or not quantize.is_possible(device):
        return shared
    why = too_large or "without it not even one example fits into the free memory"
    found = _try(spec.model_copy(update={"four_bit": True}), events, guard, started_s)
    chosen = (f"a base model in 4 bits: {why}", *found.decisions) if found.fits else ()
    return found.model_copy(update={"decisions": chosen})


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no CUDA


def _too_large(spec: JobSpec, device: torch.device) -> str:
    """Why the weights alone do not fit, which is known before they are loaded; empty where they do."""
    needed = _weights_bytes(spec, device, spec.devices)
    free = memory.free_bytes(device)
    return "" if needed <= SHARE * free else f"its weights take {gib(needed)}, and {gib(free)} are free here"


def _weights_bytes(spec: JobSpec, device: torch.device, devices: int) -> int:
    width = weights_dtype(device).itemsize
    return plan.read_shape(spec.base_folder).weights_bytes(width, four_bit=spec.four_bit, devices=devices)


def _try(spec: JobSpec, events: Events, guard: Guard, started_s: float, seat: ranks.Seat | None = None) -> Measured:
    if spec.devices == 1:
        return _steps(spec, events, guard, started_s, None)
    with ranks.helped(guard):
        return _steps(spec, events, guard, started_s, seat)


def _steps(spec: JobSpec, events: Events, guard: Guard, started_s: float, seat: ranks.Seat | None) -> Measured:
    bench = set_up(spec, events, guard, seat, "--trial")
    trial = Trial(bench, time.monotonic() - started_s)
    chosen = trial.choose()
    if isinstance(chosen, str):
        return _does_not_fit(spec, bench.device, chosen)
    try:
        return trial.result(chosen)
    except OutOfMemoryError as error:
        return _does_not_fit(spec, bench.device, str(error))


# ------------------------------------------------------------------------------------------------ other ways, tried apart


def _shared(spec: JobSpec, alone: Measured, device: torch.device) -> Measured:
    """The same on all devices, which share the weights; as `alone`, where there is one or they do not fit there either."""
    devices = memory.device_count(device)
    if devices == 1:
        return alone
    needed, free = _weights_bytes(spec, device, 1), memory.free_bytes(torch.device("cpu"))
    if device.type != "cpu" and needed > SHARE * free:
        return _nor(alone, devices, f"main memory must hold it once: {gib(needed)}, and {gib(free)} are free")
    ended = ""
    for checkpointed in (False, True):
        ways = {"devices": devices, "gradient_checkpointing": checkpointed}
        found, ended = _apart(spec.model_copy(update=ways), f"shared-{int(checkpointed)}", _APART_S)
        if found is not None and found.fits:
            return found.model_copy(update={"decisions": (_why_shared(spec, found, device), *found.decisions)})
    return _nor(alone, devices, ended or "even with gradient checkpointing")


def _nor(alone: Measured, devices: int, why: str) -> Measured:
    return alone.model_copy(
        update={"reason": f"{alone.reason}; nor do {devices} devices that share it hold it ({why})"}
    )


def _why_shared(spec: JobSpec, found: Measured, device: torch.device) -> str:
    alone, each = (_weights_bytes(spec, device, devices) for devices in (1, found.devices))
    free = ", ".join(gib(count) for count in found.device_free_bytes)
    checkpointed = ", with gradient checkpointing" if found.gradient_checkpointing else ""
    return (
        f"{found.devices} devices share the base model{checkpointed}, since one alone does not hold the training: "
        f"{gib(each)} of its {gib(alone)} on each; free are {free}"
    )


def _with_devices(found: Measured, device: torch.device) -> Measured:
    devices = memory.device_count(device)
    if devices == 1:
        return found
    why = f"one of {devices} devices: the training fits on it, and nothing is gained by sharing its weights"
    return found.model_copy(update={"decisions": (*found.decisions, why)})


def _perhaps_compiled(spec: JobSpec, found: Measured) -> Measured:
    """`found`, with compiled layers where they were tried and repay their compiling."""
    if not compiling.is_possible(found):
        return found
    steps = plan.total_steps(spec.recipe, len(spec.train))
    if why_not := compiling.not_worth_trying(found, steps):
        return found.model_copy(update={"decisions": (*found.decisions, why_not)})
    limit_s = compiling.limit_s(found, steps)
    ways = {**found.ways(), "compile": True}
    compiled, ended = _apart(spec.model_copy(update=ways), "compiled", limit_s)
    return compiling.better_of(found, compiled, steps, ended)


def _apart(spec: JobSpec, name: str, limit_s: float) -> tuple[Measured | None, str]:
    """A trial of other ways in a process of its own, which ends with this one; what it found, or how it ended without."""
    folder = spec.output_dir / name
    spec = spec.model_copy(update={"output_dir": folder / "training"})
    plan.write_spec(spec, folder / "spec.json")
    (folder / MEASURED_FILE).unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "finetune", "--trial", str(folder / "spec.json")]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE) as process:  # noqa: S603  our own interpreter
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return None, f"given up after {limit_s:.0f} s"
    if code != DONE:
        return None, "out of memory" if code == LOST else f"it ended with {code}"
    return Measured.model_validate_json((folder / MEASURED_FILE).read_bytes()), ""


def _does_not_fit(spec: JobSpec, device: torch.device, why: str) -> Measured:
    extra = quantize.way_out(device)
    way_out = f"{f'{extra}, ' if extra else ''}free memory, shorten the longest example, or choose a smaller base model"
    held = "does not even fit with a base model in 4 bits" if spec.four_bit else "does not fit"
    reason = f"the training {held}: {why}; {way_out}"
    none = dict.fromkeys(("load_s", "step_s", "largest_step_s", "row_s", "score_row_s", "tokens_per_s"), 0.0)
    return Measured(
        **none,
        device=str(device),
        precision=name_of(weights_dtype(device)),
        peak_bytes=memory.peak_bytes(device),
        free_bytes=memory.held_bytes(device) + memory.free_bytes(device),
        pack_tokens=spec.pack_tokens,
        four_bit=spec.four_bit,
        fits=False,
        reason=reason,
    )
