"""promptfoo's `options` of a case and of `defaultTest`."""

import pytest

from prompts.errors import BadFile
from prompts.schemas import Schema
from suites.case import Suite
from suites.judging import check_judges
from suites.schema import suite_schema

RUBRIC = {"type": "llm-rubric", "value": "fits"}


def suite(*asserts, options=None, default=None, **head):
    tests = [{"vars": {"t": "a", "context": "c"}, "assert": list(asserts), "options": options or {}}]
    return Suite.from_data({"prompt": "p", "defaultTest": default or {}, "tests": tests, **head})


def asserts(*args, **kwargs):
    return suite(*args, **kwargs).tests[0].asserts


def faults(*args, **kwargs):
    with pytest.raises(BadFile) as raised:
        suite(*args, **kwargs)
    return [(fault.message, fault.fix) for fault in raised.value.faults]


def test_the_provider_judges_where_an_assertion_names_none():
    own = {**RUBRIC, "value": "own", "provider": "third"}
    found = asserts(RUBRIC, own, {"type": "contains", "value": "x"}, options={"provider": "judge"})
    assert [spec.provider for spec in found] == ["judge", "third", None]
    check_judges(suite(RUBRIC, options={"provider": "judge"}), ["judge"])


def test_the_options_of_a_case_go_before_the_defaults_each_for_itself():
    default = {"options": {"provider": "one", "rubricPrompt": "Is {{ output }} {{ rubric }}?"}, "assert": [RUBRIC]}
    (spec,) = asserts(options={"provider": "two"}, default=default)
    assert (spec.provider, spec.rubric_prompt) == ("two", "Is {{ output }} {{ rubric }}?")


def test_models_of_text_and_of_embeddings_are_told_apart():
    provider = {"text": "judge", "embedding": "near"}
    found = asserts(
        RUBRIC, {"type": "similar", "value": "x"}, {"type": "answer-relevance"}, options={"provider": provider}
    )
    assert [spec.provider for spec in found] == ["judge", "near", "judge"]
    assert found[2].config == {"embeddings": "near"}


def test_they_reach_into_sets():
    inner = {"type": "assert-set", "assert": [RUBRIC]}
    (spec,) = asserts(inner, options={"provider": "judge", "rubricPrompt": "judges.tone"})
    assert (spec.asserts[0].provider, spec.asserts[0].rubric_prompt) == ("judge", "judges.tone")


def test_a_rubric_may_be_a_name_a_text_or_by_parts():
    for rubric in ("judges.tone@3", "Is {{ output }} good?", [{"role": "user", "content": "{{ output }}"}]):
        assert asserts(RUBRIC, options={"rubricPrompt": rubric})[0].rubric_prompt == rubric
    parts = {"steps": "For {{ criteria }}", "evaluate": "{{ output }} by {{ steps }}"}
    assert asserts({"type": "g-eval", "value": "x"}, options={"rubricPrompt": parts})[0].rubric_prompt == parts


def test_a_rubric_that_does_not_fit_an_assertion_is_a_fault_of_the_case():
    ((message, fix),) = faults({"type": "g-eval", "value": "x"}, options={"rubricPrompt": "Is {{ output }} good?"})
    assert message == "`g-eval` asks twice, its rubricPrompt must say for which"
    assert "write a mapping with `steps` and `evaluate`, at the assertion itself" in fix
    ((message, _),) = faults(RUBRIC, options={"rubricPrompt": "{{ output "})
    assert "rubricPrompt" in message


def test_default_assertions_may_be_left_away():
    default = {"assert": [{"type": "is-json"}]}
    assert [s.type for s in asserts(RUBRIC, options={"disableDefaultAsserts": True}, default=default)] == ["llm-rubric"]
    assert [s.type for s in asserts(RUBRIC, default=default)] == ["is-json", "llm-rubric"]


def test_what_is_stored_holds_what_became_of_them():
    found = suite(RUBRIC, options={"provider": "judge", "transform": "output.trim()"})
    assert found.as_data()["tests"][0]["options"] == {"transform": "output.trim()"}
    assert Suite.from_data(found.as_data()).digest == found.digest


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        (
            {"prefix": "x"},
            "`options.prefix` is not read: the prompt is tested as it is served",
            "write it into the prompt",
        ),
        ({"suffix": "x"}, "`options.suffix` is not read", "write it into the prompt"),
        ({"storeOutputAs": "x"}, "no case sees the answer to another", "placeholders"),
        ({"postprocess": "x"}, "older word", "call it `transform`"),
        ({"provider": {"id": "openai:gpt-4o", "config": {}}}, "named by its alias alone", "provider: ALIAS"),
        ({"provider": 7}, "`provider` names models", "provider: ALIAS"),
        ({"provider": {"txt": "judge"}}, "unknown key", "'text'"),
        ({"rubricPrompt": {"stepz": "x"}}, "no such parts", "evaluate"),
        ({"providr": "x"}, "unknown key", "'provider'"),
        ({"disableVarExpansion": "yes"}, "true or false", "without quotes"),
    ],
)
@pytest.mark.parametrize("place", ["case", "default"])
def test_what_means_nothing_here_says_why_and_what_to_write(options, message, fix, place):
    given = {"options": options} if place == "case" else {"default": {"options": options}}
    found = faults(RUBRIC, **given)
    assert any(message in told and fix in mend for told, mend in found), found


def test_all_of_them_are_told_at_once():
    found = faults(RUBRIC, options={"prefix": "x", "suffix": "y", "providr": "z", "transform": "output."})
    assert len(found) == 4


def test_an_alias_that_is_none_is_told_where_it_judges():
    with pytest.raises(BadFile) as raised:
        check_judges(suite(RUBRIC, options={"provider": "openai:gpt-4o"}), ["judge"])
    assert "turnout.yaml has no model 'openai:gpt-4o'" in str(raised.value)


@pytest.mark.parametrize("provider", ["judge", {"text": "judge", "embedding": "near"}])
def test_the_schema_for_editors_knows_both_forms_of_a_provider(provider):
    schema = suite_schema()
    options = {**schema["$defs"]["CaseOptions"], "$defs": schema["$defs"]}
    Schema(options).check({"provider": provider, "rubricPrompt": "judges.tone", "disableVarExpansion": True})
