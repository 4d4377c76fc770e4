"""A number out of its range is told the range, with an example to write."""

import pytest

from prompts.errors import BadFile
from suites.case import Suite


def fault(**head):
    with pytest.raises(BadFile) as raised:
        Suite.from_data({"prompt": "p", "tests": [{"vars": {}, "assert": [{"type": "is-json"}]}], **head})
    (found,) = raised.value.faults
    return f"{found.message} ({found.fix})"


def of_assertion(**spec):
    return fault(tests=[{"vars": {}, "assert": [spec]}])


@pytest.mark.parametrize(
    ("head", "message", "fix"),
    [
        ({"thresholds": {"pass_rate": 90}}, "a share lies between 0 and 1, found 90", "(write 0.9)"),
        ({"thresholds": {"pass_rate": "85%"}}, "a share lies between 0 and 1, found '85%'", "(write 0.85)"),
        ({"thresholds": {"pass_rate": -1}}, "a share lies between 0 and 1, found -1", "(write 0.9 for 90%)"),
        ({"thresholds": {"pass_rate": True}}, "a share lies between 0 and 1, found True", "write 0.9"),
        ({"thresholds": {"p95_latency_ms": 0}}, "milliseconds, above 0, found 0", "2000 for two seconds"),
        ({"thresholds": {"p95_latency_ms": "2s"}}, "milliseconds, above 0, found '2s'", "2000"),
        ({"thresholds": {"cost_per_1k_usd": -1}}, "dollars (USD), from 0", "write 0.5"),
        ({"thresholds": {"metrics": {"a": 5}}}, "thresholds.metrics.a: a share", "write 0.05"),
        ({"gate": {"alpha": 0.9}}, "an error rate lies above 0 and up to 0.5", "0.05 for 5%"),
        ({"gate": {"margin": -1}}, "a share lies between 0 and 1, found -1", "write 0.02 for 2%"),
        ({"gate": {"max_error_share": "2 %"}}, "a share lies between 0 and 1, found '2 %'", "write 0.02"),
        ({"gate": {"min_cases": 0}}, "a number of cases, from 1", "50"),
        ({"gate": {"min_cases": 1.5}}, "a number of cases, from 1", "50"),
        ({"fallback": {"budget": {"minutes": 1e12}}}, "minutes, above 0 and up to a week", "10, say"),
        ({"fallback": {"budget": {"minutes": True}}}, "minutes, above 0 and up to a week", "10, say"),
        ({"repeat": 0}, "a number of repeats, from 1 to 100", "3"),
        ({"judge": {"floor": {"kappa": 2}}}, "above 0 and up to 1", "write 0.02"),
        ({"judge": {"floor": {"kappa": 0}}}, "above 0 and up to 1", "write 0.6"),
        ({"judge": {"votes": 99}}, "an odd number from 1 to 15", "3"),
    ],
)
def test_settings_of_a_suite(head, message, fix):
    found = fault(**head)
    assert message in found
    assert fix in found


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ({"type": "latency", "threshold": -1}, "milliseconds, from 0", "threshold: 2000"),
        ({"type": "latency"}, "needs a threshold in milliseconds", "threshold: 2000"),
        ({"type": "cost", "threshold": "low"}, "dollars (USD), from 0", "threshold: 0.002"),
        ({"type": "not-levenshtein", "value": "x", "threshold": -2}, "a number of edits", "threshold: 5"),
        ({"type": "llm-rubric", "value": "x", "threshold": -2}, "a share from 0 to 1", "threshold: 0.8"),
        ({"type": "llm-rubric", "value": "x", "threshold": 80}, "scores from 0 to 1", "such as 0.8"),
        ({"type": "llm-rubric", "value": "x", "threshold": 7}, "scores from 0 to 1", "such as 0.7"),
        ({"type": "is-json", "weight": -1}, "a weight is a number from 0", "weight: 2"),
    ],
)
def test_thresholds_and_weights_of_assertions(spec, message, fix):
    found = of_assertion(**spec)
    assert message in found
    assert fix in found
