"""`turnout run` and `gate` on a promptfooconfig.yaml, and what `import` writes of one."""

from __future__ import annotations

import json

import pytest
import yaml

CONFIG = """\
prompts:
  - 'Say {{word}}'
providers: [echo]
tests:
  - vars: {word: [hi, ho]}
    assert: [{type: contains, value: 'Say {{word}}'}]
"""
MIXED = """\
prompts: ['Say {{word}}']
providers: [echo]
tests:
  - {vars: {word: a}, assert: [{type: equals, value: Say a}]}
  - {vars: {word: b}, assert: [{type: moderation}]}
  - {vars: {word: c}, assert: [{type: moderation}]}
"""
MODELS = """\
models:
  model-a: {engine: fake, answers: {charged: billing}, default: other, price: {input_per_mtok: 1, output_per_mtok: 1}}
  mini: {engine: openai, base_url: "http://127.0.0.1:9/v1", model: gpt-4o-mini}
"""


@pytest.fixture
def project(workspace):
    workspace.write_all()
    workspace.write("turnout.yaml", MODELS)
    return workspace


def test_a_configuration_runs_as_it_is_and_nothing_is_written(project):
    project.write("evals/promptfooconfig.yaml", CONFIG)
    before = sorted(path for path in project.folder.rglob("*.yml"))
    found = project.json("run", "evals/promptfooconfig.yaml", "--local")
    assert (found["suite"], found["passed"], found["total"]) == ("promptfoo.evals.prompt-1@1", 2, 2)
    assert found["variant"] == "promptfoo.evals.prompt-1@1+echo"
    assert sorted(path for path in project.folder.rglob("*.yml")) == before
    assert project.json("gate", "evals/promptfooconfig.yaml", "--local")["verdict"] == "pass"


def test_it_needs_no_turnout_yaml_at_all(project):
    (project.folder / "turnout.yaml").unlink()
    project.write("promptfooconfig.yaml", CONFIG)
    assert project.json("run", "promptfooconfig.yaml", "--local")["passed"] == 2


def test_a_failed_test_fails_run_and_gate(project):
    project.write("promptfooconfig.yaml", CONFIG.replace("'Say {{word}}'}", "Say hi}"))
    assert project.json("run", "promptfooconfig.yaml", "--local", exit_code=1)["failed"] == 1
    assert project.json("gate", "promptfooconfig.yaml", "--local", exit_code=1)["verdict"] == "fail"


def test_what_is_set_aside_is_counted_and_keeps_run_and_gate_from_passing(project):
    project.write("promptfooconfig.yaml", MIXED)
    code, out, err = project.run("run", "promptfooconfig.yaml", "--local")
    assert code == 3, err
    assert "2 cases are skipped by the suite" in " ".join(out.split())
    assert "left out: 2 × assertion moderation (write `llm-rubric`" in err
    found = project.json("run", "promptfooconfig.yaml", "--local", exit_code=3)
    assert (found["passed"], found["skipped"], found["set_aside"]) == (1, 2, 2)
    assert [(each["count"], each["what"]) for each in found["left_out"]] == [(2, "assertion moderation")]
    assert found["left_out"][0]["place"] == "promptfooconfig.yaml: promptfoo.prompt-1, test 2"
    for command in ("run", "gate"):
        told = project.json(
            command, "promptfooconfig.yaml", "--local", "--markdown", "told.md", "--html", "told.html", exit_code=3
        )
        assert told["left_out"] == found["left_out"]
        for name in ("told.md", "told.html"):
            assert "2 × assertion moderation" in (project.folder / name).read_text("utf-8")


def test_strict_refuses_what_is_not_carried_over_whole(project):
    project.write("promptfooconfig.yaml", MIXED)
    code, _, err = project.run("run", "promptfooconfig.yaml", "--local", "--strict")
    assert code == 2
    assert "2 × assertion moderation" in err
    assert project.run("import", "promptfoo", "promptfooconfig.yaml", "--strict", "--model", "model-a")[0] == 2
    assert not (project.folder / "suites/prompt-1.suite.yml").exists()


