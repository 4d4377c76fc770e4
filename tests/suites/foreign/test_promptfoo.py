"""promptfoo's configurations as prompts and suites; what is expected is what promptfoo 0.121 does with them."""

from __future__ import annotations

import json

import pytest

from prompts.errors import BadFile
from suites.foreign.converted import KnownModel, counted
from suites.foreign.promptfoo import convert, is_config
from tests.suites.foreign.converting import foreign, loaded, outcomes, wanted, why


def converted(config, files=None, **more):
    return convert(
        foreign(json.dumps({"prompts": ["Say {{word}}"], "providers": ["echo"], **config}), files), wanted(**more)
    )


def only(config, files=None, **more):
    [each] = converted(config, files, **more).suites
    return each


def cases(config, files=None, **more):
    return only(config, files, **more).suite["tests"]


def test_prompts_times_tests_are_a_suite_for_each_prompt():
    found = converted({
        "prompts": ["Say {{word}}", {"raw": "Sing {{word}} {{tune}}", "label": "Song"}],
        "tests": [{"vars": {"word": "hi", "tune": "low"}, "assert": [{"type": "contains", "value": "hi"}]}],
        "description": "Two ways",
    })  # fmt: skip
    assert [each.name for each in found.suites] == ["prompt-1", "song"]
    first, second = found.suites
    assert first.suite["tests"] == [{"vars": {"word": "hi"}, "assert": [{"type": "contains", "value": "hi"}]}]
    assert second.suite["tests"][0]["vars"] == {"word": "hi", "tune": "low"}
    assert first.suite["thresholds"] == {"pass_rate": 1.0}
    assert first.suite["description"] == "Two ways"
    assert outcomes(second) == ["passed"]


def test_a_default_test_comes_before_each_test_and_can_be_left_away():
    default = {"vars": {"word": "hi"}, "assert": [{"type": "contains", "value": "Say"}], "threshold": 0.5}
    tests = [
        {"assert": [{"type": "equals", "value": "no"}]},
        {"vars": {"word": "yo"}, "threshold": 1, "assert": [{"type": "equals", "value": "no"}]},
        {"options": {"disableDefaultAsserts": True}, "assert": [{"type": "equals", "value": "no"}]},
    ]
    each = only({"defaultTest": default, "tests": tests})
    assert [len(case["assert"]) for case in each.suite["tests"]] == [2, 2, 1]
    assert outcomes(each) == ["passed", "failed", "failed"]  # half is enough for the first


def test_lists_of_texts_are_a_matrix_and_other_lists_are_data():
    tests = [{"vars": {"word": ["a", "b"], "tune": ["c", "d"]}}, {"vars": {"word": [1, 2], "tune": "e"}}]
    each = only({"prompts": ["{{word}} {{tune}}"], "tests": tests})
    asked = [case["vars"] for case in each.suite["tests"]]
    assert asked[:4] == [{"word": a, "tune": b} for a in "ab" for b in "cd"]
    assert asked[4:] == [{"word": [1, 2], "tune": "e"}]
    kept = cases({"tests": [{"vars": {"word": ["a", "b"]}, "options": {"disableVarExpansion": True}}]})
    assert [case["vars"] for case in kept] == [{"word": ["a", "b"]}]


def test_scenarios_run_every_configuration_with_every_test():
    scenario = {
        "config": [{"vars": {"word": "a"}}, {"vars": {"word": "b"}}],
        "tests": [
            {"vars": {"tune": "x"}, "assert": [{"type": "contains", "value": "{{word}}{{tune}}"}]},
            {"vars": {"tune": "y"}},
        ],
    }
    each = only({"prompts": ["{{word}}{{tune}}"], "scenarios": [scenario]})
    assert [tuple(case["vars"].values()) for case in each.suite["tests"]] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    ]
    assert set(outcomes(each)) == {"passed"}


