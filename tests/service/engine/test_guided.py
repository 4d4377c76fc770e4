"""Answers of a given form, on a model that would say anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from prompts.errors import BadInput
from service.engine.asks import Answer, Ask, GuideSpec

pytestmark = [
    pytest.mark.integration,  # a tiny model
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

KINDS = ("choice", "regex", "json", "grammar")
TEXT = {"type": "string", "maxLength": 12}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"queue": {"enum": ["billing", "bug"]}}, "required": ["queue"]},
    {"type": "object", "properties": {"a": TEXT, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
     "required": ["a", "b"], "additionalProperties": False},
    {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 5}, "minItems": 1, "maxItems": 4},
    {"type": "string", "maxLength": 8},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "uuid"},
    {"type": "boolean"},
    {"type": "null"},
    {"const": {"fixed": [1, 2, "three"]}},
    {"enum": ["one", 2, None, False]},
    {"anyOf": [{"type": "boolean"}, TEXT]},
    {"oneOf": [{"type": "boolean"}, {"type": "null"}]},
    {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    {"type": ["integer", "null"], "minimum": 3, "maximum": 30},
    {"type": "object", "properties": {"tags": {"type": "array", "items": TEXT, "maxItems": 3}},
     "required": ["tags"], "additionalProperties": False},
    {"type": "object", "patternProperties": {"^[a-z]{1,4}$": {"type": "boolean"}}, "additionalProperties": False,
     "minProperties": 1},
    {"$defs": {"node": {"type": "object", "properties": {"v": {"type": "boolean"},
     "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}, "required": ["v", "next"],
     "additionalProperties": False}}, "$ref": "#/$defs/node"},
    {"type": "array", "prefixItems": [{"type": "boolean"}, TEXT], "items": False, "minItems": 2},
    {"allOf": [{"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]},
     {"properties": {"y": {"type": "null"}}, "required": ["y"], "additionalProperties": {"type": "boolean"}}]},
]  # fmt: skip


def ask(spec: GuideSpec, text: str = "hello", **changes: Any) -> Ask:
    given = {"max_tokens": 400, "temperature": 1.0, "seed": 1}
    return Ask(({"role": "user", "content": text},), guide=spec, **{**given, **changes})


def answers(generator: Any, *asks: Ask) -> list[Answer]:
    return [future.result(120) for future in [generator.submit(one) for one in asks]]


@pytest.fixture(scope="module")
def generator(tiny_folder: Path) -> Iterator[Any]:
    import torch

    from service.engine.core import Generator
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel

    made = Generator(LoadedModel(tiny_folder, torch.device("cpu")), Limits(rows=16))
    made.start()
    yield made
    made.stop()


def test_a_random_model_keeps_to_twenty_schemas(generator: Any) -> None:
    assert len(SCHEMAS) == 20
    specs = [GuideSpec("json", json.dumps(schema)) for schema in SCHEMAS for _ in range(2)]
    given = [ask(spec, seed=number) for number, spec in enumerate(specs)]
    whole = 0
    for one, answer in zip(given, answers(generator, *given), strict=True):
        assert one.guide is not None
        if answer.finish_reason == "length":
            continue
        whole += 1
        jsonschema.validate(json.loads(answer.text), json.loads(one.guide.text))
    assert whole >= 36


def test_patterns_and_grammars_are_kept_to(generator: Any) -> None:
    import re

    pattern, lark, gbnf = answers(
        generator,
        ask(GuideSpec("regex", "[a-f]{3}-(é|ü){2}")),
        ask(GuideSpec("grammar", 'start: "yes" | "no" "!"{2}')),
        ask(GuideSpec("grammar", 'root ::= "ja" | "nein"')),
    )
    assert re.fullmatch("[a-f]{3}-(é|ü){2}", pattern.text)
    assert lark.text in ("yes", "no!!")
    assert gbnf.text in ("ja", "nein")
    assert {pattern.finish_reason, lark.finish_reason, gbnf.finish_reason} == {"stop"}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (GuideSpec("json", '{"const": "<|im_end|>"}'), '"<|im_end|>"'),
        (GuideSpec("regex", r"<\|im_end\|>!"), "<|im_end|>!"),
        (GuideSpec("grammar", 'start: "<|im_start|>" "a"'), "<|im_start|>a"),
    ],
)
def test_the_text_of_a_special_token_is_text_and_ends_no_answer(generator: Any, spec: GuideSpec, text: str) -> None:
    (answer,) = answers(generator, ask(spec))
    assert (answer.text, answer.finish_reason) == (text, "stop")


def test_no_special_or_missing_token_is_text_of_an_answer(generator: Any) -> None:
    from service.engine.guided import Guides, Vocabulary

    tokenizer, room = generator._model.tokenizer, 13
    width = len(tokenizer) + room
    guide = Guides(Vocabulary(tokenizer, width, [2])).guide(GuideSpec("regex", ".{1,99}"))
    allowed = guide.allowed(width).nonzero().flatten().tolist()
    assert not {0, 1, 2, *range(len(tokenizer), width)} & set(allowed)
    assert len(allowed) > 90


def test_an_answer_cut_by_max_tokens_says_so(generator: Any) -> None:
    spec = GuideSpec("regex", "[ab]{50}")
    (cut,) = answers(generator, ask(spec, max_tokens=5))
    assert (len(cut.text), cut.finish_reason) == (5, "length")


LABELS = ("billing", "account", "bug", "shipping")


def test_a_label_takes_one_pass_over_the_prompt(generator: Any) -> None:
    before = sum(generator.counters.batch_sizes.values())
    (answer,) = answers(generator, ask(GuideSpec("choice", choices=("x", "yes please", "Ärger")), temperature=0))
    assert answer.text in ("x", "yes please", "Ärger")
    assert answer.finish_reason == "stop"
    assert (
        sum(generator.counters.batch_sizes.values()) - before <= 2
    )  # once, and once more where it was too close to call


def test_the_greedy_choice_is_what_a_guided_greedy_decode_picks(generator: Any) -> None:
    import torch

    from service.engine.decoding import prefill
    from tests.service.engine.references import score_choices

    model = generator._model
    for text in ("one", "two", "three"):
        spec = GuideSpec("choice", choices=LABELS)
        tokens = [list(label.encode()) for label in LABELS]
        ids = [[model.tokenizer.encode(label)[place] for place in range(len(label))] for label in LABELS]
        assert [len(each) for each in ids] == [len(each) for each in tokens]
        (answer,) = answers(generator, ask(spec, text, temperature=0))
        logits = prefill(model, None, [model.encode(({"role": "user", "content": text},))]).logits[0]
        firsts = {each[0] for each in ids}
        best = max(firsts, key=lambda token: float(logits[token]))
        assert answer.text[0] == model.decode([best])
        distinct = ("a1", "b1", "c1")
        (score,) = score_choices(
            model, None, [model.encode(({"role": "user", "content": text},))],
            [[torch.tensor(model.tokenizer.encode(each)).numpy() for each in distinct]],
        )  # fmt: skip
        (answer,) = answers(generator, ask(GuideSpec("choice", choices=distinct), text, temperature=0))
        assert answer.text == distinct[int(score.argmax())]


def test_choices_are_drawn_in_proportion_with_a_temperature(generator: Any) -> None:
    import torch

    from tests.service.engine.references import score_choices

    choices, model, draws = ("a", "b", "c"), generator._model, 150
    messages = ({"role": "user", "content": "pick"},)
    ids = [torch.tensor(model.tokenizer.encode(each)).numpy() for each in choices]
    (score,) = score_choices(model, None, [model.encode(messages)], [ids])
    expected = score.exp()
    given = [ask(GuideSpec("choice", choices=choices), "pick", seed=seed) for seed in range(draws)]
    texts = [answer.text for answer in answers(generator, *given)]
    for choice, share in zip(choices, expected.tolist(), strict=True):
        assert abs(texts.count(choice) / draws - share) < 0.15  # more than three deviations


def test_one_label_may_begin_another(generator: Any) -> None:
    spec = GuideSpec("choice", choices=("bug", "bugs", "bu"))
    texts = {
        answer.text for answer in answers(generator, *[ask(spec, seed=seed, temperature=2.0) for seed in range(40)])
    }
    assert texts == {"bug", "bugs", "bu"}


def test_a_choice_is_the_same_alone_and_in_a_crowd(generator: Any) -> None:
    spec = GuideSpec("choice", choices=LABELS)
    given = [ask(spec, f"ticket {number}", temperature=0) for number in range(24)]
    alone = [answers(generator, one)[0].text for one in given[:8]]
    assert [answer.text for answer in answers(generator, *given)][:8] == alone


def test_log_probabilities_of_a_choice_are_of_all_its_tokens(generator: Any) -> None:
    (answer,) = answers(generator, ask(GuideSpec("choice", choices=("yes", "no")), temperature=0, top_logprobs=0))
    chances = answer.choices[0].chances
    assert chances is not None
    assert b"".join(chance.text for chance in chances).decode() == answer.text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (GuideSpec("json", '{"not": {"type": "string"}}'), r"JSON Schema .* Unimplemented keys: \[\"not\"\]"),
        (GuideSpec("json", '{"$ref": "https://example.com/x"}'), "Default retriever does not fetch resources"),
        (GuideSpec("json", '{"type": "object", "properties": {"a": false}, "required": ["a"]}'), "Unsatisfiable"),
        (GuideSpec("json", '{"items":' * 200 + "{}" + "}" * 200), "recursion limit"),
        (GuideSpec("regex", "(a"), "regular expression .* unclosed group"),
        (GuideSpec("regex", "a" * 70_000), "longer than 65,536 bytes"),
        (
            GuideSpec("json", '{"oneOf": [{"type": "string"}, {"const": "a"}]}'),
            "oneOf constraints are not supported; change it, or serve the model with vLLM$",
        ),
        (GuideSpec("regex", r"[^\s\S]"), "regular expression cannot guide an answer: no text fits it; change it$"),
        (GuideSpec("grammar", "start: foo"), 'grammar .* unknown name: "foo"'),
        (
            GuideSpec("grammar", f'start: "%json" | %json {{"type": "integer", "minimum": {1 - 2**63}, "maximum": 0}}'),
            "grammar cannot guide an answer: minimum -9223372036854775807 of an integer is no double",
        ),
    ],
)
def test_what_cannot_guide_is_refused_with_its_reason(generator: Any, spec: GuideSpec, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        generator.submit(ask(spec)).result(60)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
         "exclusiveMinimum 0 beside exclusiveMaximum 0.5 does not keep 0 out"),
        ({"type": ["number", "null"], "minimum": -1.5, "exclusiveMaximum": -1},
         "exclusiveMaximum -1 beside minimum -1.5 does not keep -1 out"),
        ({"type": "integer", "maximum": 2**64}, "maximum 18446744073709551616 of an integer is beyond 64 bits"),
        ({"type": ["integer", "null"], "exclusiveMaximum": 2**53 + 1},
         "exclusiveMaximum 9007199254740993 of an integer is no double: it would be rounded to 9007199254740992"),
        ({"type": "integer", "minimum": 1 - 2**63, "maximum": 3 - 2**63},  # of which llguidance overflows the stack
         "minimum -9223372036854775807 of an integer is no double: it would be rounded to -9223372036854775808"),
        ({"patternProperties": {"^[ab]$": {"type": "null"}}, "additionalProperties": False, "minProperties": 2},
         "minProperties 2 asks for 2 properties of any name, which could be the same one twice"),
        ({"type": "string", "x-guidance": {"lenient": True}},
         "x-guidance, by which llguidance may leave parts of a schema out, is not taken"),
        ({"type": "string", "pattern": "a" * 16_385}, "a pattern has 16,385 characters, allowed are 16,384"),
    ],
)  # fmt: skip
def test_a_schema_that_would_not_be_held_to_is_refused_by_name_wherever_it_stands(
    generator: Any, schema: dict[str, Any], said: str
) -> None:
    again = {"$ref": "#/$defs/node"}
    node = {"type": "object", "properties": {"next": {"anyOf": [again, {"type": "null"}, schema]}}}
    for whole in (schema, {"type": "array", "items": schema}, {"$defs": {"node": node}, **again}):
        with pytest.raises(BadInput, match=f"the JSON Schema cannot guide an answer: {said}; change it"):
            generator.submit(ask(GuideSpec("json", json.dumps(whole)))).result(60)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5},
        {"type": "integer", "exclusiveMinimum": 0, "maximum": 2**63 - 1},
        {"type": "integer", "minimum": -(2**60), "maximum": 2**53 + 2},
        {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"], "minProperties": 2},
        {"const": {"minProperties": 3, "type": "integer", "maximum": 2**70}},
        {"type": "object", "properties": {"minProperties": {"const": 3}}, "required": ["minProperties"]},
    ],
)
def test_a_schema_that_is_held_to_is_taken(schema: dict[str, Any]) -> None:
    from service.engine.unheld import unheld

    assert unheld(schema) is None


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}),
        ("structured_outputs.regex", {"structured_outputs": {"regex": "(a"}}),
        ("guided_json", {"guided_json": {"not": {}}}),
    ],
)
def test_a_refusal_names_the_field_that_asked(generator: Any, param: str, asked: dict[str, Any]) -> None:
    from service.engine.forms import read_guide

    unasked = ("response_format", "structured_outputs", *(f"guided_{kind}" for kind in KINDS))
    body: Any = SimpleNamespace(**{**dict.fromkeys(unasked), **asked})
    spec = read_guide(body)
    assert spec is not None
    with pytest.raises(BadInput, match="cannot guide an answer") as caught:
        generator.submit(ask(spec)).result(60)
    assert caught.value.param == param


def test_hostile_patterns_are_bounded(generator: Any) -> None:
    hostile = [
        GuideSpec("regex", "(a{1,1000}){1,1000}"),
        GuideSpec("regex", ".*a.{60}b.{60}"),
        GuideSpec("regex", "((a{1000}){1000}){1000}"),
        GuideSpec("regex", "a?" * 30_000),
        GuideSpec("grammar", f"start: /{'a?' * 30_000}/"),
        GuideSpec("json", json.dumps({"type": "string", "pattern": "a?" * 30_000})),
        GuideSpec("json", json.dumps({"patternProperties": {"a?" * 30_000: {}}})),
        GuideSpec("grammar", 'start: start start | "a" | '),
        GuideSpec("json", json.dumps({"type": "array", "minItems": 10**7, "items": {"type": "null"}})),
    ]
    started = time.process_time()
    for future in [generator.submit(ask(spec, max_tokens=8)) for spec in hostile]:
        error = future.exception(60)
        assert error is None or "cannot guide an answer" in str(error)
    assert time.process_time() - started < 10


def test_a_long_pattern_of_alternatives_guides(generator: Any) -> None:
    words = [f"label-{number:04}" for number in range(1_400)]
    (answer,) = answers(generator, ask(GuideSpec("regex", "|".join(words))))
    assert answer.text in words


@pytest.mark.parametrize("as_text", [False, True])
def test_a_schema_nested_too_deep_is_refused_before_anything_reads_it(as_text: bool) -> None:
    from service.engine.forms import read_guide

    nested: Any = {}
    for _ in range(5000):
        nested = {"items": nested}
    schema = '{"items":' * 5000 + "{}" + "}" * 5000 if as_text else nested
    unasked = {"response_format": None, "guided_choice": None, "guided_regex": None, "guided_grammar": None}
    body: Any = SimpleNamespace(**unasked, guided_json=schema, structured_outputs=None)
    with pytest.raises(BadInput, match="guided_json is nested too deep: flatten it"):
        read_guide(body)
