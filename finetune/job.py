"""One training run: from a fresh LoRA to the best one it passes through.

Read `run` first. What it computes depends on the spec, the recipe and the step alone, so that a run that is killed
anywhere goes on from its newest checkpoint and ends as it would have.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from finetune import checkpoint, durable, memory, plan, ranks, scoring, sharding
from finetune.bench import Bench
from finetune.checkpoint import Progress, Tensors, Told
from finetune.encoding import EncodedRow
from finetune.model import precision, reset_lora, set_dropout
from finetune.plan import Point, Recipe
from finetune.step import accumulate
from prompts.errors import TurnoutError

CHECKPOINTS = "checkpoints"
_APART = 1_000_003  # between the random numbers of two ranks


class DivergedError(TurnoutError):
    """The loss of a run is no number any more."""


@dataclass(frozen=True)
class Task:
    """What one run trains: `recipe` on `train`, scored on `dev` after each step of `evaluate_at`.

    It ends at its last step, and before it where it `stops_early` and dev says so. What it leaves in the model is the best
    it passed through, or with `ships_last` its end. After each evaluation it `keep`s what it has come to.
    """

    name: str
    recipe: Recipe
    train: Sequence[EncodedRow]
    dev: Sequence[EncodedRow]
    evaluate_at: frozenset[int]
    stops_early: bool = True
    ships_last: bool = False
    keep: Callable[[Point], None] | None = None


@dataclass
class Book:
    """What the runs of a process have told and spent so far, and what is to be told when the next one begins.

    `untold` waits for that moment because a process that was killed tells nothing twice: what stands before a
    checkpoint, or before the record of a run that has ended, was told.
    """

    bench: Bench
    told: Told = field(default_factory=Told)
    untold: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    skipped: int = 0  # runs that had ended in a process before this one
    is_open: bool = False
    opened_s: float = field(default_factory=time.monotonic)

    def will_tell(self, kind: str, **details: Any) -> None:
        self.untold.append((kind, details))

    def skip(self, told: Told) -> None:
        """Pass over a run that had ended when so much was told."""
        self.told = told
        self.skipped += 1
        self.untold.clear()

    def open(self, name: str, checkpoint_step: int | None = None, told: Told | None = None) -> None:
        """Begin to tell: forget what was told after the newest state that was kept, and say what waits."""
        if told is not None:
            self.told = told
            self.untold.clear()
        if not self.is_open:
            self.bench.events.cut(self.told.events_bytes)
            self.opened_s = time.monotonic() - self.told.seconds
            self.is_open = True
            if checkpoint_step is not None or self.skipped:
                self.bench.events.tell("resumed", run=name, step=checkpoint_step or 0)
        for kind, details in self.untold:
            self.bench.events.tell(kind, **details)
        self.untold.clear()

    @property
    def seconds(self) -> float:
        """Of all processes that worked on this job, as far as their states were kept."""
        return time.monotonic() - self.opened_s

    def now(self, progress: Progress) -> Told:
        """What is told and spent by now, that of the run under way with it."""
        steps, tokens = self.told.steps + progress.step, progress.pack_tokens
        less = tokens if tokens < self.bench.spec.pack_tokens else 0
        return Told(self.bench.events.length_bytes(), self.seconds, steps, less)


def run(bench: Bench, task: Task, book: Book) -> Progress:
    """Train one task to its end, and leave its best LoRA in the model. Raises DivergedError and DiskFullError."""
    one = _Run(bench, task, book)
    one.resume_or_begin()
    try:
        while True:
            if one.evaluation_is_due():
                one.evaluate()
            if one.has_ended():
                break
            if one.checkpoint_is_due():
                one.save()
            one.take_step()
    finally:
        one.leave()
    one.tell_why_it_stopped()
    if not task.ships_last:
        one.restore_best()
    return one.progress


class _Run:
    """A run under way. Its state changes only while `guard.changing` is held, so that it can be saved at any moment."""

    def __init__(self, bench: Bench, task: Task, book: Book) -> None:
        self.bench, self.task, self.book, self.recipe = bench, task, book, task.recipe
        self.spec, self.events, self.guard = bench.spec, bench.events, bench.guard
        self.base, self.params = bench.base, bench.params
        self.steps = plan.total_steps(self.recipe, len(task.train))
        self.last_step = plan.last_step(self.recipe, len(task.train))
        self.checkpoints = self.spec.output_dir / CHECKPOINTS
        self.key = f"{self.spec.digest} {task.name}"
        self.progress = Progress(
            pack_tokens=min(book.told.pack_tokens or bench.spec.pack_tokens, ranks.room(bench.spec))
        )
        self.saved_step = -1
        self.optimizer: torch.optim.Optimizer

    # -- beginning

    def resume_or_begin(self) -> None:
        """Take up the newest checkpoint of this run, or start with the LoRA that its seed gives."""
        set_dropout(self.bench.model, self.recipe.dropout)
        reset_lora(self.bench.model, self.recipe.seed)
        decay = self.recipe.weight_decay
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=self.recipe.lr, weight_decay=decay, fused=True)
        found = checkpoint.load(self.checkpoints, self.key, self.params, self.optimizer)
        if found is None:
            if ranks.is_first():
                durable.remove(self.checkpoints)  # torn ones, or those of another run
            self.book.open(self.task.name)
        else:
            self.progress, told = found
            self.progress.pack_tokens = min(self.progress.pack_tokens, ranks.room(self.spec))
            self.saved_step = self.progress.step
            self.book.open(self.task.name, self.progress.step, told)
            self.book.told = replace(told, steps=told.steps - self.progress.step)
        with self.guard.changing:
            self.guard.on_stop, self._on_stop_before = self.cancel, self.guard.on_stop

    # -- one step

    def take_step(self) -> None:
        """One optimizer step on the next batch; its loss is the mean over the batch's labelled tokens."""
        step = self.progress.step + 1
        lr = plan.learning_rate_at(self.recipe, step, self.steps)
        rows = self._batch(step)
        wall_s, cpu_s = time.monotonic(), time.process_time()
        torch.manual_seed(self.recipe.seed + step + _APART * ranks.number())  # dropout's numbers follow from the step
        self.optimizer.zero_grad()
        asked_tokens = self.progress.pack_tokens
        of_batch = accumulate if ranks.count() == 1 else sharding.accumulate
        loss, packed_tokens, pack_tokens = of_batch(self.base, rows, asked_tokens)
        norm = float(clip_grad_norm_(self.params.values(), self.recipe.max_grad_norm))
        if not math.isfinite(loss + norm):
            why = f"step {step} gave the loss {loss} and the gradient norm {norm}"
            raise DivergedError(f"{why}: choose a learning rate below {self.recipe.lr}")
        with self.guard.changing:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.progress.step = step
            self.progress.losses.append(loss)
            if pack_tokens < asked_tokens:
                self.progress.pack_tokens = pack_tokens
                self.events.tell("out_of_memory", run=self.task.name, pack_tokens=asked_tokens, now=pack_tokens)
            self._tell_step(lr, rows, packed_tokens, time.monotonic() - wall_s, time.process_time() - cpu_s)

    def _tell_step(
        self, lr: float, rows: Sequence[EncodedRow], packed_tokens: int, wall_s: float, cpu_s: float
    ) -> None:
        step, tokens = self.progress.step, sum(len(row.ids) for row in rows)
        self.events.tell(
            "step",
            run=self.task.name,
            step=step,
            of=self.last_step,
            done=self.book.told.steps + step,  # of all runs
            loss=self.progress.losses[-1],
            lr=lr,
            tokens=tokens,
            packed_tokens=packed_tokens,
            tokens_per_s=round(tokens / wall_s, 1),
            tokens_per_cpu_s=round(tokens / max(cpu_s, 1e-9), 1),
            memory_bytes=memory.held_bytes(self.bench.device),
        )

    def _batch(self, step: int) -> list[EncodedRow]:
        """The rows of step 1, 2, …: each epoch is one shuffle that follows from the seed and the epoch's number."""
        rows, size = self.task.train, self.recipe.batch_size
        epoch, place = divmod(step - 1, plan.steps_per_epoch(self.recipe, len(rows)))
        generator = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(rows), generator=generator).tolist()
        return [rows[at] for at in order[place * size : (place + 1) * size]]

    # -- dev scores

    def evaluation_is_due(self) -> bool:
        done = self.progress.points[-1].step if self.progress.points else 0
        return bool(self.task.dev) and done < self.progress.step and self.progress.step in self.task.evaluate_at

    def evaluate(self) -> None:
        """Greedy answers against the expected ones; the most exact is best, ties go to the lower loss."""
        self.base.eval()
        limits = {"max_new_tokens": self.spec.max_new_tokens, "pack_tokens": self.progress.pack_tokens}
        with precision(self.bench.device):
            score = scoring.score(self.base, self.bench.tokenizer, self.task.dev, **limits)
        if not math.isfinite(score.loss):
            why = f"after step {self.progress.step} the dev loss is {score.loss}"
            raise DivergedError(f"{why}: choose a learning rate below {self.recipe.lr}")
        best, points = self.progress.best_point, self.progress.points
        better = best is None or (score.exact, -score.loss) > (best.dev_exact, -best.dev_loss)
        since = self.progress.losses[points[-1].step if points else 0 :]
        point = Point(
            step=self.progress.step,
            dev_exact=score.exact,
            dev_loss=score.loss,
            train_loss=sum(since) / len(since),
            best=better,
            dev_token_accuracy=score.token_accuracy,
            train_token_accuracy=self._train_token_accuracy(),
        )
        with self.guard.changing:
            points.append(point)
            if better:
                self.progress.best = {name: param.detach().cpu().clone() for name, param in self.params.items()}
            self.events.tell("evaluated", run=self.task.name, **point.model_dump())
            if self.task.keep is not None:
                self.task.keep(point)

    def _train_token_accuracy(self) -> float | None:
        """Of the batch just trained on; it costs a pass, so only where somebody keeps what the run passes through."""
        if self.task.keep is None:
            return None
        with precision(self.bench.device):
            return scoring.token_accuracy(self.base, self._batch(self.progress.step), self.progress.pack_tokens)

    def has_ended(self) -> bool:
        """After the last step, a perfect dev score twice in a row, or `patience` evaluations without a better one."""
        return self.progress.step >= self.last_step or (self.task.stops_early and self._dev_says_stop() != "")

    def _dev_says_stop(self) -> str:
        """Why, in words; empty where it does not."""
        points, best = self.progress.points, self.progress.best_point
        if len(points) >= 2 and all(one.dev_exact == 1.0 for one in points[-2:]):
            return "every dev answer was exact twice in a row"
        stale = len(points) - 1 - points.index(best) if best else 0
        if 0 < self.recipe.patience <= stale and best:
            return f"{stale} evaluations were not better than that after step {best.step}"
        return ""

    def tell_why_it_stopped(self) -> None:
        """The decision to stop before the last step, as an event."""
        step, best = self.progress.step, self.progress.best_point
        if step < self.last_step and best:
            figures = {"run": self.task.name, "step": step, "of": self.last_step, "best_step": best.step}
            self.events.tell("decision", what="stop early", because=self._dev_says_stop(), **figures)

    # -- durability

    def checkpoint_is_due(self) -> bool:
        every = self.spec.checkpoint_every_steps
        return every > 0 and self.progress.step % every == 0 and self.progress.step > max(0, self.saved_step)

    def save(self) -> None:
        if not ranks.is_first():
            self.saved_step = self.progress.step
            return
        with self.guard.changing:
            before = self.events.length_bytes()
            self.events.tell("checkpoint", run=self.task.name, step=self.progress.step)
            try:
                told = self.book.now(self.progress)
                checkpoint.save(self.checkpoints, self.key, self.progress, self.params, self.optimizer, told)
            except (OSError, TurnoutError):
                self.events.cut(before)
                raise
            self.saved_step = self.progress.step

    def cancel(self) -> None:
        """Called while the guard holds the state: save it unless that is done."""
        with contextlib.suppress(OSError, TurnoutError):  # the process ends in any case, with the checkpoint before
            if self.progress.step > max(0, self.saved_step):
                self.save()
            self.events.tell("cancelled", run=self.task.name, step=max(0, self.saved_step))

    # -- the end

    def leave(self) -> None:
        """From here on the model's state is not this run's to save."""
        with self.guard.changing:
            self.guard.on_stop = self._on_stop_before

    def restore_best(self) -> None:
        with torch.no_grad():
            for name, value in self.progress.best.items():
                self.params[name].copy_(value)


def state_of(bench: Bench) -> Tensors:
    """A copy of what is trained, as it stands."""
    return {name: param.detach().cpu().clone().contiguous() for name, param in bench.params.items()}
