"""`turnout check`: every fault of every file in one go, and what is likely wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.cli import examining
from tests.service.cli.projects import PROMPT, SUITE, Project

ROOT = Path(__file__).parents[3]
KEY = "ghp_" + "Zk7Qw2Lx9Vb4Nc6Md1Rt8Ys3Hf5Jg0PaUiOe"


def findings(project: Project, *arguments: str, exit_code: int = 0) -> list[tuple[str, int, str, str]]:
    faults = project.json("check", *arguments, exit_code=exit_code)["faults"]
    return [(Path(f["path"]).name.partition(".")[0], f["line"], f["level"], f["rule"]) for f in faults]


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    return workspace


def test_ten_files_with_ten_faults_are_all_reported_with_their_lines(project: Project) -> None:
    files = {
        "prompts/a-yaml.prompt.yml": "model: model-a\nmessages: [\n",
        "prompts/b-key.prompt.yml": PROMPT + "modle: x\n",
        "prompts/c-syntax.prompt.yml": "model: model-a\nmessages:\n  - {role: user, content: '{% if %}'}\n",
        "prompts/d-include.prompt.yml": "model: model-a\nmessages:\n  - {role: user, content: \"{% include 'gone' %}\"}\n",
        "prompts/e-circle.prompt.yml": "model: model-a\nmessages:\n  - {role: user, content: \"{% include 'e-circle' %}\"}\n",
        "prompts/f-unused.prompt.yml": "model: model-a\nvariables:\n  a: {type: string}\nmessages: [{role: user, content: x}]\n",
        "prompts/g-secret.prompt.yml": f"model: model-a\nmessages:\n  - role: user\n    content: 'log in by {KEY}'\n",
        "suites/h-type.suite.yml": SUITE.replace("type: equals, value: account", "type: equal, value: account"),
        "suites/i-vars.suite.yml": SUITE.replace("{ticket: \"I forgot", "{tickets: \"I forgot"),
        "suites/j-file.suite.yml": "prompt: support.triage\ntests:\n  - file://none.jsonl\n",
    }  # fmt: skip
    for name, text in files.items():
        project.write(name, text)

    faults = project.json("check", exit_code=2)["faults"]

    places = [(Path(f["path"]).name.partition(".")[0], f["line"]) for f in faults]
    assert places == [
        ("a-yaml", 3), ("b-key", 7), ("c-syntax", 3), ("d-include", 3), ("e-circle", 3), ("f-unused", 3), ("g-secret", 4),
        ("h-type", 5), ("i-vars", 5), ("i-vars", 5), ("j-file", 3),
    ]  # fmt: skip
    assert all(fault["level"] == "error" and fault["rule"] and fault["fix"] for fault in faults)


def test_every_missing_include_of_a_prompt_is_told_and_what_a_broken_one_holds_is_not_guessed(project: Project) -> None:
    includes = "".join(f"  - {{role: user, content: \"{{% include '{name}' %}}\"}}\n" for name in ("one", "bad", "two"))
    project.write("prompts/all.prompt.yml", f"model: model-a\nmessages:\n{includes}")
    project.write("prompts/bad.prompt.yml", "model: model-a\n")

    _, _, err = project.run("check")

    assert err.splitlines()[:3] == [
        "prompts/all.prompt.yml:3: include 'one': no such prompt (mend the include)",
        "prompts/all.prompt.yml:5: include 'two': no such prompt (mend the include)",
        "prompts/bad.prompt.yml:1: 'messages' is missing (add `messages:`)",
    ]


def test_every_bad_example_of_a_prompt_is_told(project: Project) -> None:
    examples = "".join(f"  - {{vars: {given}, expected: a}}\n" for given in ("{ticket: 7}", "{ticket: x}", "{}"))
    project.write("prompts/support/triage.prompt.yml", f"{PROMPT}examples:\n{examples}")
    assert findings(project, exit_code=2) == [("triage", line, "error", "example") for line in (8, 10)]
    no_user = "model: model-a\nmessages: [{role: system, content: x}]\nexamples: [{expected: a}, {expected: b}]\n"
    project.write("prompts/support/triage.prompt.yml", no_user)
    found = findings(project, "prompts", exit_code=2)
    assert found == [("triage", 3, "error", "example")]


def test_one_file_is_checked_with_its_includes_and_without_the_faults_of_others(project: Project) -> None:
    project.write("prompts/other.prompt.yml", "modle: x\n")
    project.write("prompts/tone.prompt.yml", "model: model-a\nmessages: [{role: user, content: Be kind.}]\n")
    with_include = PROMPT.replace("Route the ticket.", "Route it. {% include 'tone' %}")
    project.write("prompts/support/triage.prompt.yml", with_include)

    assert findings(project, "prompts/support/triage.prompt.yml") == []
    assert findings(project, "suites") == []
    assert {name for name, *_ in findings(project, exit_code=2)} == {"other"}


def test_faults_of_turnout_yaml_do_not_hide_those_of_prompts(project: Project) -> None:
    project.write("turnout.yaml", "models: {}\nservr: {}\n")
    project.write("prompts/bad.prompt.yml", "model: model-a\n")

    assert findings(project, exit_code=2) == [
        ("turnout", 2, "error", "unknown-key"),
        ("bad", 1, "error", "missing-key"),
    ]


def test_a_case_is_held_to_the_variables_that_an_include_brings(project: Project) -> None:
    project.write("prompts/tone.prompt.yml", "model: model-a\nmessages: [{role: user, content: 'Be {{ mood }}.'}]\n")
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "{% include 'tone' %} Route the"))

    assert findings(project, exit_code=2) == [("triage", line, "error", "missing-variable") for line in (4, 5)]


def test_training_examples_that_the_prompt_refuses_are_told_once_for_each_kind(project: Project) -> None:
    schema = "{type: object, properties: {queue: {enum: [billing, technical]}}, required: [queue]}"
    answers = f"responseFormat: json_schema\njsonSchema: {{name: q, schema: {schema}}}\n"
    project.write("prompts/support/triage.prompt.yml", PROMPT + answers)
    rows = [({"ticket": "one"}, "billing"), ({"zz": "two"}, "billing"), ({"zz": "three"}, "billing"),
            ({"ticket": 4}, "billing"), ({"ticket": "five"}, "bilingg")]  # fmt: skip
    lines = [json.dumps({"vars": given, "expected": json.dumps({"queue": queue})}) for given, queue in rows]
    project.write("suites/support/train.jsonl", "\n".join(lines))
    project.write("suites/support/triage.suite.yml", SUITE + "training: {examples: 'file://train.jsonl'}\n")

    faults = [fault for fault in project.json("check", exit_code=0)["faults"] if fault["rule"] == "training-example"]

    assert {(fault["level"], fault["line"]) for fault in faults} == {("warning", len((SUITE + "x").splitlines()))}
    assert [fault["message"] for fault in faults] == [
        "training example 2 and 1 more: unexpected variable 'zz': the prompt declares ticket",
        "training example 4: variable 'ticket': expected a string, found int",
        "training example 5: $.queue: 'bilingg' is not a known label: did you mean 'billing'?",
    ]


def test_a_case_gives_the_placeholders_that_its_prompt_needs(project: Project) -> None:
    text = PROMPT.replace("messages:\n", "placeholders: {history: {}}\nmessages:\n  - placeholder: history\n")
    project.write("prompts/support/triage.prompt.yml", text)
    charged = '{vars: {ticket: "I was charged twice"}'
    given = SUITE.replace(charged, f"{charged}, placeholders: {{history: [], more: []}}")
    project.write("suites/support/triage.suite.yml", given)
    assert findings(project, exit_code=2) == [
        ("triage", 4, "error", "unexpected-placeholder"),
        ("triage", 5, "error", "missing-placeholder"),
    ]


def test_warnings_are_shown_and_fail_only_where_they_are_asked_to(project: Project) -> None:
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("minLength: 1, ", ""))

    code, out, err = project.run("check")
    assert (code, out) == (0, "1 prompt and 1 suite are fine\n")
    assert err.splitlines()[-1] == "0 faults, 1 warning"
    assert findings(project) == [("triage", 6, "warning", "empty-message")]
    assert project.json("check")["ok"] is True
    assert project.json("check", "--strict", exit_code=2)["ok"] is False


def test_a_case_that_any_answer_passes_is_a_warning(project: Project) -> None:
    project.write("suites/loose.suite.yml", SUITE.replace("value: billing", "value: billing, weight: 0"))
    assert next(found for found in findings(project) if found[0] == "loose")[2:] == ("warning", "no-assertion")


def test_a_model_and_a_prompt_that_are_not_there_are_warnings(project: Project) -> None:
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("model-a", "openai/gpt-4o"))
    project.write("suites/lost.suite.yml", SUITE.replace("support.triage", "support.none"))

    assert findings(project) == [("triage", 1, "warning", "unknown-model"), ("lost", 1, "warning", "unknown-prompt")]


def test_secrets_are_found_in_suites_and_their_files_unless_they_are_allowed(project: Project) -> None:
    project.write("suites/cases/c.jsonl", f'{{"vars": {{"ticket": "{KEY}"}}, "assert": [{{"type": "is-json"}}]}}\n')
    suite = SUITE.replace("I was charged twice", KEY) + "  - file://../cases/c.jsonl\n"
    project.write("suites/support/triage.suite.yml", suite)
    _, out, err = project.run("check", "--json")
    assert findings(project, exit_code=2) == [("c", 1, "error", "secret"), ("triage", 4, "error", "secret")]
    assert KEY[4:] not in out + err

    allowed = suite.replace("value: billing}]}", "value: billing}]}  # turnout: allow secret")
    allowed = allowed.replace("c.jsonl", "c.jsonl  # turnout: allow secret")
    project.write("suites/support/triage.suite.yml", allowed)
    assert findings(project) == []


def test_a_secret_is_told_with_its_line_however_long_the_file_of_cases_is(project: Project) -> None:
    lines = [f'{{"vars": {{"ticket": "{number}"}}, "assert": [{{"type": "is-json"}}]}}\n' for number in range(2_500)]
    lines[2_100] = lines[2_100].replace('"2100"', f'"{KEY}"')
    project.write("suites/cases/c.jsonl", "".join(lines))
    project.write("suites/support/triage.suite.yml", "prompt: support.triage\ntests: file://../cases/c.jsonl\n")
    assert findings(project, exit_code=2) == [("c", 2_101, "error", "secret")]


def test_cases_in_parquet_are_checked_for_secrets_and_run(project: Project) -> None:
    table = {"ticket": ["I was charged twice", "hello"], "__expected": ["equals:billing", "equals:other"]}
    parquet(project, "suites/cases/p.parquet", table)
    suite = "prompt: support.triage\nthresholds: {pass_rate: 1.0}\ntests: file://../cases/p.parquet\n"
    project.write("suites/support/triage.suite.yml", suite)
    assert findings(project) == []
    assert project.json("run", "suites/support/triage.suite.yml", "--local")["passed"] == 2

    parquet(project, "suites/cases/p.parquet", {**table, "ticket": ["plain", f"two\nlines {KEY}"]})
    assert findings(project, exit_code=2) == [("p", 2, "error", "secret")]
    project.write("suites/support/triage.suite.yml", suite.replace(".parquet", ".parquet  # turnout: allow secret"))
    assert findings(project) == []


def parquet(project: Project, name: str, columns: dict[str, list[str]]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    written = pytest.importorskip("pyarrow.parquet")
    written.write_table(arrow.table(columns), project.write(name, ""))


def test_a_case_is_held_to_the_schemas_of_its_prompt(project: Project) -> None:
    project.write(
        "prompts/support/triage.prompt.yml",
        PROMPT.replace("maxLength: 400}", "maxLength: 20}\n  count: {type: integer, default: 1}").replace(
            "{{ ticket }}", "{{ ticket }} {{ count }}"
        ),
    )
    project.write(
        "suites/support/triage.suite.yml",
        "prompt: support.triage\ntests:\n"
        "  - {vars: {ticket: 7}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: [a, 7]}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: fine, count: 2}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: fine, count: many}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: longer than twenty characters}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: [a, b]}, assert: [{type: is-json}], options: {disableVarExpansion: true}}\n",
    )
    faults = [fault for fault in project.json("check", exit_code=2)["faults"] if fault["rule"] == "variable"]
    assert [(fault["line"], fault["message"]) for fault in faults] == [
        (3, "variable 'ticket': expected a string, found int"),
        (4, "variable 'ticket': expected a string, found int"),
        (6, "variable 'count': 'many' is not of type 'integer'"),
        (7, "variable 'ticket': 29 characters, allowed are 1 to 20"),
        (8, "variable 'ticket': expected a string, found list"),
    ]
    assert (
        faults[-1]["fix"] == "a list that is no matrix is one value: leave `disableVarExpansion` out, or mend its items"
    )


def test_what_is_left_of_a_faulty_suite_is_held_against_its_prompt_and_the_settings(project: Project) -> None:
    project.write(
        "suites/support/triage.suite.yml",
        "prompt: support.triage\nthresholds: {pass_rate: 90}\njudge: {model: jugde}\ntests:\n"
        "  - {vars: {ticket: fine}, assert: [{type: eqals, value: x}]}\n"
        "  - {vars: {tikcet: fine}, assert: [{type: is-json}]}\n"
        "  - {vars: {ticket: 7}, assert: [{type: is-json}], treshold: 1}\n"
        "  - {vars: {ticket: a}, assert: [{type: similar, value: x}]}\n"
        "  - {vars: {ticket: b}, assert: [{type: llm-rubric, value: x, provider: none, weight: -1}]}\n",
    )
    faults = project.json("check", exit_code=2)["faults"]
    found = [(fault["line"], fault["rule"]) for fault in faults if fault["level"] == "error"]
    assert found == [
        (2, "bad-value"),
        (3, "invalid"),  # no model is called jugde
        (5, "bad-value"),
        (6, "missing-variable"),
        (6, "unexpected-variable"),
        (7, "unknown-key"),
        (7, "variable"),
        (8, "invalid"),  # no model of embeddings
        (9, "invalid"),  # no model is called none
        (9, "bad-value"),
    ]


def test_a_list_is_a_case_for_each_item_of_it_when_the_suite_is_run(project: Project) -> None:
    project.write(
        "suites/support/triage.suite.yml",
        "prompt: support.triage\ntests:\n"
        '  - {vars: {ticket: ["I was charged", "charged twice", "hello"]}, assert: [{type: equals, value: billing}]}\n',
    )
    result = project.json("run", "suites/support/triage.suite.yml", "--local", exit_code=1)
    assert (result["total"], result["passed"], result["failed"]) == (3, 2, 1)


def test_every_bad_case_of_many_is_told(project: Project) -> None:
    rows = [f'{{"vars": {{"ticket": {number}}}, "assert": [{{"type": "is-json"}}]}}' for number in range(250)]
    project.write("suites/cases/many.jsonl", "\n".join(rows))
    project.write("suites/support/triage.suite.yml", "prompt: support.triage\ntests: file://../cases/many.jsonl\n")
    faults = project.json("check", exit_code=2)["faults"]
    assert [fault["line"] for fault in faults if fault["rule"] == "variable"] == [*range(1, 251)]
    assert not any("more than" in fault["message"] for fault in faults)


def test_of_more_faults_than_there_is_room_for_it_is_told_that_there_are_more(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "MAX_CASE_FAULTS", 100)
    rows = [f'{{"vars": {{"ticket": {number}}}, "assert": [{{"type": "is-json"}}]}}' for number in range(150)]
    project.write("suites/cases/many.jsonl", "\n".join(rows))
    project.write("suites/support/triage.suite.yml", "prompt: support.triage\ntests: file://../cases/many.jsonl\n")
    faults = project.json("check", exit_code=2)["faults"]
    assert len([fault for fault in faults if fault["rule"] == "variable"]) == 100
    assert "its cases have more than 100 faults: those from there on are not looked for" in [
        fault["message"] for fault in faults
    ]


def test_every_assertion_that_cannot_fail_is_told(project: Project) -> None:
    tests = "".join(f"  - {{vars: {{ticket: t{n}}}, threshold: 0, assert: [{{type: is-json}}]}}\n" for n in range(150))
    project.write("suites/support/triage.suite.yml", "prompt: support.triage\ntests:\n" + tests)
    assert len([found for found in findings(project) if found[3] == "no-assertion"]) == 150


UNPRICED_AND_PRICED = """\
models:
  model-a: {engine: fake, default: billing}
  paid: {engine: fake, default: billing, price: {input_per_mtok: 1, output_per_mtok: 2}}
  also-unpriced: {engine: fake, default: billing}
