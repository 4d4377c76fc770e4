import json

import pytest

from suites.assertions import Output
from tests.suites.assertions.judging import errored, holds, judged, refused

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


def call(name="weather", arguments='{"city": "Oslo"}'):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls):
    return Output("", message={"role": "assistant", "content": None, "tool_calls": list(calls)})


KINDS = ("is-valid-openai-tools-call", "is-valid-openai-function-call", "is-valid-function-call")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (calling(call()), ""),
        (Output(json.dumps([call()])), ""),
        (Output(json.dumps({"tool_calls": [call()]})), ""),
        (calling(call("tomorrow")), "there is no function 'tomorrow'"),
        (calling(call(arguments='{"city": 5}')), "the arguments of weather: 5 is not of type 'string'"),
        (calling(call(arguments="{}")), "'city' is a required property"),
        (calling(call(arguments='{"city": ')), "are no JSON object"),
        (calling(call(arguments="[" * 100_000)), "are no JSON object"),
        (calling({"id": "c1"}), "no call in OpenAI's form"),
    ],
)
def test_a_call_is_valid_by_the_schema_of_the_prompts_tool(kind, answer, problem):
    found = judged(kind, answer, scene={"tools": TOOLS})
    assert found.passed == (not problem)
    assert problem in found.reason
    assert holds("not-" + kind, answer, scene={"tools": TOOLS}) == bool(problem)


@pytest.mark.parametrize("answer", ["", "It is sunny.", "[]", "5", "null", '{"weather": 1}'])
def test_text_without_a_call_is_none(answer):
    assert not any(holds(kind, answer, scene={"tools": TOOLS}) for kind in KINDS)


def test_every_call_must_be_valid_and_a_function_call_is_one_alone():
    both = calling(call(), call("tomorrow"))
    assert not holds("is-valid-openai-tools-call", both, scene={"tools": TOOLS})
    assert holds("is-valid-openai-tools-call", calling(call(), call()), scene={"tools": TOOLS})
    assert not holds("is-valid-openai-function-call", calling(call(), call()), scene={"tools": TOOLS})


def test_the_older_function_call_is_read_too():
    older = {"role": "assistant", "content": None, "function_call": call()["function"]}
    assert holds("is-valid-openai-function-call", Output("", message=older), scene={"tools": TOOLS})


def test_tools_may_be_given_and_without_any_it_is_errored():
    assert holds("is-valid-openai-tools-call", calling(call()), TOOLS)
    assert "declares no tools" in errored("is-valid-openai-tools-call", calling(call()))


@pytest.mark.parametrize(
    ("answer", "value", "score"),
    [
        (calling(call("a"), call("b")), ["a", "b"], 1.0),
        (calling(call("a")), "a, b", 2 / 3),
        (calling(call("a"), call("b"), call("c")), ["a", "b"], 0.8),
        (calling(call("a"), call("a")), ["a"], 1.0),
        (calling(call("b")), ["a"], 0.0),
        (Output("no call"), ["a"], 0.0),
        (Output('[{"name": "a"}]'), ["a"], 1.0),
        (Output('{"type": "tool_use", "name": "a", "input": {}}'), ["a"], 1.0),
        (Output('{"functionCall": {"name": "a"}}'), ["a"], 1.0),
        (Output('{"toolCall": {"functionCalls": [{"name": "a"}]}}'), ["a"], 1.0),
        (Output('I will:\n{"type": "function_call", "name": "a"}\n{"name": "b"}\ndone'), ["a", "b"], 1.0),
        (Output('```json\n{"name": "a"}\n```'), ["a"], 0.0),
        (Output('as in {"name": "a"}'), ["a"], 0.0),
        (Output("[" * 50_000), ["a"], 0.0),
    ],
)
def test_the_f1_of_called_tools_is_over_sets_of_names(answer, value, score):
    found = judged("tool-call-f1", answer, value)
    assert found.score == pytest.approx(score)
    assert found.passed == (score == 1.0)
    assert judged("not-tool-call-f1", answer, value).score == pytest.approx(1 - score)


def test_a_threshold_allows_for_less():
    assert holds("tool-call-f1", calling(call("a")), ["a", "b"], threshold=0.6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "tool-call-f1"}, "needs the names of tools"),
        ({"type": "tool-call-f1", "value": " , "}, "needs the names of tools"),
        ({"type": "tool-call-f1", "value": ["a", 5]}, "needs the names of tools"),
        ({"type": "tool-call-f1", "value": "a", "threshold": 2}, "has scores from 0 to 1"),
        ({"type": "is-valid-openai-tools-call", "value": "a"}, "takes a list of OpenAI's tools"),
        ({"type": "is-valid-openai-tools-call", "value": [{"function": {}}]}, "takes a list of OpenAI's tools"),
        ({"type": "is-valid-function-call", "value": [{"name": "a", "parameters": {"type": 1}}]}, "no JSON Schema"),
    ],
)
def test_a_spec_that_could_not_be_judged_is_refused(spec, message):
    assert message in refused(**spec)[0]
