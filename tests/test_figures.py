"""The page of figures says what was measured."""

from __future__ import annotations

from benchmarks import page


def test_the_page_is_made_of_the_results() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(), "run: .venv/bin/python -m benchmarks.page"


def test_a_missed_goal_is_told() -> None:
    assert page._goal(0.5, 0.3, most=True) == " (goal 0.3: missed)"
    assert page._goal(79, 85, most=False) == " (goal 85: missed)"
    assert page._goal(0.3, 0.3, most=True) == page._goal(85, 85, most=False) == ""
