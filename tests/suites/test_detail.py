import pytest

from prompts.errors import BadFile
from prompts.yaml_source import load_yaml
from suites.case import Suite
from suites.detail import Wanted, gate_input, with_detail
from suites.files import load_suite
from suites.judge import Judged
from suites.results import CaseResult
from suites.verdicts import Repeats, Side

QUEUE = {"type": "equals", "value": "a", "metric": "queue"}


def suite(tests, **more):
    return Suite.from_data({"prompt": "support.triage", "tests": tests, **more})


def case(number, *asserts, **more):
    return {"vars": {"x": str(number)}, "assert": list(asserts) or [QUEUE], **more}


def result(found, repeat=0, status="passed", score=1.0, queue=None, index=0):
    outcomes = () if queue is None else (Judged("equals", "queue", 1.0, "passed", queue, ""),)
    return CaseResult(found.id, index, repeat, status, score=score, outcomes=outcomes)


def test_most_suites_want_nothing_beyond_outcomes():
    assert not Wanted.of_suite(suite([case(1)], thresholds={"pass_rate": 0.9}))
    assert Wanted.of_suite(suite([case(1)], repeat=2)).repeats
    assert Wanted.of_suite(suite([case(1)], gate={"on": "score"})).scores


def test_a_metric_is_asked_of_the_cases_that_have_it_also_within_a_set():
    members = {"type": "assert-set", "assert": [{"type": "contains", "value": "b", "metric": "queue"}]}
    found = suite([case(1), case(2, members), case(3, {"type": "is-json"})], thresholds={"metrics": {"queue": 0.5}})
    ids = [each.id for each in found.tests]
    assert Wanted.of_suite(found).metrics == {"queue": {ids[0], ids[1]}}


def test_detail_is_the_mean_over_repeats_with_errored_ones_as_nothing():
    found = suite([case(1), case(2), case(3)], repeat=2, gate={"on": "score"}, thresholds={"metrics": {"queue": 0.5}})
    one, two, three = found.tests
    results = [
        result(one, 0, "passed", 1.0, queue=1.0),
        result(one, 1, "failed", 0.5, queue=0.5),
        result(two, 0, "passed", 0.8, queue=0.8),
        result(two, 1, "errored", None),
        result(three, 0, "errored", None),
        result(three, 1, "errored", None),
        result(three, 1, "skipped", None),
    ]
    side = with_detail(Side(variant="v", outcomes={}), iter(results), Wanted.of_suite(found))
    assert side.repeats == {one.id: (1, 1, 0), two.id: (1, 0, 1), three.id: (0, 0, 2)}
    assert side.scores == {one.id: 0.75, two.id: 0.4, three.id: 0.0}
    assert side.metrics == {"queue": {one.id: 0.75, two.id: 0.4, three.id: None}}
    assert [side.repeats[each.id].disagree for each in (one, two, three)] == [True, False, False]


def test_what_a_verdict_needs_of_the_cases_is_in_its_input():
    found = suite(
        [case(1, tags=["billing", "late"], must_pass=True), case(2, tags=["billing"], description="late parcel")],
        repeat=3, pass_k=2, thresholds={"tags": {"billing": 0.5}},
    )  # fmt: skip
    one, two = found.tests
    baseline = Side(variant="b", outcomes={}, repeats={one.id: Repeats(3), two.id: Repeats(1, 2)})
    given = gate_input("s", found, Side(variant="c", outcomes={}), baseline)
    assert given.tags == {"billing": (one.id, two.id)}
    assert (given.must_pass, given.titles) == ((one.id,), {two.id: "late parcel"})
    assert (given.repeat, given.passes_needed, given.clusters) == (3, 2, {})
    alone = gate_input("s", found, Side(variant="c", outcomes={}), needs_must_pass=False)
    assert (alone.tags, alone.must_pass, alone.titles) == (given.tags, (), {})


def test_cases_that_ask_the_same_or_name_one_cluster_are_drawn_together():
    tests = [
        case(1),
        case(1, {"type": "is-json"}),
        case(2, cluster="x"),
        case(3, cluster="x"),
        case(4, cluster="y"),
        case(5),
    ]
    found = suite(tests, gate={"on": "score"})
    side = Side(variant="v", outcomes={})
    clusters = gate_input("s", found, side, side).clusters
    names = [clusters.get(each.id) for each in found.tests]
    assert names[0] == names[1] is not None
    assert names[2:] == ["named x", "named x", None, None]
    assert gate_input("s", found, side).clusters == {}


def test_a_cluster_is_no_part_of_what_a_case_asks():
    plain, named = suite([case(1)]), suite([case(1, cluster="x")])
    assert plain.tests[0].id == named.tests[0].id
    assert plain.digest != named.digest
    assert Suite.from_data(named.as_data()).tests[0].cluster == "x"


def test_thresholds_that_no_case_has_are_faults_with_their_line(tmp_path):
    path = tmp_path / "s.suite.yml"
    path.write_text(
        "prompt: support.triage\nthresholds:\n  metrics:\n    queue: 0.9\n    quue: 0.9\n  tags:\n    billing: 0.5\n"
        "tests:\n  - {vars: {x: a}, assert: [{type: equals, value: a, metric: queue}]}\n"
    )
    with pytest.raises(BadFile) as raised:
        load_suite(path, tmp_path)
    assert [(fault.line, fault.message, fault.fix) for fault in raised.value.faults] == [
        (5, "thresholds.metrics.quue: no case has this metric", "did you mean 'queue'?"),
        (7, "thresholds.tags.billing: no case has this tag", "no case has a tag: remove this"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("thresholds: {metrics: {queue: 90}}", 2, "a share lies between 0 and 1"),
        ("thresholds: {tags: [billing]}", 2, "expected keys and values"),
        ("gate: {on: scores}", 2, "pass or score"),
    ],
)
def test_bad_thresholds_and_gates_are_told_with_their_line(text, line, told):
    document = load_yaml(f"prompt: p\n{text}\ntests:\n  - {{vars: {{x: a}}, assert: [{{type: is-json}}]}}\n", "s.yml")
    with pytest.raises(BadFile) as raised:
        Suite.from_document(document)
    assert [fault.line for fault in raised.value.faults] == [line]
    assert told in raised.value.faults[0].message
