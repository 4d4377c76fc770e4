"""What is tried, what is chosen from it, and what the minutes allow: pure, no model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from finetune.plan import JobSpec, Judged, Point, Recipe, Row, Search, TrialResult, find_mislabelled
from finetune.plan.choosing import Pace, search_within
from finetune.plan.recipe import evaluation_steps, last_step, learning_rates, step_after
from finetune.plan.search import best_of, folds_of, median_seed, overfits, table_of

RATES = (5e-4, 1e-3, 2e-3)
PACE = Pace(load_s=10.0, train_row_s=0.1, score_row_s=0.05)


def draft(rows: int, dev_rows: int = 8, **changes: object) -> JobSpec:
    row = Row(messages=({"role": "user", "content": "hi"},), answer="ok")
    given = {"job_id": "j", "base_folder": Path("base"), "output_dir": Path("out"), "train": (row,) * rows}
    return JobSpec.model_validate({**given, "dev": (row,) * dev_rows, **changes})


# ------------------------------------------------------------------------------------------------ the record


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"folds": 1}, "choose 0 for no cross-validation, or at least 2"),
        ({"lr_grid": (1e-3,)}, "lr_grid need cross-validation"),
        ({"folds": 2, "lr_grid": (0.0,)}, "lr_grid must lie above 0"),
        ({"seeds": (0, 1)}, "give an odd number"),
        ({"seeds": (1, 1, 2)}, "different ones"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(fields: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        Search.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"clusters": (1, 2)}, "clusters has 2 entries for 20 rows"),
        ({"clusters": (0, 1) * 10, "search": Search(folds=3)}, "2 groups of rows cannot make 3 folds"),
        ({"search": Search(folds=2, epochs_grid=(6.0,))}, "exceeds the recipe's epochs of 5"),
        ({"search": Search(seeds=(0, 1, 2)), "dev": ()}, "several seeds need dev rows"),
    ],
)
def test_a_search_that_does_not_fit_the_rows_is_refused(fields: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        draft(20, **fields)


def test_the_digest_of_a_spec_covers_the_search_and_the_clusters_but_not_the_folder():
    spec = draft(4)
    assert spec.digest == draft(4, output_dir=Path("elsewhere")).digest
    assert len({spec.digest, draft(4, clusters=(0, 0, 1, 2)).digest, draft(4, search=Search(folds=2)).digest}) == 3


# ------------------------------------------------------------------------------------------------ steps


def test_a_run_that_stops_early_keeps_the_rate_of_the_whole_and_is_scored_at_its_end():
    recipe = Recipe(epochs=5, min_steps=1, evals_per_epoch=1)
    assert sorted(evaluation_steps(recipe, 80)) == [10, 20, 30, 40, 50]
    stopped = recipe.model_copy(update={"stop_after_epochs": 2.5})
    assert last_step(stopped, 80) == 25
    assert sorted(evaluation_steps(stopped, 80)) == [10, 20, 25]


@pytest.mark.parametrize("epochs", [0.3, 1, 2.5, 3, 7, 33.3])
@pytest.mark.parametrize("evals_per_epoch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("min_steps", [1, 60, 97])
def test_evaluations_are_the_first_steps_past_each_share(epochs: float, evals_per_epoch: int, min_steps: int):
    recipe = Recipe(epochs=epochs, evals_per_epoch=evals_per_epoch, min_steps=min_steps)
    last = last_step(recipe, 85)
    every = max(1.0, last / (epochs * evals_per_epoch))
    walked = {at for at in range(1, last) if int(at / every) > int((at - 1) / every)} | {last}
    assert evaluation_steps(recipe, 85) == walked


def test_where_min_steps_stretch_a_run_its_epochs_are_stretched_alike():
    recipe = Recipe(epochs=5, min_steps=60)
    assert [step_after(recipe, 16, epochs) for epochs in (1, 2.5, 5)] == [12, 30, 60]


@pytest.mark.parametrize(
    ("parameters", "rates"),
    [
        (135_000_000, (5e-4, 1e-3, 2e-3)),
        (1_500_000_000, (2e-4, 5e-4, 1e-3)),
        (7_000_000_000, (1e-4, 3e-4, 5e-4)),
    ],
)
def test_smaller_models_are_tried_with_higher_rates(parameters: int, rates: tuple[float, ...]):
    assert learning_rates(parameters) == rates


# ------------------------------------------------------------------------------------------------ folds


def test_folds_keep_clusters_whole_and_share_out_every_answer():
    clusters = [row // 2 for row in range(60)]
    answers = ["a" if row < 40 else "b" for row in range(60)]
    folds = folds_of(clusters, answers, 5, seed=7)
    assert all(folds[row] == folds[row + 1] for row in range(0, 60, 2))
    assert [folds.count(fold) for fold in range(5)] == [12] * 5
    assert [folds[:40].count(fold) for fold in range(5)] == [8] * 5
    assert folds != folds_of(clusters, answers, 5, seed=8)


def test_no_fold_is_empty_when_clusters_differ_much_in_size():
    assert set(folds_of([0] * 50 + [1, 2, 3, 4], ["x"] * 54, 5, seed=0)) == {0, 1, 2, 3, 4}


# ------------------------------------------------------------------------------------------------ choosing from results


def point(step: int, exact: float, dev: float, train: float = 1.0, best: bool = False) -> Point:
    return Point(step=step, dev_exact=exact, dev_loss=dev, train_loss=train, best=best)


def trial(candidate: int, lr: float, fold: int, *points: Point, rows: int = 10, diverged: str = "") -> TrialResult:
    known = {"dropout": 0.0, "weight_decay": 0.01, "seed": 0, "rows": rows}
    return TrialResult(
        name=f"trial-{candidate}-{fold}",
        candidate=candidate,
        lr=lr,
        fold=fold,
        points=points,
        diverged=diverged,
        **known,
    )


def test_the_rate_and_the_epochs_with_the_best_mean_over_the_folds_are_chosen():
    trials = [
        trial(0, 1e-3, 0, point(5, 0.2, 2.0), point(10, 0.5, 1.0)),
        trial(0, 1e-3, 1, point(5, 0.2, 2.0), point(10, 0.5, 1.0)),
        trial(1, 2e-3, 0, point(5, 0.9, 0.5), point(10, 0.6, 1.5), rows=30),
        trial(1, 2e-3, 1, point(5, 0.1, 0.5), point(10, 0.6, 1.5), rows=10),
    ]
    best = best_of(table_of(trials, (1.0, 2.0)))
    assert (best.lr, best.epochs) == (2e-3, 1.0)
    assert best.dev_exact == pytest.approx(0.7)  # 30 rows at 0.9, 10 at 0.1


def test_ties_go_to_the_lower_loss_and_then_to_the_fewer_epochs():
    slow = trial(0, 1e-3, 0, point(5, 0.5, 1.0), point(10, 0.5, 1.0))
    fast = trial(1, 2e-3, 0, point(5, 0.5, 1.1), point(10, 0.5, 0.9))
    assert best_of(table_of([slow, fast], (1.0, 2.0))).lr == 2e-3
    assert best_of(table_of([slow], (1.0, 2.0))).epochs == 1.0


def test_a_fold_that_diverged_counts_as_all_wrong_and_loses_ties():
    whole = trial(0, 1e-3, 0, point(5, 0.4, 1.0)), trial(0, 1e-3, 1, point(5, 0.0, 1.0))
    torn = trial(1, 2e-3, 0, point(5, 0.4, 0.1)), trial(1, 2e-3, 1, diverged="step 3 gave the loss nan")
    best = best_of(table_of([*torn, *whole], (1.0,)))
    assert (best.lr, best.dev_exact) == (1e-3, 0.2)
    assert best_of(table_of(torn, (1.0,))).dev_loss is None


def test_of_two_candidates_without_an_exact_answer_the_one_with_fewer_diverged_folds_is_chosen():
    all_torn = trial(0, 1e-3, 0, diverged="nan"), trial(0, 1e-3, 1, diverged="nan")
    torn = trial(1, 5e-4, 0, point(5, 0.0, 0.1)), trial(1, 5e-4, 1, diverged="nan")
    assert best_of(table_of([*all_torn, *torn], (1.0,))).lr == 5e-4


@pytest.mark.parametrize(
    ("scores", "median"),
    [
        ({0: (0.5, 1.0), 1: (0.9, 1.0), 2: (0.7, 1.0)}, 2),
        ({0: (0.5, 1.0), 1: (0.5, 3.0), 2: (0.5, 2.0)}, 2),
        ({0: (0.5, 1.0), 1: (0.0, None), 2: (0.7, 1.0)}, 0),
        ({4: (0.1, 1.0)}, 4),
    ],
)
def test_the_median_seed_ships(scores: dict[int, tuple[float, float | None]], median: int):
    assert median_seed(scores) == median


@pytest.mark.parametrize(
    ("dev", "train", "over"),
    [
        ((1.0, 1.03, 1.06), (0.9, 0.5, 0.2), True),
        ((1.0, 1.01, 1.02), (0.9, 0.5, 0.2), False),  # too little to mean anything
        ((1.0, 0.9, 1.2), (0.9, 0.5, 0.2), False),  # it rose once
        ((1.0, 1.1, 1.2), (0.9, 0.5, 0.6), False),  # the train loss did not fall
        ((1.0, 1.2), (0.9, 0.5), False),
    ],
)
def test_overfitting_is_a_dev_loss_that_rises_twice_while_the_train_loss_falls(
    dev: tuple[float, ...], train: tuple[float, ...], over: bool
):
    assert overfits([point(at, 0.5, *losses) for at, losses in enumerate(zip(dev, train, strict=True))]) is over


# ------------------------------------------------------------------------------------------------ mislabelled rows


def test_labels_that_were_swapped_are_found_far_better_than_by_chance():
    chance = random.Random(5)  # noqa: S311  a repeatable test, no secret
    truth = [chance.choice("abc") for _ in range(200)]
    swapped = set(chance.sample(range(200), 20))
    given = ["abc"[("abc".index(one) + 1) % 3] if row in swapped else one for row, one in enumerate(truth)]
    judged = []
    for row in range(200):
        right = min(-0.01, -abs(chance.gauss(0.3, 0.3)))  # the true label is likely, unless the model is unsure
        wrong = right - chance.uniform(0.5, 4)
        own, other = (wrong, right) if row in swapped else (right, None)
        answered = truth[row]
        judged.append(Judged(row=row, answered=answered, loss=-own / 2, log_likelihood=own, other_log_likelihood=other))
    found = {one.row for one in find_mislabelled(judged, given)}
    assert found <= swapped
    assert len(found) >= 10


def test_a_label_is_not_suspect_where_the_model_is_as_unsure_of_the_other():
    answers = ["a", "a", "b", "b"]
    judged = [
        Judged(row=0, answered="a", loss=0.1, log_likelihood=-0.1),
        Judged(row=1, answered="b", loss=2.0, log_likelihood=-2.0, other_log_likelihood=-1.0),
        Judged(row=2, answered="b", loss=0.1, log_likelihood=-0.1),
        Judged(row=3, answered="b", loss=0.1, log_likelihood=-0.1),
    ]
    assert find_mislabelled(judged, answers) == ()
    surer = judged[1].model_copy(update={"other_log_likelihood": -0.05})
    assert find_mislabelled([judged[0], surer, *judged[2:]], answers) == (surer,)


def test_free_text_is_suspect_when_it_is_wrong_and_its_loss_is_far_out():
    answers = [f"sentence {row}" for row in range(9)]
    usual = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 9.0, 9.0]
    judged = [
        Judged(row=row, answered="else" if row != 8 else answers[8], loss=loss, log_likelihood=-loss)
        for row, loss in enumerate(usual)
    ]
    assert [one.row for one in find_mislabelled(judged, answers)] == [7]


# ------------------------------------------------------------------------------------------------ what the minutes allow


def chosen(rows: int, minutes: float, fixed: frozenset[str] = frozenset(), **changes: object) -> tuple[Search, str]:
    search, why = search_within(draft(rows, **changes), RATES, PACE, minutes=minutes, fixed=fixed)
    return search, "\n".join(why)


def test_a_small_set_with_time_gets_cross_validation_and_three_seeds():
    search, why = chosen(100, 60)
    assert search == Search(
        lr_grid=RATES, epochs_grid=(1, 2, 3, 4, 5), folds=5, seeds=(0, 1, 2), find_mislabelled=True, regularise=True,
        minutes=60,
    )  # fmt: skip
    assert "5-fold cross-validation of 100 rows for the rates 0.0005, 0.001, 0.002 and 1 to 5 epochs" in why
    assert "3 seeds, of which the median ships" in why


def test_less_time_takes_fewer_folds_then_seeds_alone_then_one_run():
    assert chosen(100, 15)[0].folds == 3
    seeds, why = chosen(100, 5)
    assert (seeds.folds, seeds.seeds) == (0, (0, 1, 2))
    assert "no cross-validation: about" in why
    once, why = chosen(100, 1.5)
    assert (once.folds, once.seeds) == (0, (0,))
    assert "no 3 seeds: about" in why
    assert "no look for mislabelled rows: about" in why


def test_minutes_are_told_to_a_tenth():
    assert "the 0.7 minutes" in chosen(100, 2 / 3)[1]
    assert "of the 60 minutes" in chosen(100, 60)[1]


def test_a_run_that_takes_more_than_its_minutes_is_told_as_such():
    why = chosen(100, 0.1)[1]
    assert ", more than the 0.1 minutes that it may" in why
    assert "more would not fit into them, too" in why


def test_larger_sets_are_not_cross_validated_but_looked_through_for_mislabelled_rows():
    search, why = chosen(150, 60)
    assert (search.folds, search.seeds, search.lr_grid, search.epochs_grid) == (3, (0, 1, 2), (1e-3,), (5.0,))
    assert search.find_mislabelled
    assert "it is for fewer than 150 rows, and there are 150" in why
    assert chosen(200, 60)[0].seeds == (0,)


def test_what_an_expert_gave_is_not_searched():
    search, why = chosen(100, 600, frozenset({"lr", "seed"}), recipe=Recipe(lr=4e-3, seed=9))
    assert (search.lr_grid, search.seeds, len(search.epochs_grid)) == ((4e-3,), (9,), 5)
    assert "one seed: 9 is given" in why
    search, why = chosen(100, 600, frozenset({"epochs"}), recipe=Recipe(epochs=4))
    assert (search.lr_grid, search.epochs_grid) == (RATES, (4.0,))
    assert chosen(100, 600, frozenset({"dropout"}))[0].regularise is False
    search, why = chosen(100, 600, frozenset({"lr", "epochs"}))
    assert (search.lr_grid, search.folds) == ((1e-3,), 3)  # only to look for mislabelled rows
    assert "no cross-validation: the rate and the epochs are given" in why


def test_rows_that_resemble_each_other_make_fewer_folds_or_none():
    assert chosen(40, 600, clusters=tuple(row // 5 for row in range(40)))[0].folds == 3
    search, why = chosen(40, 600, clusters=tuple(row // 10 for row in range(40)))
    assert search.folds == 0
    assert "only 4 groups that do not resemble each other" in why
