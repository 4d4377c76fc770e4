"""The report before a launch: what it counts, what it refuses, and what it never repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune.data import (
    DataReport,
    Example,
    HeldOut,
    Source,
    Tokens,
    answer_limit,
    clean,
    digest,
    make_dataset,
    make_report,
    malformed,
    report_lines,
)
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt

QUEUES = ["billing", "shipping", "returns"]
TOPICS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
          "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor"]  # fmt: skip


def ticket(text: str, expected: str = "billing") -> Example:
    return Example({"ticket": text}, expected)


def prompt_of(**content: Any) -> CompiledPrompt:
    return compile_prompt(
        PromptContent(
            messages=({"role": "user", "content": "{{ ticket }}"},),
            variables={"ticket": {"type": "string"}},
            model="m",
            **content,
        )
    )


PLAIN = prompt_of()


def schema_prompt(schema: dict[str, Any]) -> CompiledPrompt:
    return prompt_of(response_format="json_schema", output_schema={"name": "answer", "schema": schema})


def examples(count: int = 22) -> list[Example]:
    return [ticket(f"{topic} {topic[::-1]}", QUEUES[at % 3]) for at, topic in enumerate(TOPICS[:count])]


def report_of(
    given: list[Example], heldout: Any = (), prompt: CompiledPrompt = PLAIN, tokens: Any = None
) -> DataReport:
    return make_report(given, heldout, prompt, tokens)


def by_characters(context: int | None = None, exact: bool = True) -> Tokens:
    return Tokens(lambda messages: sum(len(m.content) for m in messages), len, exact, context)


def test_every_example_is_counted_once():
    given = [*examples(), ticket("alpha ahpla", "returns"), ticket("Bravo ovarb", "shipping"), ticket("It broke")]
    report = report_of(given, [HeldOut({"ticket": "it broke"}, "support.triage@2", "c1")])
    assert (report.given, report.kept, report.heldout) == (25, 21, 1)
    assert report.dropped == {"duplicate": 1, "held-out": 1}
    assert report.contradicting == 2
    assert report.conflicts.shown[0].indexes == (0, 22)
    assert report.conflicts.shown[0].outputs == ("billing", "returns")
    assert [(one.index, one.repeats) for one in report.overlaps.shown] == [(24, "support.triage@2 case c1")]
    assert [(one.index, one.repeats) for one in report.duplicates.shown] == [(23, "example 1")]
    assert report.digest == digest(clean(given, [{"ticket": "it broke"}]).kept)
    assert report.refusals == ()
    assert DataReport.model_validate_json(report.model_dump_json()) == report


def test_lists_are_cut_and_totals_are_not():
    report = report_of([*examples(), *[ticket("alpha ahpla")] * 150])
    assert (report.duplicates.total, len(report.duplicates.shown)) == (150, 100)


def test_lengths_are_those_of_the_examples_kept():
    given = examples()
    lengths = report_of(given, tokens=by_characters()).lengths
    assert lengths is not None
    counts = sorted(len(example.vars["ticket"]) for example in given)
    assert (lengths.input.min, lengths.input.median, lengths.input.p95, lengths.input.max) == (
        counts[0], counts[10], counts[20], counts[21])  # fmt: skip
    assert lengths.answer.total == sum(len(example.expected) for example in given)


def test_an_example_beyond_the_context_refuses_where_tokens_are_exact_and_warns_where_not():
    given = [*examples(), ticket("x" + "yz" * 100)]
    exact = report_of(given, tokens=by_characters(100))
    assert [(one.index, one.tokens) for one in exact.lengths.too_long.shown] == [(22, 208)]
    assert "1 example with more tokens than the 100 that the model takes, and none is cut: 22" in exact.refusals[0]
    estimated = report_of(given, tokens=by_characters(100, exact=False))
    assert estimated.refusals == ()
    assert any("(estimated) tokens than the 100" in warning for warning in estimated.warnings)


def test_an_answer_beyond_max_tokens_refuses_where_tokens_are_exact():
    prompt = prompt_of(parameters={"max_tokens": 10})
    given = [*examples(), ticket("long", "x" * 12), ticket("just", "y" * 11)]  # an answer's end is one token more
    (refusal,) = report_of(given, prompt=prompt, tokens=by_characters()).refusals
    assert (
        "1 answer with more tokens than the 10 after which serving stops, the first with 11, in example 22" in refusal
    )
    assert report_of(given, prompt=prompt, tokens=by_characters(exact=False)).refusals == ()
    assert report_of(given, tokens=by_characters()).refusals == ()


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ({}, 512),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": None}, 512),
        ({"max_completion_tokens": 20}, 20),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
    ],
)
def test_an_answer_may_be_as_long_as_the_embedded_engine_lets_it(parameters: dict[str, Any], limit: int):
    from service.engine.protocol import as_ask, read_chat

    assert answer_limit(prompt_of(parameters=parameters)) == limit
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], **parameters}
    ask = as_ask(read_chat(json.dumps(body).encode()), "tiny", (), 0)
    assert ask.max_tokens == (limit if limit != 512 else None)  # the engine's own default, in one place with this one


def test_answers_are_labels_where_they_repeat():
    report = report_of(examples(9))
    assert (report.answers.kind, report.answers.distinct) == ("labels", 3)
    assert report.answers.counts == (("billing", 3), ("returns", 3), ("shipping", 3))
    assert report.answers.entropy_bits == pytest.approx(1.58496, abs=1e-5)
    free = report_of([ticket(f"{topic} {topic[::-1]}", f"answer {topic}") for topic in TOPICS])
    assert (free.answers.kind, free.answers.counts, free.answers.distinct) == ("free text", (), 22)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (examples(9), "9 of 9 examples are usable, which is too few"),
        ([*examples(), *[ticket(f"{topic} {topic[::-1]}", "other") for topic in TOPICS[:8]]], "16 of 30 examples give"),
        ([*examples(), Example({"text": "x"}, "billing")], "1 fault in examples that the prompt itself would refuse"),
    ],
)
def test_a_launch_is_refused_with_what_to_do(given, reason):
    refusals = report_of(given).refusals
    assert [refusal for refusal in refusals if reason in refusal]
    assert all(": " in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ([], "22 examples are few"),
        ([ticket("alpha ahpla!", "returns")], "1 group of inputs that are nearly the same with different answers"),
        (
            [ticket("Something else entirely", "Billing")],
            "differ in case, accents or white space alone: 'billing' and 'Billing'",
        ),
        ([ticket("Something else entirely", "sales")], "1 label with fewer than 3 examples: 'sales'"),
        ([ticket("Something else entirely", "billing ")], "1 answer with white space at an end"),
        ([ticket("write to ann@acme.io", "billing")], "1 piece of personal data in the examples"),
        ([ticket("password: s3cr3tQ9z81xw7vut5b2mn4k", "billing")], "1 secret in the examples"),
    ],
)
def test_what_to_look_at_is_a_warning(more, warning):
    report = report_of([*examples(), *more], [{"ticket": "unlike"}])
    assert [one for one in report.warnings if warning in one]
    assert report.refusals == ()


def test_one_answer_everywhere_is_a_warning():
    report = report_of([ticket(example.vars["ticket"]) for example in examples()])
    assert any("every example has the same answer" in warning for warning in report.warnings)
    assert report.refusals == ()


def test_one_label_of_nearly_all_is_a_warning():
    given = [ticket(example.vars["ticket"], "spam" if at < 3 else "ham") for at, example in enumerate(examples())]
    assert any("86% of the answers are 'ham'" in warning for warning in report_of(given).warnings)


def test_rare_labels_are_counted_behind_the_hundred_that_a_report_lists():
    labels = [f"intent {at:03d}" for at in range(130)]
    given = [
        ticket(f"{label} {at}{label[::-1]}", label)
        for label in labels
        for at in range(2 if label > "intent 119" else 3)
    ]
    report = report_of(given)
    assert (len(report.answers.counts), report.kept) == (100, 380)
    [warning] = [one for one in report.warnings if "fewer than 3" in one]
    assert warning == (
        "10 labels with fewer than 3 examples: 'intent 120', 'intent 121', 'intent 122', 'intent 123', 'intent 124' and 5 more"
    )


def test_a_warning_on_spellings_repeats_nothing_personal_and_no_whole_page():
    labels = ["mail ann@acme.io", "Mail ann@acme.io", "x" * 500, "X" * 500]
    report = report_of([ticket(f"{topic} {topic[::-1]}", labels[at % 4]) for at, topic in enumerate(TOPICS[:16])])
    [warning] = [one for one in report.warnings if "differ in case" in one]
    assert "'mail [e-mail address]' and 'Mail [e-mail address]'" in warning
    assert "ann@acme.io" not in warning
    assert len(warning) < 500


def test_a_report_repeats_no_secret_and_nothing_personal():
    hidden = ["ann@acme.io", "618-226-1460", "4111 1111 1111 1111"]
    given = [ticket(f"{value} wrote", f"reply to {value}") for value in hidden]
    given += [ticket(f"{value} wrote", "other") for value in hidden]
    report = report_of(given, prompt=schema_prompt({"enum": ["billing"]}))
    for text in (report.model_dump_json(), "\n".join(report_lines(report))):
        assert not [value for value in hidden if value in text]
    assert report.flagged == {"personal": 9}


def test_the_report_is_told_in_lines():
    given = [*examples(), ticket("It broke"), ticket("alpha ahpla", "returns")]
    lines = report_lines(
        report_of(given, [HeldOut({"ticket": "it broke"}, "support.triage@2", "c1")], tokens=by_characters())
    )
    assert lines[0] == "examples   24 given, 21 kept; compared with 1 held-out case"
    assert "  left out 1: same input as a held-out case" in lines
    assert "held-out   example 22: held-out, support.triage@2 case c1" in lines
    assert "conflict   examples 0, 23: 'billing' / 'returns'" in lines


# ---- malformed answers


@pytest.mark.parametrize(
    ("schema", "answer", "kind", "message"),
    [
        ({"type": "object"}, "billing", "json", "the answer is not JSON"),
        ({"type": "object"}, '{"a": NaN}', "json", "NaN is not JSON"),
        ({"type": "object", "required": ["queue"]}, "{}", "schema", "'queue' is a required property"),
        ({"properties": {"queue": {"enum": QUEUES}}}, '{"queue": "Biling"}', "label", "did you mean 'billing'?"),
        ({"properties": {"queue": {"enum": QUEUES}}}, '{"queue": "zzz"}', "label", "known are 'billing', 'shipping'"),
        ({"items": {"enum": QUEUES}}, '["billing", "shiping"]', "label", "$[1]: 'shiping' is not a known label"),
    ],
)
def test_answers_are_checked_against_the_output_schema(schema, answer, kind, message):
    found = malformed([ticket("a", answer)], schema_prompt(schema))
    assert [(one.index, one.kind) for one in found] == [(0, kind)]
    assert message in found[0].message


def test_answers_that_satisfy_the_schema_are_not_malformed():
    schema = {"type": "object", "properties": {"queue": {"enum": QUEUES}}, "required": ["queue"]}
    assert malformed([ticket("a", json.dumps({"queue": "billing"}))], schema_prompt(schema)) == []
    assert malformed([ticket("a", "no JSON at all")], PLAIN) == []


@pytest.mark.parametrize("answer", ["[1]", '"a"', "null", "3", "{"])
def test_json_object_wants_an_object(answer):
    assert [one.kind for one in malformed([ticket("a", answer)], prompt_of(response_format="json_object"))] == ["json"]


def test_a_schema_that_cannot_be_used_is_told():
    prompt = schema_prompt({"patternProperties": {"a": {}}})
    report = report_of(
        [ticket(example.vars["ticket"], f'"{example.expected}"') for example in examples()], prompt=prompt
    )
    assert any("patternProperties" in warning for warning in report.warnings)
    assert report.malformed.total == 0


# ---- lineage


def test_a_dataset_knows_where_its_examples_came_from():
    suite = Source(kind="suite", name="support.triage", version="3", examples=0)
    file = Source(kind="file", name="more.jsonl", version="sha256:ab", examples=0)
    dataset, found = make_dataset("triage", [(suite, examples(2)), (file, [ticket("x")])])
    assert found == [*examples(2), ticket("x")]
    assert (dataset.digest, dataset.examples) == (digest(found), 3)
    assert [dataset.place(at) for at in range(3)] == [
        "suite:support.triage example 0", "suite:support.triage example 1", "file:more.jsonl example 0"]  # fmt: skip
    assert [str(source) for source in dataset.sources] == [
        "suite:support.triage@3 (2 examples)", "file:more.jsonl sha256:ab (1 example)"]  # fmt: skip
    with pytest.raises(IndexError, match="has 3"):
        dataset.place(3)


def test_what_stands_in_the_prompt_is_counted_and_named():
    given = examples()
    shown = prompt_of(examples=({"vars": dict(given[3].vars), "expected": "billing"},))
    report = report_of(given, prompt=shown)
    assert (report.given, report.kept, report.dropped) == (22, 21, {"in-prompt": 1})
    assert (report.overlaps.total, report.duplicates.shown[0].repeats) == (0, "the prompt's example 0")
    lines = report_lines(report)
    assert "  left out 1: stands in the prompt as one of its examples" in lines
    assert "repeated   example 3: in-prompt, the prompt's example 0" in lines
