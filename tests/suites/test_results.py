import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.messages import Usage
from suites.judge import Judged
from suites.outcomes import paired_statuses, statuses_data, statuses_of, with_ids
from suites.results import CaseResult, Price, Tally, case_status
from suites.rows import Place, Places
from suites.spilled import HELD, Spilled
from suites.statistics import percentile


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
    ids = ["00000000000000af", "ffffffffffffffff", "case-1", "00000000000000AF", "0x0000000000000f", "-00000000000001"]
    statuses = ["passed", "failed", "errored", "skipped", "passed", "failed"]
    tally = Tally()
    for index in order:
        tally.add(CaseResult(ids[index], index, 0, statuses[index], must_pass=index == 1))
    found = tally.summary(1.0).outcomes
    assert [(one.case_id, one.status, one.must_pass) for one in found] == [
        (ids[index], statuses[index], index == 1) for index in range(6)
    ]
    stored = statuses_data(found)
    assert stored == {"statuses": "pfespf"}
    assert statuses_of(with_ids(stored, ids)) == dict(zip(ids, statuses, strict=True))


def test_two_runs_are_paired_by_place_and_by_id_where_one_was_stored_with_ids():
    one, other = {"statuses": "pf-s"}, {"statuses": "fpp"}
    assert list(paired_statuses(one, other)) == [("passed", "failed"), ("failed", "passed")]
    ids = ["a", "b", "c", "d"]
    with_their_ids = with_ids(one, ids), with_ids(other, ids)
    assert list(paired_statuses(*with_their_ids)) == [("passed", "failed"), ("failed", "passed")]


def test_more_statuses_than_cases_are_refused():
    with pytest.raises(ValueError, match="zip"):
        statuses_of(with_ids({"statuses": "ppp"}, ["a", "b"]))


def test_places_are_found_again_however_far_apart_they_are():
    places, expected = Places(), []
    for path, line in [("a", 1), ("a", 2), ("a", 3), ("a", 7), ("a", 7), ("b", 7), ("b", 5), ("b", 3), ("a", 4)]:
        places.add(path, line)
        expected.append(Place(path, line))
    assert (len(places), list(places), places[2:4], places[-1]) == (9, expected, expected[2:4], ("a", 4))


def test_many_numbers_are_kept_in_a_file_and_given_back_as_they_were():
    numbers = [number / 7 for number in range(3 * HELD + 5)]
    found = Spilled("d")
    for number in numbers:
        found.append(number)
    assert (len(found), list(found)) == (len(numbers), numbers)
    assert [found[place] for place in (0, HELD - 1, HELD, -1)] == [numbers[place] for place in (0, HELD - 1, HELD, -1)]
    assert percentile(found, 95) == percentile(numbers, 95)


def test_many_cases_take_a_byte_each():
    tally, cases = Tally(), 20_000
    tracemalloc.start()
    for index in range(cases):
        tally.add(CaseResult(f"{index:016x}", index, 0, "passed", latency_ms=index / 7))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    summary = tally.summary(1.0)
    assert (summary.total, summary.passed, summary.p50_ms) == (cases, cases, 9999 / 7)
    assert [one.case_id for one in summary.outcomes] == [f"{index:016x}" for index in range(cases)]
    assert held < cases + 6 * 8 * HELD


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