def test_tests_come_from_csv_json_lines_yaml_and_patterns_of_files():
    files = {
        "t.csv": "word,__expected,__description\nhi,contains:hi,one\n",
        "t.jsonl": '{"vars": {"word": "jl"}}\n',
        "more/a.yaml": "- vars: {word: ya}\n",
        "more/b.json": '[{"vars": {"word": "jb"}}]',
    }
    found = cases({"tests": ["file://t.csv", "t.jsonl", "file://more/*"]}, files)
    assert [case["vars"]["word"] for case in found] == ["hi", "jl", "ya", "jb"]
    assert found[0]["assert"] == [{"type": "contains", "value": "hi"}]
    assert cases({"tests": "t.csv"}, files)[0]["description"] == "one"


def test_variables_come_from_files_as_promptfoo_reads_them():
    files = {"a.txt": " text \n", "b.yaml": "k: 1\n", "c.json": '{"k": 2}', "n/1.txt": "one", "n/2.txt": "two"}
    tests = [{"vars": {"word": f"file://{name}"}} for name in ("a.txt", "b.yaml", "c.json", "n/*.txt")]
    found = [case["vars"]["word"] for case in cases({"tests": tests}, files)]
    assert found == ["text", '{"k":1}', '{"k": 2}', "one", "two"]
    assert cases({"tests": [{"vars": ["file://v.yaml"]}]}, {"v.yaml": "word: hi"})[0]["vars"] == {"word": "hi"}
    beside = {"t/t.yaml": "- vars: v_*.yaml\n", "t/v_1.yaml": "word: hi"}
    assert cases({"tests": "file://t/t.yaml"}, beside)[0]["vars"] == {"word": "hi"}


def test_variables_within_variables_and_filters_of_nunjucks_are_filled_in():
    test = {
        "vars": {"word": "{{ greeting | upper }}!", "greeting": "hi", "n": 3},
        "assert": [{"type": "equals", "value": "Say {{ word }}"},
                   {"type": "contains", "value": "{{ greeting | title }}", "weight": 0}],
    }  # fmt: skip
    [case] = cases({"tests": [test]})
    assert case["vars"] == {"word": "HI!"}
    assert case["assert"][0]["value"] == "Say HI!"
    assert case["assert"][1]["value"] == "Hi"


def test_a_name_without_value_prints_as_nothing():
    each = only({"prompts": ["{{word}}{{tune}}."], "tests": [{"vars": {"word": "a"}, "assert": [{"type": "equals", "value": "a."}]},
                             {"vars": {"word": "b", "tune": "c"}, "assert": [{"type": "equals", "value": "bc."}]}]})  # fmt: skip
    assert each.prompt["variables"] == {"tune": {"type": "string", "default": ""}, "word": {"type": "string"}}
    assert outcomes(each) == ["passed", "passed"]


def test_values_print_as_javascript_prints_them():
    each = only({
        "prompts": ["{{flag}} {{n}} {% if on %}on{% endif %}"],
        "tests": [{"vars": {"flag": True, "n": 2.0, "on": False}, "assert": [{"type": "equals", "value": "true 2 "}]}],
    })  # fmt: skip
    assert each.suite["tests"][0]["vars"] == {"flag": "true", "n": 2, "on": False}


def test_variables_that_only_scripts_look_at_are_facts():
    test = {
        "vars": {"word": "a", "wish": "Say a"},
        "assert": [{"type": "javascript", "value": "output === context.vars.wish"}],
    }
    each = only({"tests": [test]})
    assert each.suite["tests"][0]["facts"] == {"wish": "Say a"}
    assert "wish" not in each.prompt["variables"]
    assert outcomes(each) == ["passed"]


def test_a_chat_echoes_as_the_json_that_promptfoo_makes():
    chat = json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "{{word}}"}])
    whole = json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "hi"}], indent=2)
    each = only(
        {"prompts": [chat], "tests": [{"vars": {"word": "hi"}, "assert": [{"type": "equals", "value": whole}]}]}
    )
    assert outcomes(each) == ["passed"]


def test_tests_that_ask_and_expect_the_same_are_one_case():
    each = only(
        {"tests": [{"vars": {"word": "a"}}, {"vars": {"word": "b"}}, {"vars": {"word": "a"}, "description": "again"}]}
    )
    assert len(each.suite["tests"]) == 2
    assert each.order == (0, 1, 0)


