import importlib
import inspect
import pkgutil
import re

import pytest

import prompts
from prompts import errors
from prompts.errors import (
    NOT_SHOWN,
    BadFile,
    BadInput,
    Fault,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    TurnoutError,
    shown_faults,
)


def raised_on_purpose():
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}


def drawn():
    """Names and their parents, as the docstring draws them."""
    parents, tree = {}, {}
    for line in errors.__doc__.split("```")[1].strip().splitlines():
        name = re.search(r"[A-Z]\w+", line)
        depth = name.start() // 4
        parents[depth] = name.group()
        tree[name.group()] = parents.get(depth - 1)
    return tree


def test_the_drawn_tree_is_the_tree():
    assert drawn() == {
        name: None if name == "TurnoutError" else kind.__base__.__name__ for name, kind in raised_on_purpose().items()
    }


def test_every_error_of_prompts_is_one_of_the_tree():
    for module in pkgutil.walk_packages(prompts.__path__, "prompts."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, BaseException) and kind.__module__.startswith("prompts."):
                assert issubclass(kind, TurnoutError)


def test_only_a_model_that_may_answer_later_is_asked_again():
    retryable = {name for name, kind in raised_on_purpose().items() if getattr(kind, "retryable", False)}
    assert retryable == {"ModelUnavailable", "ModelTimeout", "ModelOverloaded"}


def test_a_fault_says_where_what_and_how():
    assert str(Fault("a.yml", 3, "wrong", "mend it")) == "a.yml:3: wrong (mend it)"
    assert str(Fault("a.yml", 0, "wrong")) == "a.yml: wrong"


def test_faults_of_files_are_sorted_by_place_and_told_once():
    error = BadFile([Fault("b", 1, "x"), Fault("a", 10, "x"), Fault("a", 9, "x"), Fault("a", 9, "x")])
    assert str(error) == "a:9: x\na:10: x\nb:1: x"


def faults(path, count, level="error"):
    return [Fault(path, line, "x", level=level) for line in range(1, count + 1)]


def test_of_each_file_ten_thousand_faults_are_told_and_the_others_counted():
    shown = BadFile([*faults("b", 12_345), *faults("a", 3), *faults("c", 10_000)]).faults

    assert [sum(fault.path == path for fault in shown) for path in "abc"] == [3, 10_001, 10_000]
    assert str(shown[3 + 10_000]) == "b:10001: 2,345 more faults of this file are not shown (mend those before)"
    assert shown == shown_faults(reversed(shown))


def test_what_was_counted_once_stays_beside_what_is_found_later():
    shown = shown_faults([*shown_faults(faults("a", 10_500)), *faults("a", 10_050)])

    assert [fault.message for fault in shown if fault.rule == NOT_SHOWN] == [
        "50 more faults of this file are not shown", "500 more faults of this file are not shown",
    ]  # fmt: skip


def test_a_single_fault_too_many_is_told_as_its_count_would_be_no_shorter():
    assert [*shown_faults(faults("a", 10_001))] == faults("a", 10_001)


def test_faults_that_are_not_shown_still_refuse_the_file():
    late = Fault("a", 99_999, "wrong")
    warnings = faults("a", 10_500, "warning")

    assert shown_faults(warnings)[-1].level == "warning"
    assert shown_faults([*warnings, late])[-1].level == "error"


def test_errors_carry_what_a_caller_needs():
    assert BadInput("x", param="variables.a").param == "variables.a"
    assert ModelOverloaded("x", retry_after_s=2.5).retry_after_s == 2.5
    assert (ModelRefused("x", status=400, code="c").status, ModelRefused("x").code) == (400, None)
    with pytest.raises(ModelError, match="x"):
        raise ModelOverloaded("x")
