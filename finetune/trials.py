"""The runs of one job in their order: trials by cross-validation, then the final seeds.

Each run that has ended leaves a record in `trials/`; a process that comes after it takes the record for the run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from finetune import durable, job, plan, ranks, scoring, snapshots
from finetune.bench import Bench
from finetune.checkpoint import Progress, Tensors, Told
from finetune.encoding import EncodedRow
from finetune.job import Book, DivergedError, Task
from finetune.model import precision
from finetune.plan import Judged, Recipe, SeedResult, TrialResult
from finetune.plan.mislabelled import are_labels
from finetune.plan.search import Scored, best_of, folds_of, median_seed, overfits, table_of

TRIALS = "trials"
_FIRST_STEPS = 5  # the first losses are averaged over so many batches
_DROPOUT, _WEIGHT_DECAY = 0.1, 0.05  # against overfitting


@dataclass(frozen=True)
class Found:
    """What the search settled on. Without cross-validation: the spec's recipe and nothing else."""

    recipe: Recipe
    table: tuple[Scored, ...] = ()
    mislabelled: tuple[dict[str, Any], ...] = ()


# ------------------------------------------------------------------------------------------------ cross-validation


def search(bench: Bench, book: Book) -> Found:
    """Try what the spec's search asks for, and choose. Raises DivergedError where every candidate diverged."""
    spec, wanted = bench.spec, bench.spec.search
    if not wanted.folds:
        return Found(spec.recipe)
    candidates = [spec.recipe.model_copy(update={"lr": lr}) for lr in wanted.lr_grid or (spec.recipe.lr,)]
    results = [result for at, one in enumerate(candidates) for result in _candidate(bench, book, at, one)]
    best = best_of(table_of(results, _epochs(spec)))
    if wanted.regularise and (tamed := _tamed(spec.recipe, best, results, book)):
        results += _candidate(bench, book, len(candidates), tamed)
        best = best_of(table_of(results, _epochs(spec)))
    table = table_of(results, _epochs(spec))
    if all(one.diverged for one in results):
        raise DivergedError(f"every rate tried diverged: choose one below {min(one.lr for one in table):g}")
    recipe = _recipe_of(spec.recipe, best)
    _tell_choice(book, best, table, recipe)
    suspects = _suspects(bench, book, [one for one in results if one.candidate == best.candidate])
    return Found(recipe, table, suspects)


def _epochs(spec: plan.JobSpec) -> tuple[float, ...]:
    return spec.search.epochs_grid or (spec.recipe.stop_after_epochs or spec.recipe.epochs,)


def _tamed(recipe: Recipe, best: Scored, results: Sequence[TrialResult], book: Book) -> Recipe | None:
    """The best candidate with dropout and more weight decay, where most of its folds overfit."""
    folds = [one for one in results if one.candidate == best.candidate]
    over = sum(overfits(one.points) for one in folds)
    if 2 * over <= len(folds):
        return None
    changes = {"dropout": max(recipe.dropout, _DROPOUT), "weight_decay": max(recipe.weight_decay, _WEIGHT_DECAY)}
    said = f"in {over} of {len(folds)} folds the loss on rows left out rose while the train loss fell"
    because = f"{said}: the same rate is tried with dropout {changes['dropout']:g} and weight decay"
    because = f"{because} {changes['weight_decay']:g}"
    counted = {"overfitting_folds": over, "folds": len(folds)}
    book.will_tell("decision", what="regularise", run=_run_of(best.candidate), because=because, **counted, **changes)
    return recipe.model_copy(update={**changes, "lr": best.lr})


def _recipe_of(recipe: Recipe, best: Scored) -> Recipe:
    changes = {name: getattr(best, name) for name in ("lr", "dropout", "weight_decay")}
    stop = best.epochs if best.epochs < recipe.epochs else 0.0
    return recipe.model_copy(update={**changes, "stop_after_epochs": stop})


def _tell_choice(book: Book, best: Scored, table: Sequence[Scored], recipe: Recipe) -> None:
    others = [one for one in table if one.candidate != best.candidate]
    rival = best_of(others) if others else None
    than = f"; the next best candidate, {_named(rival)}, has {rival.dev_exact:.1%}" if rival else ""
    because = f"over the folds {_named(best)} answers {best.dev_exact:.1%} of the rows left out exactly{than}"
    details = {"lr": best.lr, "epochs": best.epochs, "dropout": best.dropout, "weight_decay": best.weight_decay}
    scores = {"dev_exact": best.dev_exact, "dev_loss": best.dev_loss, "recipe": recipe.model_dump()}
    book.will_tell("decision", what="recipe", run=_run_of(best.candidate), because=because, **details, **scores)


def _run_of(candidate: int) -> str:
    """What the names of a candidate's runs begin with; one of each fold follows."""
    return f"trial-{candidate}"


def _named(one: Scored) -> str:
    dropout = f" with dropout {one.dropout:g}" if one.dropout else ""
    return f"the rate {one.lr:g}{dropout} after {one.epochs:g} epochs"


