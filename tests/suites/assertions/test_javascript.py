import asyncio
import time

import pytest

from prompts.messages import Message
from suites.assertions import AssertionErrored, AssertionSpec, Output, Scene, assess, extras
from suites.assertions.children import CHILDREN
from suites.case import Case
from suites.judge import judge
from tests.suites.assertions.judging import errored, holds, judged, refused

FILE = """// three forms of one check
const LEAST = 3;
module.exports = (output, context) => output.length >= (context.config.least ?? LEAST);
"""


@pytest.mark.parametrize(
    ("code", "right", "wrong"),
    [
        ("output.includes('x')", "a x", "a"),
        ("output === 'x';", "x", "y"),
        ("output\n  .trim()\n  .endsWith('x')\n", "x ", "y"),
        ("JSON.parse(output).a > 1", '{"a": 2}', '{"a": 1}'),
        ("const n = output.length; n > 2", "abc", "a"),
        ("const n = output.length;\nif (n > 2) {\n  return true;\n}\nreturn false;", "abc", "a"),
        ("(output, context) => output === context.vars.wanted", "w", "v"),
        ("(output) => {\n  const n = output.length;\n  return n > 2;\n}", "abc", "a"),
        ("function (output) { return output === 'x' }", "x", "y"),
        ("async (output) => output === 'x'", "x", "y"),
        ("new Promise((found) => setTimeout(() => found(output === 'x'), 5))", "x", "y"),
        ("for (const c of output) { if (c === 'x') return true; }\nreturn false;", "ax", "a"),
        ("output.includes('require(') || output.includes('import x')", "require(1)", "y"),
        (FILE, "abc", "ab"),
        ("export default (output) => output === 'x'", "x", "y"),
        ("export function check(output) { return output === 'x'; }", "x", "y"),
        ("export const check = (output) => output === 'x';", "x", "y"),
        ("module.exports = {a: () => false, b: (o) => o === 'x'};\nmodule.exports = module.exports.b;", "x", "y"),
    ],
)
def test_every_form_of_promptfoo_holds_and_fails_and_is_turned_round_by_not(code, right, wrong):
    scene = {"variables": {"wanted": "w"}}
    assert holds("javascript", right, code, scene=scene)
    assert not holds("javascript", wrong, code, scene=scene)
    assert not holds("not-javascript", right, code, scene=scene)
    assert holds("not-javascript", wrong, code, scene=scene)


@pytest.mark.parametrize(
    ("code", "threshold", "passed", "score"),
    [
        ("0.5", None, True, 0.5),
        ("0", None, False, 0.0),
        ("-1", None, False, 0.0),
        ("0.5", 0.5, True, 0.5),
        ("0.5", 0.6, False, 0.5),
        ("output.length * 10", 25, True, 1.0),
        ("({pass: true, score: 0.4, reason: 'so'})", None, True, 0.4),
        ("({pass: true, score: 0.4, reason: 'so'})", 0.5, False, 0.4),
        ("({pass: false})", None, False, 0.0),
        ("({score: 0.7})", 0.6, True, 0.7),
    ],
)
def test_a_number_is_a_score_and_an_object_a_verdict(code, threshold, passed, score):
    found = judged("javascript", "abc", code, threshold=threshold)
    assert (found.passed, found.score) == (passed, score)


@pytest.mark.parametrize("code", ["'yes'", "null", "undefined", "[1]", "NaN", "({pass: 'no'})", "({})", "1n"])
def test_any_other_answer_is_errored(code):
    assert "the script" in errored("javascript", "x", code)


def test_the_context_has_variables_the_prompt_and_the_config():
    class Aids:
        async def question(self, case_id):
            return [Message("user", "Say x")]

    scene = {"variables": {"a": [1]}, "case_id": "c", "aids": Aids()}
    code = "JSON.stringify(context)"
    spec = AssertionSpec(type="javascript", value=f"({{pass: true, score: 1, reason: {code}}})", config={"k": 1})
    reason = asyncio.run(assess(Scene(Output("x"), **scene), spec)).reason
    assert reason == '{"vars":{"a":[1]},"prompt":"Say x","test":{"vars":{"a":[1]}},"config":{"k":1}}'


def test_an_answer_of_tool_calls_alone_is_given_as_them():
    calls = [{"function": {"name": "weather"}}]
    assert holds("javascript", Output("", message={"tool_calls": calls}), "output[0].function.name === 'weather'")