def test_a_test_without_assertions_passes_and_is_told():
    found = converted({"tests": [{"vars": {"word": "a"}}]})
    assert outcomes(found.suites[0]) == ["passed"]
    assert why(found) == {"test without an assertion that could fail": "any answer passes it, as in promptfoo"}


UNSUPPORTED = [
    ({"assert": [{"type": "python", "value": "len(output) > 1"}]}, "assertion python"),
    ({"assert": [{"type": "moderation"}]}, "assertion moderation"),
    ({"assert": [{"type": "contains-shout", "value": "x"}]}, "assertion contains-shout"),
    ({"assert": [{"type": "javascript", "value": "file://check.ts"}]}, "javascript in a .ts file"),
    ({"assert": [{"type": "contains", "value": "file://make.py"}]}, "contains with a value that code makes"),
    ({"vars": {"word": "file://make.js"}}, "variable that a .js file makes"),
    ({"vars": {"word": "file://gone.txt"}}, "variable from a file"),
    ({"vars": {"word": "{{ word | nosuchfilter }}"}}, "template in a variable"),
    ({"options": {"transformVars": "x"}}, "test with options.transformVars"),
    ({"provider": "openai:gpt-4o"}, "test with provider"),
    ({"assertScoringFunction": "file://f.js"}, "test with assertScoringFunction"),
    ({"assert": [{"type": "select-best", "value": "kind"}]}, "assertion select-best"),
    ({"assert": [{"type": "contains", "value": "a", "contextTransform": "x"}]}, "assertion with contextTransform"),
    ({"threshold": 7}, "test with threshold"),
]


@pytest.mark.parametrize(("test", "what"), UNSUPPORTED)
def test_what_cannot_be_asked_is_set_aside_and_told(test, what):
    found = converted({"tests": [{"vars": {"word": "a"}, **test}, {"vars": {"word": "good"}}]})
    assert what in why(found)
    assert outcomes(found.suites[0]) == ["skipped", "passed"]
    assert found.suites[0].suite["tests"][0]["skip"].startswith(what)


def test_a_test_that_is_set_aside_tells_every_assertion_that_cannot_be_had():
    tests = [{"vars": {"q": "x"}, "assert": [{"type": "moderation"}, {"type": "icontains", "value": "y"},
                                             {"type": "no-such-kind"}]}]  # fmt: skip
    found = converted({"tests": tests}).left_out
    assert [note.what for note in found] == ["assertion no-such-kind", "assertion moderation"]


def test_what_is_left_out_is_counted_by_its_reason():
    tests = [{"vars": {"word": word}, "assert": [{"type": "moderation"}]} for word in "abc"]
    assert counted(converted({"tests": tests}).left_out)[0].startswith("3 × assertion moderation (write `llm-rubric`")


def test_javascript_files_and_python_files_that_may_run_are_kept():
    def find(reference):
        if reference != "checks/tone.py:polite":
            raise ValueError("not there")
        return f"evals/{reference}"

    asserts = [
        {"type": "javascript", "value": "file://c.js:fits"},
        {"type": "python", "value": "file://checks/tone.py:polite"},
    ]
    files = {"c.js": "module.exports = {fits: output => output.length > 3};"}
    [case] = cases({"tests": [{"vars": {"word": "a"}, "assert": asserts}]}, files, find_script=find)
    assert case["assert"][0]["value"].endswith("module.exports = module.exports.fits;")
    assert case["assert"][1]["value"] == "evals/checks/tone.py:polite"


def test_transforms_of_a_provider_a_default_and_a_test():
    config = {"defaultTest": {"options": {"transform": "output + '?'"}},
              "tests": [{"vars": {"word": "a"}, "assert": [{"type": "equals", "value": "Say a?"}]},
                        {"vars": {"word": "b"}, "options": {"transform": "output + '!'"},
                         "assert": [{"type": "equals", "value": "Say b!"}]}]}  # fmt: skip
    assert outcomes(only(config)) == ["passed", "passed"]
    beside = converted({**config, "providers": [{"id": "echo", "transform": "output"}]})
    assert outcomes(beside.suites[0]) == ["skipped", "skipped"]


