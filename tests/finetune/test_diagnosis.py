"""What a finished attempt's figures say, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.plan import Figures, Point, Recipe, diagnose, figures_of

SMALL = 135_000_000


def points(*rows: tuple[int, float, float, float]) -> tuple[Point, ...]:
    """(step, dev_exact, dev_loss, train_loss), the best marked as a run marks it."""
    found: list[Point] = []
    for step, exact, dev, train in rows:
        better = all((exact, -dev) > (one.dev_exact, -one.dev_loss) for one in found)
        found.append(Point(step=step, dev_exact=exact, dev_loss=dev, train_loss=train, best=better))
    return tuple(found)


FLAT = points((20, 0.7, 0.5, 0.10), (40, 0.7, 0.5, 0.10), (60, 0.7, 0.5, 0.10))


def figures(**known: Any) -> Figures:
    given = {"recipe": Recipe(), "parameter_count": SMALL, "train_count": 96, "steps": 60, "train_loss_first": 2.0}
    return Figures.model_validate({**given, "evaluations": FLAT, "dev_exact": 0.7, "best_step": 20, **known})


CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a win needs no change": ({"passed": True, "diverged": True}, "reached the bar", {}),
    "a diverged run is slowed down": ({"diverged": True, "recipe": Recipe(lr=1e-3)}, "diverged", {"lr": 3.33e-4}),
    "by far too fast a run goes to the rate of its size": (
        {"diverged": True, "recipe": Recipe(lr=1)}, "diverged", {"lr": 1e-3},
    ),
    "so does one that learned nothing at such a rate": (
        {
            "recipe": Recipe(lr=0.333), "dev_before": 0.0, "dev_exact": 0.0,
            "evaluations": points((20, 0.0, 0.7, 0.72), (40, 0.0, 0.7, 0.72), (60, 0.0, 0.7, 0.72)),
        },
        "rate too high",
        {"lr": 1e-3},
    ),
    "a gain at such a rate is one": (
        {"recipe": Recipe(lr=0.004), "dev_before": 0.2, "dev_exact": 0.7}, "saturated", {},
    ),
    "epochs end at what a recipe allows": (
        {
            "recipe": Recipe(lr=2e-3, epochs=600, min_steps=600_000), "dev_exact": 0.3,
            "evaluations": points((20, 0.1, 1.9, 1.9), (40, 0.2, 1.8, 1.8), (60, 0.3, 1.6, 1.5)),
        },
        "underfit",
        {"epochs": 1000.0, "min_steps": 1_000_000, "stop_after_epochs": 0.0},
    ),
    "noisy labels come before any tuning": ({"mislabelled": tuple(range(10))}, "noisy data", {}),
    "so do contradictions": ({"conflicts_share": 0.2}, "noisy data", {}),
    "a dev loss that turned is overfitting": (
        {
            "best_step": 24,
            "evaluations": points((12, 0.5, 0.9, 0.8), (24, 0.6, 0.6, 0.5), (36, 0.6, 0.7, 0.3), (48, 0.6, 0.9, 0.1)),
        },
        "overfit",
        {
            "dropout": 0.1, "weight_decay": 0.05, "rank": 8, "alpha": 16.0,
            "epochs": 2.0, "stop_after_epochs": 0.0, "min_steps": 24,
        },
    ),
    "not where the answers still became better": (
        {
            "best_step": 48, "dev_exact": 0.8,
            "evaluations": points((12, 0.5, 0.9, 0.8), (24, 0.6, 0.6, 0.5), (36, 0.7, 0.7, 0.3), (48, 0.8, 0.9, 0.1)),
        },
        "underfit",
        {"epochs": 10.0, "min_steps": 120, "stop_after_epochs": 0.0},
    ),
    "a slow run that still learns gets a higher rate": (
        {"evaluations": points((20, 0.1, 1.9, 1.9), (40, 0.2, 1.8, 1.8), (60, 0.3, 1.6, 1.5)), "dev_exact": 0.3},
        "underfit",
        {"lr": 2e-3},
    ),
    "at the highest rate it gets more epochs": (
        {
            "recipe": Recipe(lr=2e-3), "dev_exact": 0.3,
            "evaluations": points((20, 0.1, 1.9, 1.9), (40, 0.2, 1.8, 1.8), (60, 0.3, 1.6, 1.5)),
        },
        "underfit",
        {"epochs": 10.0, "min_steps": 120, "stop_after_epochs": 0.0},
    ),
    "a train loss that stays high lacks capacity": (
        {"evaluations": points((20, 0.1, 1.6, 1.5), (40, 0.1, 1.6, 1.5), (60, 0.1, 1.6, 1.5)), "dev_exact": 0.1},
        "capacity",
        {"rank": 32, "alpha": 64.0, "lr": 1.5e-3},
    ),
    "a gain on dev alone asks for examples": (
        {"dev_before": 0.2, "heldout_before": 0.3, "heldout_after": 0.4, "bar": 0.8}, "too little data", {},
    ),
    "no gain anywhere and nothing moving is the end": ({"dev_before": 0.7}, "saturated", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_pattern_of_figures_has_its_cause_and_its_change(case: str):
    known, kind, changes = CASES[case]
    found = diagnose(figures(**known))
    assert (found.kind, found.changes) == (kind, changes)
    assert found.try_again is bool(changes)
    assert found.because
    Recipe.model_validate(Recipe().model_dump() | found.changes)


def test_what_was_tried_before_is_not_tried_again():
    slow = {"evaluations": CASES["a slow run that still learns gets a higher rate"][0]["evaluations"]}
    found = diagnose(figures(**slow, tried=(Recipe(), Recipe(lr=2e-3))))
    assert (found.kind, found.changes) == ("saturated", {})
    assert "what would help against it was tried before" in found.because


def test_the_end_says_where_the_loss_stands_and_calls_no_high_loss_low():
    high = points((20, 0.7, 0.5, 0.72), (40, 0.7, 0.5, 0.72), (60, 0.7, 0.5, 0.72))
    because = diagnose(figures(dev_before=0.7, evaluations=high)).because
    assert because == "the train loss went from 2.000 to 0.720, and dev shows no more gain"


def test_noisy_data_names_the_rows_and_bounds_the_list():
    advice = diagnose(figures(mislabelled=tuple(range(30)))).advice
    assert advice.startswith("correct or remove examples 0, 1, 2,")
    assert ", 19, …, then start again" in advice


def test_a_perfect_dev_score_is_not_underfit():
    rising = points((20, 0.5, 1.0, 1.0), (40, 0.8, 0.5, 0.5), (60, 1.0, 0.2, 0.2))
    known = {"dev_exact": 1.0, "dev_before": 0.1, "heldout_before": 0.1, "heldout_after": 0.4}
    assert diagnose(figures(evaluations=rising, **known)).kind == "too little data"


def test_the_manifest_alone_gives_the_figures():
    scores = {
        "train_count": 96, "steps": 60, "best_step": 20, "dev_exact": 0.7, "dev_loss": 0.5, "train_loss_first": 2.0,
        "train_loss_last": 0.1, "evaluations": [one.model_dump() for one in FLAT], "seeds": [],
        "mislabelled": [{"row": 4, "expected": "a", "answered": "b", "loss": 3.0}],
    }  # fmt: skip
    found = figures_of(Recipe().model_dump(), scores, parameter_count=SMALL)
    assert (found.evaluations, found.mislabelled, found.train_loss_last) == (FLAT, (4,), 0.1)
    assert figures_of(Recipe().model_dump(), {"dev_exact": None}, parameter_count=1, train_count=9).dev_exact is None