def test_a_prompt_that_is_left_out_keeps_a_run_from_passing(project):
    project.write("promptfooconfig.yaml", CONFIG.replace("'Say {{word}}'\n", "'Say {{word}}'\n  - file://make.js\n", 1))
    assert project.json("run", "promptfooconfig.yaml", "--local", exit_code=3)["verdict"] == "pass"


def test_providers_that_are_no_models_are_named_at_once_with_the_lines_to_add(project):
    config = CONFIG.replace("[echo]", "['openai:gpt-4o-mini', 'openai:chat:gpt-4o', 'ollama:chat:llama3']")
    project.write("promptfooconfig.yaml", config)
    code, _, err = project.run("run", "promptfooconfig.yaml", "--local")
    assert code == 2
    assert "openai:chat:gpt-4o, ollama:chat:llama3" in err
    lines = yaml.safe_load(err[err.index("models:\n") :])["models"]
    assert lines["gpt-4o"] == {
        "engine": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key_env": "OPENAI_API_KEY",
    }
    assert lines["llama3"]["base_url"] == "http://127.0.0.1:11434/v1"


def test_a_provider_is_an_alias_where_it_is_told(project):
    project.write(
        "promptfooconfig.yaml",
        CONFIG.replace("[echo]", "['openai:gpt-4o', 'openai:o3']").replace("'Say {{word}}'}", "other}"),
    )
    given = ("--provider", "openai:gpt-4o=model-a", "--provider", "openai:o3=none")
    found = project.json("run", "promptfooconfig.yaml", "--local", *given)
    assert found["left_out"][0]["what"] == "provider openai:o3"
    assert found["variant"].endswith("+model-a")
    assert found["passed"] == 2
    for wrong in ("gpt-4o", "openai:gpt-4o=nobody"):
        assert project.run("run", "promptfooconfig.yaml", "--local", "--provider", wrong)[0] == 2


def test_several_providers_are_compared_in_one_run_and_gated_apart(project):
    config = CONFIG.replace("[echo]", "[echo, 'openai:x']").replace("'Say {{word}}'}", "other}")
    project.write("promptfooconfig.yaml", config)
    given = ("--provider", "openai:x=model-a", "--local")
    found = project.json("run", "promptfooconfig.yaml", *given, exit_code=1)
    assert [(each["variant"].partition("+")[2], each["passed"]) for each in found] == [("echo", 0), ("model-a", 2)]
    gate = project.json("gate", "promptfooconfig.yaml", *given, exit_code=1)
    assert [each["suite"] for each in gate["suites"]] == ["promptfoo.prompt-1-echo", "promptfoo.prompt-1-model-a"]


def test_python_files_run_where_their_folder_is_listed(project):
    project.write("turnout.yaml", MODELS + "assertions: {python_dirs: [evals/checks]}\n")
    project.write("evals/checks/tone.py", "def get_assert(output, context):\n    return output.startswith('Say')\n")
    project.write("evals/promptfooconfig.yaml", CONFIG.replace("{type: contains, value: 'Say {{word}}'}",
                                                               "{type: python, value: 'file://checks/tone.py'}"))  # fmt: skip
    assert project.json("run", "evals/promptfooconfig.yaml", "--local")["passed"] == 2
    project.write("turnout.yaml", MODELS)
    found = project.json("run", "evals/promptfooconfig.yaml", "--local", exit_code=3)
    assert "no Python is run here" in found["left_out"][0]["why"]


def test_files_outside_of_the_project_are_not_read(project, tmp_path):
    (tmp_path / "secret.txt").write_text("s3cret", "utf-8")
    project.write("promptfooconfig.yaml", CONFIG.replace("[hi, ho]", f"'file://{tmp_path}/secret.txt'"))
    assert project.json("run", "promptfooconfig.yaml", "--local", exit_code=3)["set_aside"] == 1