def test_what_promptfoo_never_looks_at_keeps_no_case_from_being_asked():
    asserts = [
        {"type": "contains", "value": "Say", "threshold": 0.5, "config": {"a": 1}},
        {"type": "icontains", "value": ""},
    ]
    assert outcomes(only({"tests": [{"vars": {"word": "a"}, "assert": asserts}]})) == ["passed"]


def test_a_schema_may_be_written_as_text():
    asserts = [{"type": "contains-json", "value": '{"type": "object", "required": ["a"]}'}]
    each = only({"prompts": ['x {"a": "{{word}}"}'], "tests": [{"vars": {"word": "a"}, "assert": asserts}]})
    assert each.suite["tests"][0]["assert"][0]["value"] == {"type": "object", "required": ["a"]}
    assert outcomes(each) == ["passed"]


# ---------------------------------------------------------------------------- providers

KNOWN = {
    "mini": KnownModel("gpt-4o-mini", "https://api.openai.com/v1", has_price=True),
    "llama3": KnownModel("llama3", "http://127.0.0.1:11434/v1"),
    "echo": KnownModel("echo", has_price=True, is_echo=True),
}


@pytest.mark.parametrize(
    ("provider", "alias"),
    [("openai:gpt-4o-mini", "mini"), ("openai:chat:gpt-4o-mini", "mini"), ("openai:responses:gpt-4o-mini", "mini"),
     ("ollama:chat:llama3", "llama3"), ("ollama:llama3", "llama3"), ("vllm:llama3", "llama3"), ("echo", "echo"),
     ("https://api.openai.com/v1/chat/completions", "mini"), ({"id": "openai:gpt-4o-mini", "label": "x"}, "mini"),
     ({"openai:gpt-4o-mini": {"config": {}}}, "mini")],
)  # fmt: skip
def test_a_provider_is_the_alias_of_its_model(provider, alias):
    assert only({"providers": [provider]}, known=KNOWN).models == (alias,)


def test_providers_without_an_alias_are_all_named():
    found = converted({"providers": ["openai:gpt-4o", "file://mine.py", "exec:run.sh", "echo"]}, known=KNOWN)
    assert found.missing == ("openai:gpt-4o", "file://mine.py", "exec:run.sh")
    given = {"openai:gpt-4o": "mini", "file://mine.py": "none", "exec:run.sh": "llama3"}
    told = converted(
        {"providers": ["openai:gpt-4o", "file://mine.py", "exec:run.sh", "echo"]}, known=KNOWN, given=given
    )
    assert told.missing == ()
    assert told.suites[0].models == ("mini", "llama3", "echo")
    assert "provider file://mine.py" in why(told)


def test_providers_with_other_settings_are_asked_a_prompt_of_their_own():
    providers = [{"id": "openai:gpt-4o-mini", "config": {"temperature": 0}}, {"id": "ollama:llama3", "config": {"max_tokens": 9}},
                 {"id": "echo", "config": {"temperature": 0, "region": "x"}}]  # fmt: skip
    found = converted({"providers": providers, "tests": [{"vars": {"word": "a"}}]}, known=KNOWN)
    assert [(each.name, each.models) for each in found.suites] == [
        ("prompt-1-mini", ("mini", "echo")),
        ("prompt-1-llama3", ("llama3",)),
    ]
    assert found.suites[0].prompt["modelParameters"] == {"temperature": 0}
    assert "provider setting region" in why(found)
    apart = converted({"providers": ["openai:gpt-4o-mini", "echo"]}, known=KNOWN, apart=True)
    assert [each.models for each in apart.suites] == [("mini",), ("echo",)]


def test_judges_are_those_of_the_assertion_the_options_or_the_grader():
    asserts = [
        {"type": "llm-rubric", "value": "kind"},
        {"type": "llm-rubric", "value": "short", "provider": "ollama:llama3"},
    ]
    test = {"vars": {"word": "a"}, "assert": asserts}
    assert converted({"tests": [test]}, known=KNOWN).missing == ("grader",)
    [case] = cases({"tests": [test]}, known=KNOWN, given={"grader": "mini"})
    assert [each["provider"] for each in case["assert"]] == ["mini", "llama3"]
    options = {"options": {"provider": {"id": "openai:gpt-4o-mini"}}}
    assert cases({"tests": [test], "defaultTest": options}, known=KNOWN)[0]["assert"][0]["provider"] == "mini"
    aside = converted({"tests": [test]}, known=KNOWN, given={"grader": "none"})
    assert "assertion that grader judges" in why(aside)


