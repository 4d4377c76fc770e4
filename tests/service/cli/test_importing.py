"""`turnout import` and `turnout export`, in a project of their own."""

import json

import pytest
import yaml

PROMPTY = """\
---
name: Greeter
model: {api: chat, configuration: {azure_deployment: gpt-4o}}
authors: [Ann]
---
system:
Be kind.

user:
Hi {{ name }}
"""
DOTPROMPT = "---\nmodel: googleai/gemini\n---\n{{> tone}} {{#if who}}To {{who}}{{/if}}"
GOOD = "model: model-a\nmessages:\n  - {role: user, content: 'Hi {{ name }}'}   # said here\n"


@pytest.fixture
def project(workspace):
    workspace.write_all()
    return workspace


def prompt(project, path):
    return yaml.safe_load((project.folder / path).read_text("utf-8"))


def test_a_file_becomes_a_prompt_that_checks_and_renders(project):
    project.write("old/Greet Me.prompty", PROMPTY)
    found = project.json("import", "prompty", "old/Greet Me.prompty", "--model", "model-a")
    assert found["written"] == [
        {"name": "greet-me", "path": "prompts/greet-me.prompt.yml", "from": "old/Greet Me.prompty", "state": "new"}
    ]
    assert [(note["place"], note["what"]) for note in found["left_out"]] == [
        ("old/Greet Me.prompty", "Greet Me"),
        ("old/Greet Me.prompty: authors", '["Ann"]'),
        ("old/Greet Me.prompty: model", "gpt-4o"),
    ]
    assert project.json("check")["ok"] is True
    shown = project.json("render", "greet-me", "--local", "-v", "name=Ann")
    assert [message["content"] for message in shown["messages"]] == ["Be kind.", "Hi Ann"]


def test_a_folder_is_imported_with_its_partials_and_variants_below_a_folder_of_prompts(project):
    project.write("old/_tone.prompt", "Be kind.")
    project.write("old/sub/hello.prompt", "Hello {{name}}")
    project.write("old/mail.prompt", DOTPROMPT)
    project.write("old/mail.short.prompt", "Short {{who}}")
    found = project.json("import", "auto", "old", "--into", "prompts/genkit", "--model", "model-a")
    assert [each["name"] for each in found["written"]] == [
        "genkit.mail",
        "genkit.mail.short",
        "genkit.sub.hello",
        "genkit.tone",
    ]
    assert prompt(project, "prompts/genkit/mail.prompt.yml")["messages"] == [
        {"role": "user", "content": "{% include 'genkit.tone' %} {% if who %}To {{ who }}{% endif %}"}
    ]
    assert project.json("check")["ok"] is True
    shown = project.json("render", "genkit.mail", "--local", "-v", "who=Bo")
    assert shown["messages"][0]["content"] == "Be kind. To Bo"


def test_a_file_of_github_is_copied_as_it_is(project):
    project.write("old/a.prompt.yml", GOOD)
    assert project.run("import", "github", "old/a.prompt.yml")[0] == 0
    assert (project.folder / "prompts/a.prompt.yml").read_text() == GOOD


@pytest.mark.parametrize(
    ("named", "options", "model", "why"),
    [
        ("model-a", (), "model-a", None),
        ("azure/Model-A", (), "model-a", "the model is 'model-a' here"),
        ("gpt-4o", (), "gpt-4o", "turnout.yaml has no such model: add it there, or give --model ALIAS"),
        ("gpt-4o", ("--model", "model-a"), "model-a", "the model is 'model-a' here"),
    ],
)
def test_the_model_is_one_of_turnout_yaml_where_it_can_be(project, named, options, model, why):
    project.write("old/a.prompt.yml", GOOD.replace("model-a", named))
    found = project.json("import", "github", "old/a.prompt.yml", *options)
    assert prompt(project, "prompts/a.prompt.yml")["model"] == model
    assert [note["why"] for note in found["left_out"]] == ([why] if why else [])