def _candidate(bench: Bench, book: Book, number: int, recipe: Recipe) -> list[TrialResult]:
    """One recipe in every fold."""
    spec = bench.spec
    clusters = spec.clusters or tuple(range(len(spec.train)))
    answers = [row.answer.strip() for row in spec.train]
    fold_of = folds_of(clusters, answers, spec.search.folds, spec.recipe.seed)
    return [_trial(bench, book, number, recipe, fold, fold_of) for fold in range(spec.search.folds)]


def _trial(bench: Bench, book: Book, number: int, recipe: Recipe, fold: int, fold_of: Sequence[int]) -> TrialResult:
    name, left_out = f"{_run_of(number)}-{fold}", [row for row, its in enumerate(fold_of) if its == fold]
    train = [one for one, its in zip(bench.train, fold_of, strict=True) if its != fold]
    recipe = recipe.model_copy(update={"stop_after_epochs": max(_epochs(bench.spec))})
    at = [plan.step_after(recipe, len(train), epochs) for epochs in _epochs(bench.spec)]
    dev = [bench.train[row] for row in left_out]
    task = Task(name, recipe, train, dev, frozenset(at), stops_early=False)
    known = {name: getattr(recipe, name) for name in ("lr", "dropout", "weight_decay", "seed")}
    known |= {"name": name, "candidate": number, "fold": fold, "rows": len(left_out)}

    def work() -> tuple[Progress, TrialResult]:
        try:
            progress = job.run(bench, task, book)
        except DivergedError as error:
            return Progress(), TrialResult(**known, diverged=str(error))
        points = {point.step: point for point in progress.points}
        judged = judge(bench, left_out, progress.pack_tokens) if bench.spec.search.find_mislabelled else ()
        return progress, TrialResult(**known, points=tuple(points[step] for step in at), judged=judged)

    return once(bench, book, name, work)


def once(bench: Bench, book: Book, name: str, work: Callable[[], tuple[Progress, TrialResult]]) -> TrialResult:
    """The record of a trial that has ended, or the trial, its event and its record."""
    path = folder_of(bench) / f"{name}.json"
    record = read_record(path, bench.spec.digest)
    if record is not None:
        book.skip(Told(**record["told"]))
        return TrialResult.model_validate(record["result"])
    progress, result = work()
    last = result.points[-1] if result.points else None
    scores = {"dev_exact": last.dev_exact if last else 0.0, "dev_loss": last.dev_loss if last else None}
    recipe = {"lr": result.lr, "dropout": result.dropout, "weight_decay": result.weight_decay}
    details = {"recipe": recipe, "fold": result.fold, "seed": result.seed, "diverged": result.diverged or None}
    bench.events.tell("trial", name=name, **details, **scores)
    write_record(bench, book, path, progress, result.model_dump(mode="json"))
    return result


# ------------------------------------------------------------------------------------------------ rows that look wrong


def judge(bench: Bench, rows: Sequence[int], pack_tokens: int) -> tuple[Judged, ...]:
    """What the model as it stands, which did not see these rows, says about their answers."""
    bench.base.eval()
    asked = [bench.train[row] for row in rows]
    longest = max(len(row.labels) for row in bench.train)  # an answer beyond it is none that is known
    limits = {"max_new_tokens": min(bench.spec.max_new_tokens, longest), "pack_tokens": pack_tokens}
    with precision(bench.device):
        losses = scoring.row_losses(bench.base, asked, pack_tokens)
        answered = scoring.answers(bench.base, bench.tokenizer, asked, **limits)
        others = _with_other_labels(bench, asked, answered)
        of_others = scoring.row_losses(bench.base, [*others.values()], pack_tokens) if others else []
    other = {at: -loss * len(others[at].labels) for at, loss in zip(others, of_others, strict=True)}
    return tuple(
        Judged(
            row=row,
            answered=answered[at],
            loss=losses[at],
            log_likelihood=-losses[at] * len(asked[at].labels),
            other_log_likelihood=other.get(at),
        )
        for at, row in enumerate(rows)
    )


def _with_other_labels(bench: Bench, asked: Sequence[EncodedRow], answered: Sequence[str]) -> dict[int, EncodedRow]:
    """By place in `asked`: the row with the label that was answered, where another row has it."""
    known = {row.answer.strip(): row for row in bench.train}
    if not are_labels([row.answer for row in bench.train]):
        return {}
    return {
        at: replace(row, ids=(*row.prompt, *known[text.strip()].labels), answer=text)
        for at, (row, text) in enumerate(zip(asked, answered, strict=True))
        if text.strip() != row.answer.strip() and text.strip() in known
    }


def _suspects(bench: Bench, book: Book, results: Sequence[TrialResult]) -> tuple[dict[str, Any], ...]:
    """The rows that look mislabelled: told, and kept in `trials/mislabelled.json`. None is left out of the training."""
    if not bench.spec.search.find_mislabelled:
        return ()
    answers = [row.answer for row in bench.spec.train]
    judged = [one for result in results for one in result.judged]
    rows = tuple(
        {"row": one.row, "expected": answers[one.row], "answered": one.answered, "loss": one.loss}
        for one in plan.find_mislabelled(judged, answers)
    )
    content = {"spec": bench.spec.digest, "judged": len(judged), "rows": list(rows)}
    _keep(folder_of(bench) / "mislabelled.json", durable.as_json(content))
    book.will_tell("mislabelled", judged=len(judged), rows=list(rows))
    return rows


