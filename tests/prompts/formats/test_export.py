import json

from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.formats.export import github, openai_request
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.writing import prompt_text
from prompts.prompt import PromptContent, compile_prompt

FULL = PromptContent.model_validate(
    {
        "model": "gpt-4o",
        "parameters": {"temperature": 0, "max_tokens": 12, "top_p": 1, "seed": 7},
        "variables": {"ticket": {"type": "string"}, "tone": {"type": "string", "default": "kind"}},
        "placeholders": {"history": {"default": [{"role": "assistant", "content": "How can I {{ help }}?"}]}, "more": {}},
        "messages": [
            {"role": "developer", "content": "Route it."},
            {"placeholder": "history"},
            {"placeholder": "more"},
            {"role": "user", "content": [{"type": "text", "text": "{{ ticket | upper }}"},
                                         {"type": "image_url", "image_url": {"url": "https://i"}}]},
        ],
        "examples": [{"vars": {"ticket": "a {{"}, "expected": {"queue": "x"}}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": "json_schema",
        "output_schema": {"name": "o", "schema": {"type": "object"}},
    }
)  # fmt: skip
SIMPLE_TEXTS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(st.characters(exclude_categories=["Cs", "Cc"]))),
    min_size=1, max_size=4,
)  # fmt: skip


def again(exported):
    """What a load of the file that would be written gives."""
    return load_prompt(prompt_text(exported.keys), "p.prompt.yml", "p")


def test_github_s_file_holds_only_what_github_knows():
    exported = github(FULL, "Triage", "Routes tickets")
    assert exported.keys.keys() == {
        "name",
        "description",
        "model",
        "modelParameters",
        "messages",
        "responseFormat",
        "jsonSchema",
    }
    assert exported.keys["modelParameters"] == {"temperature": 0, "topP": 1, "maxTokens": 12}
    assert json.loads(exported.keys["jsonSchema"]) == {"name": "o", "schema": {"type": "object"}}
    assert exported.keys["messages"] == [
        {"role": "system", "content": "Route it."},
        {"role": "user", "content": '[{"type": "text", "text": "A {{ \'{{\' }}"}, {"type": "image_url", "image_url": {"url": "https://i"}}]'},
        {"role": "assistant", "content": '{"queue": "x"}'},
        {"role": "assistant", "content": "How can I {{ '{{' }} help }}?"},
        {"role": "user", "content": "{{ ticket | upper }}"},
    ]  # fmt: skip


def test_what_github_cannot_hold_is_listed():
    assert [line.partition(":")[0] for line in github(FULL).left_out] == [
        "modelParameters.seed",
        "messages.0.role",
        "placeholders.history",
        "placeholders.more",
        "messages.3.content",
        "messages.3.content",
        "variables.tone",
        "examples",
        "tools",
    ]


def test_repairs_are_told_to_be_lost():
    schema = {"response_format": "json_schema", "output_schema": {"name": "o", "schema": {"type": "object"}}}
    content = PromptContent(messages=({"role": "user", "content": "hi"},), model="m", repair=1, **schema)

    assert github(content).left_out == ("repair: GitHub's prompt files have none",)


def test_a_prompt_of_plain_messages_loses_nothing():
    content = PromptContent.model_validate({"model": "m", "messages": [{"role": "user", "content": "Hi {{ name }}"}],
                                            "variables": {"name": {"type": "string"}}})  # fmt: skip
    exported = github(content)
    assert exported.left_out == ()
    assert compile_prompt(again(exported).content).render({"name": "A"}) == compile_prompt(content).render(
        {"name": "A"}
    )


def test_examples_and_defaults_render_the_same_after_a_round_trip():
    content = FULL.model_copy(update={
        "messages": tuple(PromptContent.model_validate({"model": "m", "messages": [
            {"role": "system", "content": "{% if tone %}{{ tone }}{% endif %}"}, {"placeholder": "history"},
            {"role": "user", "content": "T: {{ ticket }}"}]}).messages)})  # fmt: skip
    content = content.model_copy(update={"placeholders": {"history": FULL.placeholders["history"]}})
    values = {"ticket": "t {% raw", "tone": "calm"}
    before = [(m.role, m.content) for m in compile_prompt(content).render(values)]
    after = [(m.role, m.content) for m in compile_prompt(again(github(content)).content).render(values)]
    assert after == before
    assert before[1:3] == [("user", "T: a {{"), ("assistant", '{"queue": "x"}')]


@settings(deadline=None)
@given(SIMPLE_TEXTS, st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_of_a_default_message_comes_back_as_it_was(pairs, last):
    default = [{"role": "assistant" if role == "system" else role, "content": text} for role, text in pairs]
    content = PromptContent.model_validate({
        "model": "m", "placeholders": {"past": {"default": default}},
        "messages": [{"placeholder": "past"}, {"role": "user", "content": "Now: {{ q }}"}],
        "variables": {"q": {"type": "string"}}})  # fmt: skip
    before = compile_prompt(content).render({"q": last})
    after = compile_prompt(again(github(content)).content).render({"q": last})
    assert [(m.role, m.content) for m in after] == [(m.role, m.content) for m in before]


def test_openai_s_request_is_the_render_with_the_model_s_own_name():
    rendered = {"messages": [{"role": "user", "content": "x"}], "model": "alias", "parameters": {"temperature": 0}}
    assert openai_request(rendered, "gpt-4o") == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0,
    }
