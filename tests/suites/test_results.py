import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.messages import Usage
from suites.judge import Judged
from suites.outcomes import statuses_data, statuses_of
from suites.results import CaseResult, Price, Tally, case_status


@pytest.mark.parametrize(
    ("counts", "needed", "status"),
    [
        ({"passed": 3}, 3, "passed"),
        ({"passed": 2, "failed": 1}, 2, "passed"),
        ({"passed": 2, "failed": 1}, 3, "failed"),
        ({"passed": 2, "errored": 1}, 3, "errored"),
        ({"passed": 1, "failed": 1, "errored": 1}, 3, "failed"),
        ({"passed": 1, "skipped": 2}, 2, "skipped"),
        ({"passed": 2, "skipped": 1}, 2, "passed"),
    ],
)
def test_repeats_make_one_outcome_and_say_so_where_they_could_have_gone_either_way(counts, needed, status):
    assert case_status(counts, needed) == status


@given(st.permutations(range(6)))
def test_outcomes_keep_ids_of_any_kind_and_are_put_in_the_order_of_the_suite(order):
    ids = ["00000000000000af", "ffffffffffffffff", "case 1", "00000000000000AF", "0x0000000000000f", "-00000000000001"]
    statuses = ["passed", "failed", "errored", "skipped", "passed", "failed"]
    tally = Tally()
    for index in order:
        tally.add(CaseResult(ids[index], index, 0, statuses[index], must_pass=index == 1))
    found = tally.summary(1.0).outcomes
    assert [(one.case_id, one.status, one.must_pass) for one in found] == [
        (ids[index], statuses[index], index == 1) for index in range(6)
    ]
    assert statuses_of(statuses_data(found[:2])) == {"00000000000000af": "passed", "ffffffffffffffff": "failed"}


def test_a_summary_counts_cases_and_means_over_completions():
    tally = Tally(repeat=2, passes_needed=1)
    for repeat, (status, score) in enumerate([("passed", 1.0), ("failed", 0.0)]):
        outcome = (Judged("equals", "queue", 1.0, status, score, ""),)
        usage = Usage(10, 2)
        tally.add(
            CaseResult(
                "a", 0, repeat, status, outcomes=outcome, latency_ms=10.0 * (repeat + 1), usage=usage, cost_usd=0.001
            )
        )
    for repeat in range(2):
        lost = (Judged("equals", "queue", 1.0, "errored", None, "no answer"),)
        tally.add(CaseResult("b", 1, repeat, "errored", outcomes=lost, error="gone", retries=2))
    summary = tally.summary(seconds=1.5)
    assert (summary.total, summary.passed, summary.failed, summary.errored, summary.skipped) == (2, 1, 0, 1, 0)
    assert summary.pass_rate == 0.5
    assert summary.flaky == ("a",)
    assert (summary.p50_ms, summary.p95_ms) == (10.0, 20.0)
    assert summary.cost_per_1k_usd == pytest.approx(1.0)
    assert summary.retries == 4
    assert summary.first_error == "gone"
    data = json.loads(json.dumps(summary.as_dict()))
    assert data["metrics"] == {"queue": {"score": 0.5, "passed": 1, "total": 4, "errored": 2}}
    assert data["tokens"] == {"prompt": 20, "completion": 4}
    assert data["ci95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert "outcomes" not in data


def test_a_run_of_nothing_has_no_pass_rate():
    summary = Tally().summary(0.0)
    assert (summary.pass_rate, summary.ci95, summary.p50_ms, summary.cost_per_1k_usd) == (None, None, None, None)


def test_a_result_survives_json():
    judged = (Judged("equals", "m", 2.0, "passed", 1.0, "as expected"), Judged("equals", "m", 1.0, "failed", 0.0, "no"))
    result = CaseResult("a", 3, 1, "failed", 0.5, judged, "text", 1.5, Usage(1, 2, 3), 0.1, "", 1, ("t",), True)
    data = json.loads(json.dumps(result.as_dict()))
    assert data["metrics"] == {"m": pytest.approx(2 / 3)}
    assert CaseResult.from_dict(data) == result


def test_a_price_is_for_a_million_tokens():
    assert Price(0.15, 0.60).cost_usd(Usage(1000, 100)) == pytest.approx(0.00021)


@given(st.lists(st.sampled_from(["passed", "failed", "errored", "skipped"]), max_size=60))
def test_every_case_is_accounted_for(statuses):
    tally = Tally()
    for index, status in enumerate(statuses):
        tally.add(CaseResult(str(index), index, 0, status))
    summary = tally.summary(0.0)
    assert summary.total == len(statuses)
    assert summary.passed + summary.failed + summary.errored + summary.skipped == summary.total
    assert [outcome.status for outcome in summary.outcomes] == statuses