def test_a_prompt_without_a_model_needs_one(project):
    project.write("old/a.txt", "Hi {{name}}")
    found = project.json("import", "promptfoo", "old/a.txt", exit_code=2)
    assert found["faults"] == [
        {"path": "old/a.txt", "line": 0, "message": "a: no model is named", "fix": "give --model ALIAS"}
    ]
    assert not (project.folder / "prompts/a.prompt.yml").exists()


def test_nothing_is_written_where_one_file_has_faults_and_all_are_told(project):
    project.write("old/a.prompty", PROMPTY)
    project.write("old/b.prompty", "---\nname: [\n---\nx")
    project.write("old/c.prompty", "user:\n{% import 'os' as os %}")
    found = project.json("import", "prompty", "old", "--model", "model-a", exit_code=2)
    assert {fault["path"] for fault in found["faults"]} == {"old/b.prompty", "old/c.prompty"}
    assert found["written"] == []
    assert "old/a.prompty: authors" in {note["place"] for note in found["left_out"]}
    assert sorted(path.name for path in (project.folder / "prompts").iterdir()) == ["support"]


def test_what_is_there_already_stays_without_force(project):
    project.write("old/a.prompt.yml", GOOD)
    project.write("prompts/a.prompt.yml", GOOD.replace("Hi", "Hello"))
    code, _, err = project.run("import", "github", "old/a.prompt.yml")
    assert code == 2
    assert "prompts/a.prompt.yml is there already" in err
    assert "Hello" in (project.folder / "prompts/a.prompt.yml").read_text()
    assert project.json("import", "github", "old/a.prompt.yml", "--force")["written"][0]["state"] == "replaced"
    assert (project.folder / "prompts/a.prompt.yml").read_text() == GOOD
    assert project.json("import", "github", "old/a.prompt.yml")["written"][0]["state"] == "same"


def test_a_dry_run_shows_and_writes_nothing(project):
    project.write("old/a.prompt.yml", GOOD)
    found = project.json("import", "github", "old/a.prompt.yml", "--dry-run")
    assert (found["dry_run"], [each["name"] for each in found["written"]]) == (True, ["a"])
    assert not (project.folder / "prompts/a.prompt.yml").exists()


def test_two_files_of_one_name_are_refused(project):
    project.write("old/a.prompt.yml", GOOD)
    project.write("old/A.prompty", PROMPTY)
    found = project.json("import", "auto", "old", "--model", "model-a", exit_code=2)
    assert [fault["message"] for fault in found["faults"]] == ["old/A.prompty makes the prompt 'a' as well"]


def test_an_include_that_is_nowhere_is_listed(project):
    project.write(
        "l.json", json.dumps({"name": "x", "version": 1, "prompt": "@@@langfusePrompt:name=gone|label=production@@@"})
    )
    found = project.json("import", "langfuse", "l.json", "--model", "model-a")
    assert "include gone" in [note["what"] for note in found["left_out"]]


def test_a_secret_in_a_file_stops_its_import(project):
    project.write("old/a.txt", "Use sk-proj-" + "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3bC5dE7fG9hJ1kL3" + " for it")
    found = project.json("import", "promptfoo", "old/a.txt", "--model", "model-a", exit_code=2)
    assert len(found["faults"]) == 1
    assert "aB3dE5gH7jK9mN1pQ3rS5tU7vW9xY1zA3bC5dE7fG9hJ1kL3" not in json.dumps(found["faults"])


def test_files_beside_are_read_below_the_folder_only(project):
    project.write("outside.json", '{"name": "secret"}')
    project.write("old/a.prompty", "---\nsample: ${file:../outside.json}\n---\nuser:\n{{ name }}")
    found = project.json("import", "prompty", "old", "--model", "model-a")
    assert "old/a.prompty: sample" in [note["place"] for note in found["left_out"]]
    assert "secret" not in (project.folder / "prompts/a.prompt.yml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone.prompty",), "gone.prompty: there is no such file or folder"),
        (("prompts",), "prompts: no file ends in .prompty"),
        (("a.prompty", "--model", "gpt"), "--model gpt: turnout.yaml has model-a"),
        (("a.prompty", "--into", "prompts/Über"), "--into"),
    ],
)
def test_bad_usage_is_told(project, arguments, message):
    project.write("a.prompty", PROMPTY)
    code, _, err = project.run("import", "prompty", *arguments)
    assert code == 2
    assert message in err