def test_a_cost_needs_a_price():
    test = {"vars": {"word": "a"}, "assert": [{"type": "cost", "threshold": 1}]}
    assert "skip" not in cases({"tests": [test]}, known=KNOWN)[0]
    assert "give llama3 a `price`" in cases({"tests": [test], "providers": ["ollama:llama3"]}, known=KNOWN)[0]["skip"]


def test_providers_and_tests_choose_prompts_by_label():
    config = {
        "prompts": [{"raw": "A {{word}}", "label": "a"}, {"raw": "B {{word}}", "label": "b"}],
        "tests": [{"vars": {"word": "x"}}, {"vars": {"word": "y"}, "prompts": ["b"]}],
    }
    first, second = converted(config).suites
    assert [case["vars"]["word"] for case in first.suite["tests"]] == ["x"]
    assert [case["vars"]["word"] for case in second.suite["tests"]] == ["x", "y"]
    chosen = converted({**config, "providers": [{"id": "echo", "prompts": ["a"]}]})
    assert [each.name for each in chosen.suites] == ["a"]


# ---------------------------------------------------------------------------- the rest of a configuration


def test_the_environment_stands_in_texts_and_the_file_s_own_goes_before():
    config = {"prompts": ["{{ env.TONE }} {{word}}"], "env": {"TONE": "calm"},
              "tests": [{"vars": {"word": "{{env.WORD}}"}, "assert": [{"type": "equals", "value": "calm w"}]}]}  # fmt: skip
    assert outcomes(only(config, environment={"TONE": "loud", "WORD": "w"})) == ["passed"]


def test_references_within_the_file_are_followed():
    config = {"assertionTemplates": {"kind": {"type": "contains", "value": "Say"}},
              "tests": [{"vars": {"word": "a"}, "assert": [{"$ref": "#/assertionTemplates/kind", "weight": 2}]}]}  # fmt: skip
    assert cases(config)[0]["assert"] == [{"type": "contains", "weight": 2, "value": "Say"}]


def test_repeats_metadata_weights_and_metrics_are_kept():
    test = {"vars": {"word": "a"}, "metadata": {"area": "x", "deep": {"a": 1}},
            "assert": [{"type": "assert-set", "threshold": 0.5, "weight": 3, "metric": "m",
                        "assert": [{"type": "contains", "value": "a"}, {"type": "equals", "value": "z"}]}]}  # fmt: skip
    each = only({"tests": [test], "evaluateOptions": {"repeat": 3}})
    assert each.suite["repeat"] == 3
    assert loaded(each)[1].tests[0].tags == ("area=x",)
    assert each.suite["tests"][0]["assert"][0]["weight"] == 3


def test_keys_without_a_place_are_told_and_prompts_made_by_code_make_the_run_not_whole():
    found = converted({"prompts": ["Say {{word}}", "file://make.js"], "extensions": ["file://h.js"], "redteam": {}})
    assert {"`extensions`", "`redteam`", "file://make.js"} <= why(found).keys()
    assert found.unasked == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [({"prompts": ["file://make.py"]}, "made by code"), ({"tests": "https://docs.google.com/x"}, "fetched from a network"),
     ({"tests": ["file://make.ts"]}, "tests that code makes"), ({"providers": []}, "named by its id")],
)  # fmt: skip
def test_a_configuration_of_which_nothing_can_be_run_is_refused(config, said):
    with pytest.raises(BadFile, match=said):
        converted(config)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [("prompts: [a]", "promptfooconfig.yaml", True), ("prompts: [a]\nproviders: [b]", "x.yaml", True),
     ("prompt: a\ntests: []", "x.yaml", False), ("prompts: [a]\ntests: []", "x.suite.yml", False),
     ("- prompts", "x.yaml", False), ("{", "x.json", False)],
)  # fmt: skip
def test_a_configuration_is_known_by_its_name_or_its_keys(text, path, expected):
    assert is_config(text, path) is expected