def test_named_scores_and_component_results_become_parts_with_metrics():
    code = """return {pass: true, score: 1, reason: 'all',
      namedScores: {tone: 0.25}, componentResults: [{pass: false, score: 0.5, reason: 'half'}]};"""
    case = Case.model_validate({"vars": {}, "assert": [{"type": "javascript", "value": code, "metric": "whole"}]})
    (outcome,) = asyncio.run(judge(case, Scene(Output("x")))).outcomes
    assert [(part.metric, part.status, part.score, part.reason) for part in outcome.walk()] == [
        ("whole", "passed", 1.0, "all"),
        (None, "failed", 0.5, "half"),
        ("tone", "passed", 0.25, "named by the script"),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "typeof require + typeof process + typeof fetch + typeof XMLHttpRequest + typeof WebAssembly + typeof Deno",
        "Object.getOwnPropertyNames(this ?? {}).filter((n) => /require|process|module|__dirname/.test(n)).join()",
    ],
)
def test_a_script_sees_nothing_of_the_host(code):
    reason = judged("javascript", "x", f"({{pass: true, reason: 'r' + ({code})}})").reason
    assert reason in ("r" + "undefined" * 6, "r")


def test_nothing_of_one_evaluation_is_left_for_the_next():
    leaving = "globalThis.left = output; Array.prototype.includes = () => true; Object.prototype.left = 1; true"
    assert holds("javascript", "x", leaving)
    for _ in range(10):
        assert holds("javascript", "x", "typeof left === 'undefined' && ({}).left === undefined && ![1].includes(2)")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("for (;;);", "took more than 1 s and was stopped"),
        ("/^(a|a)*$/.test('a'.repeat(40) + '!')", "took more than 0.2 s"),
        ("new Promise(() => 0)", "took more than 0.2 s"),
        ("const a = []; for (;;) a.push(new Array(1e5).fill(1))", "took more than 64 MiB"),
        ("const b = []; for (let i = 0; i < 40; i++) b.push(new Uint8Array(1e8).fill(1)); b.length > 1", "failed"),
        # V8 gives up its process for this one, or is killed, after seconds
        pytest.param("new Array(1e9).fill(0).length > 1", "", marks=pytest.mark.integration),
        ("(function f() { return f() })()", "Maximum call stack"),
        ("Object.prototype.toJSON = () => 1; true", "cannot be read"),
        ("throw new Error('no such luck')", "the script failed: Error: no such luck"),
        ("nowhere.x", "nowhere is not defined"),
        ("globalThis['req' + 'uire']('fs')", "is not a function"),
        ("eval('requ' + 'ire')('fs')", "scripts have no modules, no files and no network"),
    ],
)
def test_what_goes_wrong_is_errored_and_the_next_script_runs(code, reason):
    config = {"timeout_ms": 200} if "0.2 s" in reason else None
    assert reason in errored("javascript", "x", code, config=config)
    assert holds("javascript", "x", "output === 'x'")


def test_a_script_may_be_given_more_time_or_less():
    started = time.perf_counter()
    assert "more than 0.05 s" in errored("javascript", "x", "for (;;);", config={"timeout_ms": 50})
    assert time.perf_counter() - started < 10


@pytest.mark.integration
def test_scripts_leave_the_event_loop_free():
    async def both():
        spec = AssertionSpec(type="javascript", value="for (;;);", config={"timeout_ms": 500})
        turns = 0
        task = asyncio.create_task(assess(Scene(Output("x")), spec))
        while not task.done():
            turns += 1
            await asyncio.sleep(0.01)
        with pytest.raises(AssertionErrored):
            task.result()
        return turns

    assert asyncio.run(both()) > 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"value": "output ==="}, "is no JavaScript: SyntaxError"),
        ({"value": "if (output) {\n return true;"}, "is no JavaScript: SyntaxError"),
        ({"value": "require('fs').readFileSync('/etc/passwd')"}, "uses `require`"),
        ({"value": "const fs = require('fs');\nmodule.exports = () => true;"}, "uses `require`"),
        ({"value": "import fs from 'fs';\nexport default () => true;"}, "uses `import`"),
        ({"value": "import('fs')"}, "uses `import`"),
        ({"value": "fetch('https://example.com')"}, "uses `fetch`"),
        ({"value": "process.env.HOME"}, "uses `process`"),
        ({"value": "new XMLHttpRequest()"}, "uses `XMLHttpRequest`"),
        ({"value": ""}, "needs a script"),
        ({"value": ["a"]}, "needs a script"),
        ({"value": "true", "config": {"timeout_ms": 20_000}}, "timeout_ms cannot be 20000: write 1 to 10,000"),
        ({"value": "true", "provider": "gpt"}, "takes no `provider`"),
    ],
)
def test_a_script_that_could_not_run_is_refused(spec, message):
    assert message in refused(type="javascript", **spec)[0]