"""
COSTLY = """\
prompt: support.triage
thresholds: {cost_per_1k_usd: 5}
tests: [{vars: {ticket: I was charged}, assert: [{type: equals, value: billing}]}]
"""


def test_a_key_in_place_of_its_variables_name_is_refused_by_every_command_and_shown_by_none(project: Project) -> None:
    pasted = "sk-proj-" + KEY.removeprefix("ghp_")
    up = f"{{engine: openai, base_url: 'http://127.0.0.1:9/v1', api_key_env: {pasted}}}"
    project.write("turnout.yaml", f"models:\n  model-a: {up}\n")
    for command in (
        ("check",),
        ("doctor",),
        ("run", "--local"),
        ("models",),
        ("push", "--local"),
        ("serve", "--port", "0"),
    ):
        code, out, err = project.run(*command, "--json")
        assert (code, "models.model-a.api_key_env" in out + err) == (2, True), (command, out, err)
        assert KEY.removeprefix("ghp_")[:8] not in out + err


def test_a_bound_on_costs_is_judged_by_the_model_that_is_asked(project: Project) -> None:
    project.write("turnout.yaml", UNPRICED_AND_PRICED)
    suite = str(project.write("suites/support/triage.suite.yml", COSTLY).relative_to(project.folder))
    at = f"{suite}:2: thresholds.cost_per_1k_usd: the price of model"

    for command in (("run", suite), ("gate", suite, "--baseline", "none")):
        assert f"{at} 'model-a' is unknown" in project.run(*command, "--local")[2]
        assert project.run(*command, "--local", "--model", "paid")[0] == 0
        code, _, err = project.run(*command, "--local", "--model", "also-unpriced")
        assert (code, f"{at} 'also-unpriced' is unknown" in err) == (2, True), err

    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("model-a", "paid"))
    assert project.run("run", suite, "--local")[0] == 0
    code, _, err = project.run("run", suite, "--local", "--model", "paid", "--model", "model-a")
    assert (code, f"{at} 'model-a' is unknown" in err) == (2, True), err


@pytest.mark.parametrize(
    ("base", "message", "fix"),
    [
        ("smolm2-135m", "turnout.yaml has no model 'smolm2-135m'", "did you mean 'smollm2-135m'?"),
        ("model-a", "model 'model-a' cannot be tuned", "known here: smollm2-135m"),
    ],
)
def test_a_base_model_that_cannot_be_tuned_is_told_at_its_line(
    project: Project, base: str, message: str, fix: str
) -> None:
    project.write("suites/support/triage.suite.yml", SUITE + f"fallback:\n  base_model: {base}\n")
    [fault] = project.json("check", exit_code=2)["faults"]
    assert (Path(fault["path"]).name, fault["line"], fault["level"]) == ("triage.suite.yml", 7, "error")
    assert (fault["message"], fault["fix"]) == (f"fallback.base_model: {message}", fix)


def test_a_base_model_that_can_be_tuned_is_fine(project: Project) -> None:
    project.write("suites/support/triage.suite.yml", SUITE + "fallback: {base_model: smollm2-135m}\n")
    project.json("check", "--strict")


def test_a_fallback_without_a_base_on_a_model_that_cannot_be_tuned_is_a_warning_with_the_fix(project: Project) -> None:
    project.write("suites/support/triage.suite.yml", SUITE + "fallback: {rollout: [100]}\n")
    [fault] = project.json("check")["faults"]
    assert (Path(fault["path"]).name, fault["line"], fault["level"]) == ("triage.suite.yml", 6, "warning")
    assert fault["message"] == "fallback: it names no `base_model`, and its prompt's model 'model-a' cannot be tuned"
    assert fault["fix"] == "write `base_model:` with one that can (smollm2-135m), or `when: never`"


@pytest.mark.parametrize(
    ("fallback", "model"),
    [("{when: never}", "model-a"), ("{rollout: [100]}", "smollm2-135m"), ("{base_model: smollm2-135m}", "model-a")],
)
def test_a_fallback_that_can_tune_or_never_does_is_fine(project: Project, fallback: str, model: str) -> None:
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("model-a", model))
    project.write("suites/support/triage.suite.yml", SUITE + f"fallback: {fallback}\n")
    project.json("check", "--strict")


def test_every_fault_of_a_recipe_is_told_at_its_line_and_stops_a_push_and_a_fine_tune(project: Project) -> None:
    recipe = "fallback:\n  base_model: smollm2-135m\n  recipe:\n    lr: fast\n    rank: 0\n    epoch: 3\n"
    path = project.write("suites/support/triage.suite.yml", SUITE + recipe)
    faults = project.json("check", exit_code=2)["faults"]
    assert [(fault["line"], fault["message"], fault["fix"]) for fault in faults] == [
        (9, "fallback.recipe.lr: expected a number above 0 up to 1, found 'fast'", "write 0.001, say"),
        (10, "fallback.recipe.rank: expected a whole number from 1 up to 512, found 0", "write 16, say"),
        (11, "unknown key 'fallback.recipe.epoch'", "did you mean 'epochs'?"),
    ]
    for command in (("push",), ("finetune", str(path), "--dry-run")):
        code, _, err = project.run(*command, "--local")
        assert (code, [fault["message"] in err for fault in faults]) == (2, [True] * 3), err


def test_every_fault_of_the_recipe_on_the_command_line_is_told(project: Project) -> None:
    asked = ("--recipe", "rank", "--recipe", "lr=[", "--recipe", "=3")
    code, _, err = project.run("finetune", "suites/support/triage.suite.yml", "--local", *asked)
    assert (code, [text in err for text in ("--recipe rank: expected NAME=VALUE", "--recipe lr", "--recipe =3")]) == (
        2,
        [True] * 3,
    )
    asked = ("--base", "smollm2-135m", "--recipe", "rank=0", "--recipe", "lr=fast")
    code, _, err = project.run("finetune", "suites/support/triage.suite.yml", "--local", *asked)
    assert (code, "recipe.rank: expected" in err, "recipe.lr: expected" in err) == (2, True, True)


def test_a_secret_is_found_in_a_file_with_other_faults(project: Project) -> None:
    project.write("prompts/bad.prompt.yml", f"modle: {KEY}\n")
    assert ("bad", 1, "error", "secret") in findings(project, exit_code=2)


def test_a_prompt_with_a_secret_is_not_pushed(project: Project) -> None:
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the ticket.", f"Use {KEY}."))
    code, _, err = project.run("push", "--local")
    assert (code, "looks like a secret" in err, KEY in err) == (2, True, False)


# ---------------------------------------------------------------------------- the model's context


def with_context(project: Project, tokens: int, **fields: Any) -> None:
    more = "".join(f", {name}: {value}" for name, value in fields.items())
    project.write("turnout.yaml", f"models:\n  model-a: {{engine: fake, context_tokens: {tokens}{more}}}\n")


def test_a_prompt_longer_than_its_model_s_context_is_an_error(project: Project) -> None:
    with_context(project, 1000)
    project.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the ticket.", "word " * 2000))
    assert findings(project, exit_code=2) == [("triage", 4, "error", "context-length")]


def test_one_that_its_variables_could_make_longer_is_a_warning(project: Project) -> None:
    with_context(project, 100)
    assert findings(project) == [("triage", 4, "warning", "context-length")]
    with_context(project, 500)
    assert findings(project) == []


def test_what_the_answer_may_take_counts(project: Project) -> None:
    with_context(project, 1000)
    project.write("prompts/support/triage.prompt.yml", "modelParameters: {max_tokens: 1000}\n" + PROMPT)
    assert findings(project, exit_code=2) == [("triage", 5, "error", "context-length")]


def test_examples_count_and_text_that_a_condition_may_leave_out_does_not(project: Project) -> None:
    with_context(project, 1000)
    long = "word " * 2000
    project.write(
        "prompts/support/triage.prompt.yml", PROMPT.replace("Route", "{% if ticket %}" + long + "{% endif %}")
    )
    assert findings(project) == []
    project.write(
        "prompts/support/triage.prompt.yml", PROMPT + f"examples: [{{vars: {{ticket: x}}, expected: '{long}'}}]\n"
    )
    assert findings(project, exit_code=2) == [("triage", 4, "error", "context-length")]


# ---------------------------------------------------------------------------- what it does not do


def test_check_asks_nothing_and_writes_nothing(project: Project, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    assert project.run("check")[0] == 0
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_has_nothing_to_check(workspace: Project) -> None:
    code, out, err = workspace.run("check")
    assert (code, out) == (2, "")
    assert err.startswith("nothing to check in ")
    assert workspace.json("check", exit_code=2)["ok"] is False


def test_turnout_yaml_alone_is_something_to_check_where_it_is_named(workspace: Project) -> None:
    path = workspace.write("turnout.yaml", "models: {}\n")
    assert workspace.run("check", str(path))[0] == 0
    assert workspace.run("check")[0] == 2


def test_the_examples_are_without_any_finding(workspace: Project) -> None:
    examples = Path(__file__).parents[3] / "examples" / "support"
    shutil.copytree(examples, workspace.folder, dirs_exist_ok=True)
    assert findings(workspace, "--strict") == []


def test_a_file_named_from_outside_its_project_is_checked_and_pushed_as_that_project_s(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(project.folder / "prompts/support/triage.prompt.yml")

    assert project.json("check", file, "--strict")["ok"] is True  # its model is known, too
    assert [entry["name"] for entry in project.json("push", file, "--local")] == ["support.triage"]
    suite = str(project.folder / "suites/support/triage.suite.yml")
    assert project.json("run", suite, "--local")["verdict"] == "pass"


def test_files_of_several_projects_are_refused_and_one_of_each_is_named(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other/prompts/greet.prompt.yml"
    other.parent.mkdir(parents=True)
    other.write_text(PROMPT, "utf-8")
    (tmp_path / "other/turnout.yaml").write_text("models: {}\n", "utf-8")

    code, _, err = project.run("check", "prompts/support/triage.prompt.yml", str(other))

    assert code == 2
    assert f"prompts/support/triage.prompt.yml in {project.folder}, {other} in {tmp_path / 'other'}" in err


def test_the_messages_that_a_case_gives_are_held_to_what_a_render_takes(project: Project) -> None:
    head = PROMPT.replace("messages:", "placeholders: {past: {}}\nmessages:\n  - {placeholder: past}")
    project.write("prompts/support/triage.prompt.yml", head)
    given = "placeholders: {past: [{role: user}]}"
    text = SUITE.replace("  - {vars:", f"  - {{{given}, vars:")
    project.write("suites/support/triage.suite.yml", text)
    faults = project.json("check", exit_code=2)["faults"]
    assert [(fault["line"], fault["rule"], fault["message"]) for fault in faults] == [
        (line, "placeholder", "placeholders.past[0]: a message of role 'user' needs its content") for line in (4, 5)
    ]


def test_faults_of_models_name_the_places_that_the_file_has(project: Project) -> None:
    models = "{o: {engine: fakee}, p: {engine: openai, base_url: 'ftp://x'}, q: {engine: openai}, r: {default: x}}"
    project.write("turnout.yaml", f"models: {models}\n")

    found = project.json("check", exit_code=2)["faults"]

    told = {(fault["message"], fault["fix"]) for fault in found if fault["path"].endswith("turnout.yaml")}
    fix = "write http(s)://host[:port]/path, without a user, password or query; a key is named by `api_key_env`"
    assert told == {
        ("models.o: engine 'fakee' is none of fake, local, openai, vllm", "did you mean 'fake'?"),
        ("models.p.base_url: no address of a model's server, found 'ftp://x'", fix),
        ("'models.q.base_url' is missing", "add `base_url:`"),
        ("'models.r.engine' is missing", "add `engine:`"),
    }


@pytest.mark.integration
def test_everyday_files_are_checked_without_importing_what_is_slow_to_import(project: Project) -> None:
    tool = "{type: function, function: {name: find, parameters: {type: object, properties: {id: {type: string}}}}}"
    schema = "{name: out, schema: {type: object, properties: {queue: {type: string, enum: [a, b]}}, required: [queue]}}"
    rich = f"tools: [{tool}]\nresponseFormat: json_schema\njsonSchema: {schema}\nplaceholders: {{history: {{default: []}}}}\n"
    slot = "  - {placeholder: history}\n"
    text = PROMPT.replace("maxLength: 400}", "maxLength: 400, default: none}") + slot
    project.write("prompts/rich.prompt.yml", rich + text)
    code = (
        "import sys; from service.cli.main import run; code = run(['check']);"
        "print(code, sorted({'jsonschema', 'referencing'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
