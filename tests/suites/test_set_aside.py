"""Cases that a suite skips, and facts that only assertions see."""

from __future__ import annotations

import asyncio

import pytest

from prompts.messages import Completion
from service.evaluation import run_verdict
from suites.case import Suite
from suites.detail import gate_input
from suites.gate import decide
from suites.runner import run_suite
from suites.verdicts import Side

GOOD = {"vars": {"q": "a"}, "assert": [{"type": "equals", "value": "yes"}]}
SKIPPED = {"vars": {"q": "b"}, "skip": "no such assertion here"}


def run(*tests, answer="yes", **head):
    suite = Suite.from_data({"prompt": "p", "tests": list(tests), **head})
    results = []

    async def ask(case, _):
        assert case.vars["q"] != "b", "a skipped case was asked"
        return Completion(text=answer)

    summary = asyncio.run(run_suite(suite.tests, ask, on_result=results.append))
    return suite, summary, results


def verdict(*tests, **more):
    suite, summary, _ = run(*tests, **more)
    side = Side.from_run("p@1+m", summary)
    return gate_input("s", suite, side, None)


def test_a_skipped_case_is_not_asked_and_says_why():
    _, summary, results = run(GOOD, SKIPPED)
    assert (summary.passed, summary.skipped, summary.set_aside, summary.pass_rate) == (1, 1, 1, 1.0)
    assert [result.error for result in results] == ["", "skipped by the suite: no such assertion here"]


@pytest.mark.parametrize("head", [{}, {"thresholds": {"pass_rate": 1.0}}])
def test_neither_a_run_nor_a_gate_passes_with_one(head):
    given = verdict(GOOD, SKIPPED, **head)
    found = run_verdict(given)
    assert found["verdict"] == "inconclusive"
    assert "1 case is skipped by the suite" in found["reasons"][0]
    if head:
        assert decide(given).verdict == "inconclusive"


def test_a_failure_goes_before_and_all_skipped_is_no_error():
    assert run_verdict(verdict(GOOD, SKIPPED, answer="no"))["verdict"] == "fail"
    assert run_verdict(verdict(SKIPPED))["verdict"] == "inconclusive"


def test_facts_are_seen_by_assertions_alone_and_belong_to_what_a_case_is():
    test = {"vars": {"q": "a"}, "facts": {"wish": "yes"}, "assert": [{"type": "equals", "value": "{{ wish }}"}]}
    suite, summary, _ = run(test)
    assert summary.passed == 1
    assert suite.tests[0].vars == {"q": "a"}
    other = Suite.from_data({"prompt": "p", "tests": [{**test, "facts": {"wish": "no"}}]})
    assert other.tests[0].id != suite.tests[0].id
    assert Suite.from_data(suite.as_data()).digest == suite.digest


def test_without_either_nothing_of_a_case_changes():
    suite = Suite.from_data({"prompt": "p", "tests": [GOOD]})
    assert suite.tests[0].as_data() == GOOD
