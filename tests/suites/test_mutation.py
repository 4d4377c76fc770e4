"""The trial of `benchmarks.mutation`: its edits are what they say they are, and its counts are the gate's own."""

import json
from collections import Counter

import pytest

from benchmarks import mutation
from benchmarks.mutation import TASKS, Edit, Trial, edits, figures, of_some, run, verdicts_at
from prompts.errors import TurnoutError
from prompts.formats.prompt_yml import load_prompt
from prompts.prompt import compile_prompt
from prompts.registry import nothing_registered, resolve_all
from suites.verdicts import GateInput, Side

VALUES = {"tone": {"review": "The soup was cold."}, "kind": {"thing": "harbour"}}


def unchanged(task):
    return (TASKS / "prompts" / f"{task}.prompt.yml").read_text("utf-8")


def sent(task, text):
    """What a model is asked by a prompt file; None where it is none."""
    try:
        content = resolve_all({task: load_prompt(text, task, task)}, nothing_registered)[task]
        return [m.as_dict() for m in compile_prompt(content).render(VALUES[task])], content.request_parameters()
    except TurnoutError:
        return None


def test_there_are_thirty_faults_and_ten_inert_edits_of_different_names():
    assert Counter(edit.kind for edit in edits()) == {"faults": 30, "inert": 10}
    assert len({(edit.task, edit.name) for edit in edits()}) == 40


@pytest.mark.parametrize("edit", edits(), ids=lambda edit: f"{edit.task}-{edit.name}")
def test_a_fault_changes_what_is_sent_and_an_inert_edit_only_where_it_says_so(edit):
    before, after = sent(edit.task, unchanged(edit.task)), sent(edit.task, edit.applied(unchanged(edit.task)))
    changes = edit.kind == "faults" or edit.sent
    assert (before != after) is changes
    assert edit.kind == "faults" or after is not None


@pytest.mark.parametrize("task", ["tone", "kind"])
def test_each_task_has_two_hundred_different_cases(task):
    lines = (TASKS / "suites" / "cases" / f"{task}.jsonl").read_text("utf-8").splitlines()
    assert len({json.dumps(json.loads(line)["vars"]) for line in lines}) == 200


def test_an_edit_of_what_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="tone/x: the prompt has no 'nowhere'"):
        Edit("faults", "tone", "x", (("nowhere", ""),)).applied("text")


def gate_of(broken, cases=200):
    before = {f"c{i:03}": "passed" for i in range(cases)}
    now = {case_id: "failed" if i < broken else "passed" for i, case_id in enumerate(before)}
    return GateInput(
        suite="s", candidate=Side(variant="p@2+m", outcomes=now), baseline=Side(variant="p@1+m", outcomes=before)
    )


def test_fewer_cases_are_less_sure():
    given = gate_of(broken=24)
    assert verdicts_at(given, 200) == {"fail": 1.0}
    assert verdicts_at(given, 25).get("fail", 0) < verdicts_at(given, 100)["fail"]
    assert verdicts_at(gate_of(broken=0), 25) == {"pass": 1.0}


def test_draws_are_the_same_each_time_and_of_as_many_cases_as_asked():
    assert verdicts_at(gate_of(24), 50) == verdicts_at(gate_of(24), 50)
    some = of_some(gate_of(24), frozenset({"c000", "c199"}))
    assert set(some.candidate.outcomes) == set(some.baseline.outcomes) == {"c000", "c199"}


PROMPT = """\
model: fake
variables: {word: {type: string}}
messages:
  - {role: user, content: "{{ word }}"}
"""


@pytest.mark.integration
def test_a_trial_goes_through_the_gate_and_asks_nothing_twice(tmp_path, monkeypatch):
    tasks = tmp_path / "tasks"
    (tasks / "prompts").mkdir(parents=True)
    (tasks / "suites" / "cases").mkdir(parents=True)
    (tasks / "turnout.yaml").write_text("models: {fake: {engine: fake, echo: true}}\n")
    (tasks / "prompts" / "say.prompt.yml").write_text(PROMPT)
    (tasks / "suites" / "say.suite.yml").write_text("prompt: say\ntests: file://cases/say.jsonl\n")
    cases = [{"vars": {"word": f"w{i}"}, "assert": [{"type": "equals", "value": f"w{i}"}]} for i in range(25)]
    (tasks / "suites" / "cases" / "say.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    monkeypatch.setattr(mutation, "TASKS", tasks)
    trial = Trial(tmp_path / "home")
    given = [
        Edit("faults", "say", "wrong", (("{{ word }}", "x{{ word }}"),)),
        Edit("faults", "say", "misspelt", (("{{ word }}", "{{ wort }}"),)),
        Edit("inert", "say", "comment", (("messages:", "# said\nmessages:"),)),
    ]
    told = list(run(trial, given, [25]))
    assert [line.partition(";")[0] for line in told] == [
        "25 faults say/wrong: fail",
        "25 faults say/misspelt: refused",
        "25 inert say/comment: pass",
    ]
    assert list(run(trial, given, [25])) == []
    found = figures(trial, given)
    assert found["faults"]["25"]["fail"] == found["faults"]["25"]["refused"] == 1
    assert found["inert_same_text_sent"]["25"]["pass"] == 1
    assert found["missing_at_all_cases"] == ["say/wrong", "say/comment"]
    assert (trial.project / "prompts" / "say.prompt.yml").read_text() == PROMPT
