import pytest

from prompts.errors import BadFile
from prompts.formats.imported import Foreign, fit_name, fit_variable
from prompts.formats.reading import FORMATS, detect, read
from tests.prompts.formats.importing import foreign

MESSAGE = '{"role": "user", "content": "x"}'


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.prompt.yml", "", "github"),
        ("A.prompty", "", "prompty"),
        ("a.b.prompt", "", "dotprompt"),
        ("promptfooconfig.yaml", "prompts: [a]", "promptfoo"),
        ("a.yaml", "- role: user\n  content: x", "promptfoo"),
        ("meta.yaml", "name: a\nversion: 1", "mlflow"),
        ("a.txt", "", "promptfoo"),
        ("a.csv", "", "promptfoo"),
        ("a.json", f"[{MESSAGE}]", "promptfoo"),
        ("a.json", f'{{"messages": [{MESSAGE}]}}', "openai"),
        ("a.json", '{"input": "x"}', "openai"),
        ("a.json", '{"name": "a", "version": 1, "template": "x"}', "mlflow"),
        ("a.json", '{"model_version": {}}', "mlflow"),
        ("a.json", '{"data": [{"name": "a", "prompt": "x", "version": 1}]}', "langfuse"),
    ],
)
def test_a_file_s_format_is_known_by_its_suffix_and_content(path, text, expected):
    assert detect(text, path) == expected


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [("a.pdf", "", "no format of prompts has this suffix"), ("a.json", '{"x": 1}', "none of the formats of prompts"),
     ("a.json", "{", "not valid JSON"), ("a.json", "[" * 70 + "]" * 70, "nests deeper than 64"),
     ("a.json", "[" * 100_000, "not valid JSON|nests too deeply")],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(path, text, message):
    with pytest.raises(BadFile, match=message):
        detect(text, path)


def test_github_s_file_is_checked_and_its_own_spellings_become_openai_s():
    text = "model: m\nmodelParameters: {maxTokens: 5, topP: 1, temperature: 0}\nmessages: [{role: user, content: x}]\n"
    keys = read("github", foreign(text, "a.prompt.yml")).prompts["a"]
    assert keys["modelParameters"] == {"temperature": 0, "max_tokens": 5, "top_p": 1}
    with pytest.raises(BadFile, match="unknown key 'modle'"):
        read("auto", foreign("model: m\nmodle: x\nmessages: [{role: user, content: x}]", "a.prompt.yml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Support/Triage Bot.v2", "support.triage-bot.v2"), ("_style", "style"), ("--a--", "a"), ("Ünï", "n"), ("???", ""),
     ("a..b", "a.b"), ("x" * 300, "x" * 200)],
)  # fmt: skip
def test_names_are_made_to_fit_the_grammar(text, expected):
    assert fit_name(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("name", "name"), ("user-id", "user_id"), ("_x", "x"), ("1st", "n1st"), ("class", "class_"),
     ("loop", "loop_"), ("--", "variable"), ("größe", "größe")],
)  # fmt: skip
def test_variables_are_made_to_fit_templates(text, expected):
    assert fit_variable(text) == expected


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "github"])
@pytest.mark.parametrize(
    "text", ["", "---", "{", "[[[", "\ufeff", "{{", "{%", "a: &x [*x]", "system:\n", "null", '{"prompt": {}}']
)
def test_no_reader_fails_with_anything_but_faults_of_the_file(name, text):
    path = f"a{FORMATS[name].suffixes[0]}"
    try:
        prompts = read(name, Foreign(text, path, "a")).prompts
    except BadFile as error:
        prompts = {}
        paths = {fault.path for fault in error.faults}
    else:
        paths = {path}
    assert paths == {path}
    assert all(keys["messages"] for keys in prompts.values())