def test_secrets_of_the_environment_stay_there(project, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "s3cret")
    monkeypatch.setenv("SOME_TONE", "kindly")
    config = CONFIG.replace("Say {{word}}", "Say {{word}} {{env.SOME_TONE}}{{env.SOME_API_KEY}}.", 1)
    project.write("promptfooconfig.yaml", config.replace("'Say {{word}}'}", "' kindly.'}"))
    assert project.json("run", "promptfooconfig.yaml", "--local")["passed"] == 2


def test_a_secret_in_a_prompt_is_refused(project):
    secret = "sk-proj-aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5z"
    project.write("promptfooconfig.yaml", CONFIG.replace("Say {{word}}", secret + " {{word}}", 1))
    code, _, err = project.run("run", "promptfooconfig.yaml", "--local")
    assert code == 2, err
    assert secret not in err


def test_import_writes_prompts_and_suites_that_check_and_run(project):
    project.write("old/promptfooconfig.yaml", MIXED)
    project.write("turnout.yaml", MODELS + "  echo: {engine: fake, echo: all}\n")
    found = project.json("import", "promptfoo", "old/promptfooconfig.yaml", "--into", "prompts/old")
    assert [each["path"] for each in found["written"]] == [
        "prompts/old/prompt-1.prompt.yml",
        "suites/old/prompt-1.suite.yml",
    ]
    assert project.json("check")["ok"] is True
    suite = yaml.safe_load((project.folder / "suites/old/prompt-1.suite.yml").read_text("utf-8"))
    assert suite["prompt"] == "old.prompt-1"
    assert suite["tests"][1]["skip"].startswith("assertion moderation")
    assert project.json("run", "suites/old/prompt-1.suite.yml", "--local", exit_code=3)["passed"] == 1
    again = project.json("import", "promptfoo", "old/promptfooconfig.yaml", "--into", "prompts/old")
    assert {each["state"] for each in again["written"]} == {"same"}


def test_import_says_who_is_missing_and_how_to_compare(project):
    config = MIXED.replace("[echo]", "['openai:gpt-4o-mini', 'ollama:phi']").replace(
        "moderation", "llm-rubric, value: kind"
    )
    project.write("promptfooconfig.yaml", config)
    found = project.json("import", "auto", "promptfooconfig.yaml", "--provider", "ollama:phi=model-a")
    told = {note["what"]: note["why"] for note in found["left_out"]}
    assert "give --provider grader=ALIAS" in told["grader"]
    assert "--model mini --model model-a" in told["1 more providers"]


def test_many_cases_go_into_a_file_of_their_own(project):
    project.write("promptfooconfig.yaml", CONFIG.replace("[hi, ho]", json.dumps([f"w{n}" for n in range(501)])))
    project.write("turnout.yaml", MODELS + "  echo: {engine: fake, echo: all}\n")
    project.json("import", "promptfoo", "promptfooconfig.yaml")
    assert len((project.folder / "suites/prompt-1.cases.jsonl").read_text("utf-8").splitlines()) == 501
    assert project.json("run", "suites/prompt-1.suite.yml", "--local")["passed"] == 501


def test_openai_evals_are_imported_from_their_registry(project):
    entry = {"class": "evals.elsuite.basic.match:Match", "args": {"samples_jsonl": "c/s.jsonl"}}
    project.write("registry/evals/cities.yaml", json.dumps({"cities.dev.v0": entry}))
    project.write("registry/data/c/s.jsonl", json.dumps({"input": "charged", "ideal": "bill"}))
    found = project.json("import", "openai-evals", "registry/evals/cities.yaml", "--model", "model-a")
    assert [each["path"] for each in found["written"]] == [
        "prompts/cities-dev-v0.prompt.yml",
        "suites/cities-dev-v0.suite.yml",
    ]
    assert project.json("run", "suites/cities-dev-v0.suite.yml", "--local")["passed"] == 1
    auto = project.json("import", "auto", "registry/evals/cities.yaml", "--model", "model-a")
    assert {each["state"] for each in auto["written"]} == {"same"}
