import copy
import json

import pytest

from prompts.prompt import digest_of
from suites.gate import decide_all, promotion_evidence, read_evidence
from suites.results import CaseResult
from suites.verdicts import GateInput, Side
from suites.verification import differences, sides_with_runs, verify_family, verify_record, verify_side
from tests.suites.test_gate import LETTERS, gate, repeated, scored, side


def record(evidence):
    content = json.loads(json.dumps(evidence.model_dump(mode="json")))
    beside = {"verdict": evidence.decision.verdict, "candidate": evidence.given.candidate.variant}
    return {"id": "ev_1_0", "kind": evidence.kind, "content": content, "digest": digest_of(content), **beside}


def examples():
    plain = gate("f" * 5 + "p" * 15, "p" * 20, thresholds={"pass_rate": 0.9}, must_pass=("c003",))
    graded = gate(scored([0.5] * 8 + [0.9] * 4), scored([0.7] * 12, "support.triage@1+m"), on="score", suite="t")
    flaky = gate(repeated(["ppp"] * 5), repeated(["ppf"] + ["ppp"] * 4, "support.triage@1+m"), suite="u")
    return [*decide_all([plain, graded, flaky]), promotion_evidence(plain, 2)]


def numbers(value, path=()):
    """The place of every number within plain data."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numbers(item, (*path, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def changed(content, path):
    forged = copy.deepcopy(content)
    holder = forged
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] += 1 if isinstance(holder[path[-1]], int) else 1e-6
    return forged


@pytest.mark.parametrize("number", range(4))
def test_a_record_as_it_was_written_holds(number):
    assert verify_record(record(examples()[number])) == []


# the second example holds scores: each check draws its bootstrap anew
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.integration), 2, 3])
def test_any_number_that_is_changed_is_found(number):
    """By the digest wherever it is; where it follows from the rest, also when the digest was made anew."""
    whole = record(examples()[number])
    places = list(numbers(whole["content"]))
    assert len(places) > 15
    for path in places:
        forged = {**whole, "content": changed(whole["content"], path)}
        assert verify_record(forged), path
        if path[0] == "decision":
            found = verify_record({**forged, "digest": digest_of(forged["content"])})
            assert found, path
            assert found[0].path.startswith("content.decision.")


def test_a_difference_names_its_place_and_both_values():
    whole = record(examples()[0])
    whole["content"]["decision"]["p_value"] = 0.5
    [digest, p_value] = verify_record(whole)
    assert digest.path == "digest"
    assert (p_value.path, p_value.stored) == ("content.decision.p_value", 0.5)
    assert p_value.recomputed == pytest.approx(3 / 32)


@pytest.mark.parametrize(("name", "value"), [("verdict", "pass"), ("candidate", "other@1+m"), ("kind", "promotion")])
def test_what_stands_beside_the_content_is_compared_with_it(name, value):
    assert [found.path for found in verify_record({**record(examples()[0]), name: value})] == [name]


def test_content_that_is_no_evidence_is_told():
    content = {"kind": "gate", "given": {}}
    forged = {"kind": "gate", "content": content, "digest": digest_of(content), "verdict": "pass", "candidate": "x"}
    [found] = verify_record(forged)
    assert (found.path, found.stored) == ("content", "what no decision follows from")


def test_a_reason_of_a_person_has_its_digest_alone():
    content = {"candidate": "a@1+m", "reason": "first", "actor": "key_1"}
    manual = {"kind": "manual", "content": content, "digest": digest_of(content)}
    assert verify_record(manual) == []
    assert [f.path for f in verify_record({**manual, "content": {**content, "reason": "other"}})] == ["digest"]


def test_the_p_values_of_other_suites_are_those_of_their_own_evidence():
    first, second, third, _ = examples()
    assert verify_family(first, [second, third]) == []
    [found] = verify_family(first, [second, second])
    assert (found.path, found.stored) == ("content.others[1]", 1.0)


def run_of(letters, latencies_ms=None, cost_usd=0.001):
    """Stored results of a run with one repeat; skipped cases have none."""
    for number, letter in enumerate(letters):
        if letter != "s":
            latency_ms = (latencies_ms or {}).get(number, 10.0)
            yield CaseResult(
                f"c{number:03}", number, 0, LETTERS[letter], score=1.0, latency_ms=latency_ms, cost_usd=cost_usd
            )


def test_a_side_that_its_run_bears_out_has_no_differences():
    given = gate(side("pfes", p95_latency_ms=10.0, cost_per_1k_usd=1.0, run_id="run_1"), "pppp")
    assert verify_side(given, "candidate", run_of("pfes")) == []


def test_a_side_that_its_run_does_not_bear_out_is_told_case_by_case():
    given = gate(side("ppes", p95_latency_ms=10.0, cost_per_1k_usd=1.0, run_id="run_1"), "pppp")
    found = verify_side(given, "candidate", run_of("pfesp", {0: 99.0}))
    assert [(each.path, each.stored, each.recomputed) for each in found] == [
        ("content.given.candidate.outcomes.c001", "passed", "failed"),
        ("content.given.candidate.outcomes.c004", "nothing", "passed"),
        ("content.given.candidate.p95_latency_ms", 10.0, 99.0),
    ]


def test_scores_and_repeats_of_a_side_are_those_of_its_run():
    results = [
        CaseResult("c0", 0, n, status, score=s) for n, (status, s) in enumerate([("passed", 1.0), ("failed", 0.5)])
    ]
    stored = Side(variant="v", outcomes={"c0": "passed"}, scores={"c0": 0.75}, repeats={"c0": (1, 1, 0)})
    given = GateInput(suite="s", candidate=stored, repeat=2, passes_needed=1, settings={"on": "score"})
    assert verify_side(given, "candidate", results) == []
    forged = given.model_copy(update={"candidate": stored.model_copy(update={"scores": {"c0": 0.9}})})
    assert [found.path for found in verify_side(forged, "candidate", results)] == ["content.given.candidate.scores.c0"]


def test_numbers_that_differ_in_their_last_digits_are_the_same():
    assert list(differences({"a": [0.1 + 0.2, 1]}, {"a": [0.3, 1.0]})) == []
    assert [found.path for found in differences([2**52], [2**52 + 1])] == ["[0]"]
    assert [found.path for found in differences({"a": [1, True]}, {"a": [1, 1]})] == ["a[1]"]
    assert [found.path for found in differences([1], [1, 2], "x")] == ["x"]


def test_the_runs_of_a_decision_are_named_where_they_are_known():
    evidence = decide_all([gate(side("pp", run_id="run_1"), "pp")])[0]
    assert sides_with_runs(read_evidence(evidence.model_dump(mode="json"))) == {"candidate": "run_1"}