# ------------------------------------------------------------------------------------------------ the final runs


def final(bench: Bench, book: Book, recipe: Recipe) -> tuple[SeedResult, tuple[SeedResult, ...]]:
    """Train every seed on all rows and leave the median one's LoRA in the model; gives it, and all of them.

    Raises DivergedError where it, or the only one, diverged.
    """
    seeds = bench.spec.search.seeds or (recipe.seed,)
    results = {seed: _seed(bench, book, recipe.model_copy(update={"seed": seed})) for seed in seeds}
    scores = {seed: (one.dev_exact or 0.0, one.dev_loss) for seed, one in results.items()}
    chosen = results[median_seed(scores)]
    if len(seeds) > 1:
        _tell_seed(book, chosen, [*results.values()])
    if chosen.diverged:
        raise DivergedError(chosen.diverged)
    ranks.wait()  # until the first rank has written them
    tensors = safetensors.torch.load_file(tensors_path(bench, chosen.seed))
    for name, param in bench.params.items():
        param.data.copy_(tensors[name])
    return chosen, tuple(results.values())


def _seed(bench: Bench, book: Book, recipe: Recipe) -> SeedResult:
    path, tensors = folder_of(bench) / f"seed-{recipe.seed}.json", tensors_path(bench, recipe.seed)
    record = read_record(path, bench.spec.digest)
    if record is not None and (not record["tensors"] or has_digest(tensors, record["tensors"])):
        book.skip(Told(**record["told"]))
        return SeedResult.model_validate(record["result"])
    at = plan.evaluation_steps(recipe, len(bench.train))
    keep = functools.partial(snapshots.keep, bench, recipe) if bench.spec.snapshots else None
    last = bench.spec.ships == "last"
    task = Task(_run_of_seed(recipe.seed), recipe, bench.train, bench.dev, at, not last, ships_last=last, keep=keep)
    try:
        progress = job.run(bench, task, book)
    except DivergedError as error:
        failed = SeedResult(seed=recipe.seed, diverged=str(error))
        write_record(bench, book, path, Progress(), failed.model_dump(mode="json"), tensors="")
        return failed
    result = _result(recipe, progress, plan.steps_per_epoch(recipe, len(bench.train)), ships_last=last)
    digest = write_tensors(tensors, job.state_of(bench))
    write_record(bench, book, path, progress, result.model_dump(mode="json"), tensors=digest)
    return result


def _result(recipe: Recipe, progress: Progress, steps_per_epoch: int, *, ships_last: bool) -> SeedResult:
    first, last = progress.losses[:_FIRST_STEPS], progress.losses[-steps_per_epoch:]
    best = progress.points[-1] if ships_last and progress.points else progress.best_point
    return SeedResult(
        seed=recipe.seed,
        steps=progress.step,
        best_step=best.step if best else progress.step,
        dev_exact=best.dev_exact if best else None,
        dev_loss=best.dev_loss if best else None,
        train_loss_first=sum(first) / len(first),
        train_loss_last=sum(last) / len(last),
        points=tuple(progress.points),
    )


def _tell_seed(book: Book, chosen: SeedResult, results: Sequence[SeedResult]) -> None:
    shown = {f"{one.seed}": "diverged" if one.diverged else f"{one.dev_exact:.1%}" for one in results}
    listed = ", ".join(f"seed {seed} {score}" for seed, score in shown.items())
    because = f"the median of {len(results)} seeds ships, since the best is partly luck: {listed}"
    scores = {"dev_exact": chosen.dev_exact, "dev_loss": chosen.dev_loss}
    book.will_tell("decision", what="seed", run=_run_of_seed(chosen.seed), because=because, seed=chosen.seed, **scores)


def _run_of_seed(seed: int) -> str:
    return f"seed-{seed}"


# ------------------------------------------------------------------------------------------------ records


def folder_of(bench: Bench) -> Path:
    return bench.spec.output_dir / TRIALS


def tensors_path(bench: Bench, seed: int) -> Path:
    return folder_of(bench) / f"seed-{seed}.safetensors"


def read_record(path: Path, spec_digest: str) -> dict[str, Any] | None:
    """The record at `path`, where it is one of this spec."""
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if record.get("spec") == spec_digest else None


def write_record(
    bench: Bench, book: Book, path: Path, progress: Progress, result: dict[str, Any], **known: Any
) -> None:
    """Keep what a run gave, and how far the job had come with it."""
    told = book.now(progress)
    _keep(path, durable.as_json({"spec": bench.spec.digest, "told": asdict(told), "result": result, **known}))
    book.told = told


def write_tensors(path: Path, tensors: Tensors) -> str:
    content = safetensors.torch.save(tensors, {"format": "pt"})
    _keep(path, content)
    return durable.sha256_of_bytes(content)


def _keep(path: Path, content: bytes) -> None:
    """Write a record; of several ranks only the first does."""
    if ranks.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, content)


def has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and durable.sha256_of(path) == digest