def test_the_table_and_the_list_of_what_was_left_out_are_for_people(project):
    project.write("old/a.prompty", PROMPTY)
    code, out, err = project.run("import", "auto", "old")
    assert code == 0
    assert "prompts/a.prompt.yml" in out
    assert "2 left out or changed:" in err
    assert 'old/a.prompty: authors: ["Ann"]: who made a version is recorded when it is pushed' in err


# ---------------------------------------------------------------------------- export


def test_a_working_tree_s_prompt_is_exported_to_github_and_loads_again(project):
    code, out, err = project.run("export", "support.triage", "--to", "github", "--local")
    assert code == 0
    assert yaml.safe_load(out) == {
        "model": "model-a",
        "messages": [{"role": "system", "content": "Route the ticket."}, {"role": "user", "content": "{{ ticket }}"}],
    }
    assert "left out: variables.ticket: GitHub takes any text, and has no defaults" in err
    project.write("prompts/again.prompt.yml", out)
    before, after = (project.json("render", name, "--local", "-v", "ticket=T") for name in ("support.triage", "again"))
    assert after["messages"] == before["messages"]


def test_messages_and_requests_are_exported_for_given_variables(project):
    config = 'models:\n  model-a: {engine: openai, base_url: "http://127.0.0.1:9/v1", model: gpt-4o}\n'
    project.write("turnout.yaml", config)
    messages = [{"role": "system", "content": "Route the ticket."}, {"role": "user", "content": "T"}]
    asked = ("support.triage", "--local", "-v", "ticket=T")
    assert project.json("export", *asked, "--to", "messages") == messages
    assert json.loads(project.run("export", *asked, "--to", "openai")[1]) == {"model": "gpt-4o", "messages": messages}


def test_an_export_can_go_to_a_file(project):
    code, out, err = project.run("export", "support.triage", "--local", "--output", "t.prompt.yml")
    assert (code, out) == (0, "")
    assert "wrote t.prompt.yml" in err
    assert yaml.safe_load((project.folder / "t.prompt.yml").read_text())["model"] == "model-a"


def test_a_version_of_the_registry_is_exported(project):
    assert project.run("push", "--local", "--message", "m")[0] == 0
    code, out, _ = project.run("export", "support.triage@1", "--local")
    assert code == 0
    assert yaml.safe_load(out)["messages"][1] == {"role": "user", "content": "{{ ticket }}"}
    assert (
        project.json("export", "support.triage@1", "--local", "--to", "messages", "-v", "ticket=T")[1]["content"] == "T"
    )


def test_an_export_without_a_needed_variable_names_it(project):
    code, _, err = project.run("export", "support.triage", "--local", "--to", "messages")
    assert code == 2
    assert "-v ticket=" in err


def test_the_files_without_faults_are_written_where_that_is_asked_for(project):
    project.write("old/bad.prompty", "---\nmodel: [\n---\nuser:\nHi\n")
    project.write("old/good.prompty", "---\nname: A\n---\nuser:\nHi {{ name }}\n")
    project.write("old/more.prompty", "---\nname: B\n---\nuser:\nHi {{ name }}\n")

    code, _, err = project.run("import", "prompty", "old", "--model", "model-a")
    assert code == 2
    assert "nothing was written: mend them, or go on without these files by --skip-broken" in err
    assert err.count("prompts that name no model have 'model-a', by --model") == 1

    found = project.json("import", "prompty", "old", "--model", "model-a", "--skip-broken")
    assert [each["name"] for each in found["written"]] == ["good", "more"]
    assert [fault["path"] for fault in found["faults"]] == ["old/bad.prompty"]
    assert (project.folder / "prompts/good.prompt.yml").is_file()
    assert not (project.folder / "prompts/bad.prompt.yml").exists()