@pytest.mark.parametrize(
    "code",
    [
        "output.process.env === undefined",
        "// require('x') is not needed\ntrue",
        "const fetch = (x) => x; fetch(true)",
        "function process(x) { return x; }\nreturn process(output) === 'x';",
        "`import ${output}`.length > 0",
    ],
)
def test_words_that_only_look_like_the_host_are_accepted(code):
    assert refused_nothing(code)


def refused_nothing(code):
    from suites.assertions import check

    check(AssertionSpec(type="javascript", value=code))
    return True


def test_an_extra_is_looked_for_until_it_is_there_and_then_no_more(monkeypatch):
    answers, looked = [None, "found"], []
    monkeypatch.setattr(extras, "_there", set())
    monkeypatch.setattr(extras, "find_spec", lambda name: (looked.append(name), answers[len(looked) - 1])[1])

    assert refused(type="javascript", value="true")[0] == "`javascript` needs the extra `javascript`"
    assert holds("javascript", "x", "true")
    assert holds("javascript", "x", "true")
    assert looked == ["py_mini_racer"] * 2


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "_there", set())
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    fix = "pip install 'turnout[javascript]'"
    assert refused(type="javascript", value="true") == ("`javascript` needs the extra `javascript`", fix)
    assert refused(type="equals", value="x", transform="output") == ("`transform` needs the extra `javascript`", fix)


# ------------------------------------------------------------------------------------ transform


@pytest.mark.parametrize(
    ("kind", "value", "transform", "answer"),
    [
        ("equals", "x", "output.trim()", " x "),
        ("equals", 3, "output.length", "abc"),
        ("equals", {"a": 1}, "JSON.parse(output).b", '{"b": {"a": 1}}'),
        ("is-json", None, "output.replace(/```(json)?/g, '')", "```json\n{}\n```"),
        ("contains", "b", "const parts = output.split(',');\nreturn parts[1];", "a,b"),
        ("javascript", "output.a === 1", "JSON.parse(output)", '{"a": 1}'),
        ("equals", "v", "context.vars.a", "x"),
    ],
)
def test_what_a_transform_makes_is_judged(kind, value, transform, answer):
    assert holds(kind, answer, value, transform=transform, scene={"variables": {"a": "v"}})
    assert not holds("not-" + kind, answer, value, transform=transform, scene={"variables": {"a": "v"}})


def test_a_transform_that_fails_or_gives_nothing_makes_the_assertion_errored():
    assert "transform: the script failed" in errored("equals", "x", "x", transform="JSON.parse(output)")
    assert "transform: it gave nothing" in errored("not-equals", "x", "x", transform="null")
    assert "`transform` is no JavaScript" in refused(type="equals", value="x", transform="output.")[0]


def case(*asserts, **more):
    return Case.model_validate({"vars": {}, "assert": list(asserts), **more})


def test_a_transform_of_the_case_comes_first_and_holds_for_all_its_assertions():
    found = case(
        {"type": "equals", "value": "x"},
        {"type": "equals", "value": "X", "transform": "output.toUpperCase()"},
        options={"transform": "output.trim()"},
    )
    assert asyncio.run(judge(found, Scene(Output(" x ")))).status == "passed"
    broken = case({"type": "equals", "value": "x", "metric": "m"}, options={"transform": "JSON.parse(output)"})
    judgement = asyncio.run(judge(broken, Scene(Output("{"))))
    assert (judgement.status, judgement.outcomes[0].metric) == ("errored", "m")
    assert "transform: the script failed" in judgement.error


def test_a_case_with_a_transform_is_another_case():
    plain, transformed = (
        case({"type": "equals", "value": "x"}),
        case({"type": "equals", "value": "x"}, options={"transform": "output"}),
    )
    assert plain.id != transformed.id
    assert transformed.as_data()["options"] == {"transform": "output"}
    assert "options" not in plain.as_data()


def test_equal_transforms_of_one_answer_run_once(monkeypatch):
    asked = []
    ask = CHILDREN.ask

    async def counted(command, request, timeout_s):
        asked.append(request["input"]["code"])
        return await ask(command, request, timeout_s)

    monkeypatch.setattr(CHILDREN, "ask", counted)
    found = case(*({"type": "contains", "value": letter, "transform": "output + 'abc'"} for letter in "abc"))
    assert asyncio.run(judge(found, Scene(Output("x")))).status == "passed"
    assert asked == ["output + 'abc'"]
