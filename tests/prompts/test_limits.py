"""What no author and no value gets past: steps, output, sizes, depths. The worst are tried in a child of little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile, BudgetExceeded, RenderError, TemplateRefused
from prompts.formats.prompt_yml import PromptSource, load_prompt
from prompts.registry import nothing_registered, resolve, resolve_all
from prompts.schemas import Schema, check_schema
from prompts.template import MAX_OUTPUT_CHARACTERS, Template, one_budget, replace_includes
from prompts.yaml_source import load_yaml

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
ALLOWED_MEMORY = 700 * 1024 * 1024  # of address space, Python and its libraries included
ALLOWED_CPU_S = 60  # for all that one child tries


def render(source: str, **values: Any) -> str:
    return Template(source).render(values)


def refused(source: str, **values: Any) -> str:
    with pytest.raises((BudgetExceeded, TemplateRefused)) as raised:
        render(source, **values)
    return str(raised.value)


# ---------------------------------------------------------------------------- steps and output


@pytest.mark.parametrize(
    ("source", "most"),
    [
        ("{{% for i in range({}) %}}{{% endfor %}}", 99_999),
        ("{{% for i in range({}) %}}{{% for j in range(10) %}}{{% endfor %}}{{% endfor %}}", 7_692),
    ],
)
def test_loops_go_to_the_limit_of_steps_and_not_one_further(source: str, most: int) -> None:
    assert render(source.format(most)) == ""
    assert refused(source.format(most + 1)) in (
        "the template takes more than 100,000 steps",
        "the template failed: OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).",
    )


@pytest.mark.parametrize("source", ["{{{{ 'ab' * {} }}}}", "{{{{ {} * 'ab' }}}}"])
def test_a_text_is_repeated_to_the_limit_of_output_and_not_once_more(source: str) -> None:
    assert len(render(source.format(1_048_576))) == 2_097_152
    assert refused(source.format(1_048_577)) == "the template builds more than 2,097,152 characters"


def test_what_is_printed_piece_by_piece_counts_as_one_output() -> None:
    half = "a" * (MAX_OUTPUT_CHARACTERS // 2)
    assert len(render("{{ x }}{{ x }}", x=half)) == 2_097_152
    assert refused("{{ x }}-{{ x }}", x=half) == "the template gives more than 2,097,152 characters"


@pytest.mark.integration
def test_a_text_that_could_never_be_rendered_is_refused_when_it_is_written() -> None:
    assert len(render("a" * MAX_OUTPUT_CHARACTERS)) == 2_097_152
    with pytest.raises(TemplateRefused, match=r"the text has 2,097,153 characters; a prompt gives at most 2,097,152, "):
        Template("a" * (MAX_OUTPUT_CHARACTERS + 1))


def test_templates_of_one_prompt_share_one_budget() -> None:
    loop, text = Template("{% for i in range(60000) %}{% endfor %}"), Template("{{ 'a' * 1500000 }}")
    assert [len(template.render({})) for template in (loop, loop, text, text)] == [0, 0, 1_500_000, 1_500_000]
    for template, reason in ((loop, "more than 100,000 steps"), (text, "more than 2,097,152 characters")):
        with one_budget():
            template.render({})
            with pytest.raises(BudgetExceeded, match=reason):
                template.render({})


def test_templates_of_one_prompt_share_what_may_be_compiled() -> None:
    sources = [f"{{# {n} #}}" + "{{ x }}" * 3000 for n in range(3)]
    with one_budget():
        Template(sources[0])
        with pytest.raises(TemplateRefused, match="the prompt has more than 20,000 words and signs of template code"):
            [Template(source) for source in sources[1:]]
    assert Template(sources[2]).names == {"x"}


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ n() }}{% endmacro %}{% macro n() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}",
        "{% macro m(f) %}{% set g = f %}{{ g(g) }}{% endmacro %}{{ m(m) }}",
        "{% macro m(n=0) %}{% if n < 3 %}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m() }}",
        "{% set s = namespace() %}{% macro m() %}{{ s.f() }}{% endmacro %}{% set s.f = m %}{{ m() }}",
        "{% macro m(f) %}{{ caller(f) }}{% endmacro %}{% macro n(f) %}{{ f(f) }}{% endmacro %}{{ n(n) }}",
        "{% macro m(f) %}{% macro i(g) %}{{ g(f) }}{% endmacro %}{{ i(f) }}{% endmacro %}{{ m(m) }}",
    ],
)
def test_a_macro_that_calls_itself_by_whatever_way_is_refused(source: str) -> None:
    reason = refused(source)
    assert "calls itself: recursion is not open to templates, write a loop" in reason or "'caller'" in reason


def test_a_macro_may_be_called_often_within_another_and_around_itself() -> None:
    source = (
        "{% macro b(x) %}<{{ x }}>{% endmacro %}{% macro q(x) %}'{{ b(x) }}'{% endmacro %}{{ q(b(b(1))) }}{{ q(2) }}"
    )
    assert render(source) == "'<<<1>>>''<2>'"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ [1, 2, 3]|sum }} {{ rows|sum(attribute='n') }} {{ [[1], [2]]|sum(start=[]) }}", "6 3 [1, 2]"),
        ("{{ rows|tojson(indent=1) }}", '[\n {\n  "n": 1\n },\n {\n  "n": 2\n }\n]'),
        ("{{ 'cab'|sort|join }} {{ 'abc'|list|length }} {{ 2 ** 16 }} {{ 9 // 2 }}", "abc 3 65536 4"),
        ("{% for row in rows|batch(1) %}{{ row[0].n }}{% endfor %}", "12"),
    ],
)
def test_what_is_bounded_still_works(source: str, text: str) -> None:
    assert render(source, rows=[{"n": 1}, {"n": 2}]) == text


# ---------------------------------------------------------------------------- bombs, where memory and time are short

DEEP = "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s] %}{% endfor %}"
RENDERED = {
    "letters sorted": "{{ ('x' * 2000000)|sort }}",
    "letters listed": "{% set a = wide|list %}{% set b = wide|list %}{% set c = wide|list %}{{ a == b == c }}",
    "letters mapped": "{{ (wide|map('upper')|list)|length }}",
    "letters unique": "{{ wide|unique|list }}",
    "letters grouped": "{{ wide|groupby(0) }}",
    "letters in batches": "{{ wide|batch(1)|list }}",
    "letters in slices": "{{ wide|slice(2)|list }}",
    "lists added up": "{{ range(33000)|batch(1)|sum(start=[])|length }}",
    "deep JSON with wide indents": "{{ deep|tojson(indent=16)|length }}",
    "JSON of control characters": "{{ control|tojson }}",
    "escaped letters in a list": "{{ [control, control] }}",
    "percent signs": "{{ wide|urlencode }}",
    "long numbers printed": "{% for i in range(30000) %}{{ number }}{% endfor %}",
    "long numbers listed": "{{ [number] * 1 }}{% for i in range(9999) %}{% set x = [number, number]|join %}{% endfor %}",
    "long numbers multiplied": "{{ number * number }}",
    "long numbers raised": "{{ number ** 16 }}",
    "long numbers shown": "{{ huge }}",
    "numbers read from text": "{% for i in range(9999) %}{% set x = ('9' * 4000)|int %}{% endfor %}",
    "numbers of base 2": "{{ ('1' * 2000000)|int(0, 2) }}",
    "width of %": "{{ '%1000000000d' % 1 }}",
    "width of format": "{{ '{:1000000000}'.format(1) }}",
    "width of a filter": "{{ '%1000000000d'|format(1) }}",
    "center": "{{ 'a'|center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "indent": "{{ 'a\nb'|indent(1000000000) }}",
    "wordwrap": "{{ ('a ' * 1000000)|wordwrap(1, wrapstring='b' * 1000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "zfill": "{{ '1'.zfill(1000000000) }}",
    "truncate": "{{ ('a' * 2000000)|truncate(1999999, true, 'b' * 2000000) }}",
    "texts doubled": "{% set n = namespace(s=wide) %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "copies held": "{% set n = namespace(s=[]) %}{% for i in range(9999) %}{% set n.s = [n.s, wide.upper()] %}{% endfor %}",
    "blocks held": "{% for i in range(99999) %}{% set x %}{{ wide }}{% endset %}{% endfor %}",
    "filtered blocks": "{% for i in range(99999) %}{% filter upper %}{{ wide }}{% endfilter %}{% endfor %}",
    "splits": "{{ ('a' * 2000000).split('a')|map('replace', '', 'b' * 2000000)|list }}",
    "views of views": DEEP + "{% for i in range(9999) %}{{ {'a': n.s}.items()|list }}{% endfor %}",
    "range": "{{ range(10 ** 9)|list }}",
    "sort of much": "{% for i in range(999) %}{% set x = range(99999)|sort(reverse=true) %}{% endfor %}",
    "dictsort": "{% for i in range(9999) %}{% set x = table|dictsort %}{% endfor %}",
    "loops within loops": "{% for a in wide %}{% for b in wide %}{{ a }}{{ b }}{% endfor %}{% endfor %}",
    "values walked": "{% for a in deep %}{% for b in range(999) %}{% set x = deep == deep %}{% endfor %}{% endfor %}",
}
COMPILED = {
    "chains of filters": ("{{ x" + "|upper" * 40 + " }}") * 400,
    "chain of filters": "{{ x" + "|upper" * 9000 + " }}",
    "words": "{{ x }}" * 6667,
    "brackets": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "conditions": "{{ " + "1 if 1 else " * 4000 + "1 }}",
    "elifs": "{% if x %}" + "{% elif x %}" * 4000 + "{% endif %}",
    "slices": "{{ x" + "[1:]" * 4000 + " }}",
    "digits": "{{ " + "9" * 1_000_000 + " }}",
    "folds": "{{ " + "'ab' * 1000000 ~ " * 4000 + "1 }}",
    "powers": "{{ 9 ** 9 ** 9 ** 9 }}" * 1000,
    "loops in loops": "{% for a in b %}" * 1000 + "{% endfor %}" * 1000,
    "macros in macros": "{% macro m() %}" * 2000 + "{% endmacro %}" * 2000,
}
ACCEPTED_OR_REFUSED = {
    "list of literals": "{{ [" + "1," * 9900 + "] }}",
    "comparisons": "{{ 1" + " < 1" * 9900 + " }}",
    "chains of short filters": ("{{ x" + "|upper" * 40 + " }}") * 200,
    "sums": "{{ 1" + " + 1" * 150 + " }}" * 60,
    "arguments": "{% macro a(" + ",".join(f"a{n}=1" for n in range(4000)) + ") %}{% endmacro %}",
}
CHILD = """
    import json, resource, sys
    from prompts.errors import BadFile, RenderError
    from prompts.formats.prompt_yml import load_prompt
    from prompts.template import Template

    memory, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    deep = [1] * 80_000
    for _ in range(80):
        deep = [deep]
    values = dict(wide="\\U0001F600" * 500_000, control="\\0" * 1_000_000, number=10**4200, huge=10**9000, deep=deep, x="a",
                  table={str(n): n for n in range(999)}, b=[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    for line in sys.stdin:
        kind, name, source = json.loads(line)
        try:
            if kind == "file":
                load_prompt(source, "f", "f")
            else:
                Template(source).render(values)
            said = ""
        except (RenderError, BadFile) as error:
            said = f"{type(error).__name__}: {str(error)}"
        print(json.dumps([name, said]), flush=True)
"""


def tried_in_a_child(kind: str, sources: dict[str, str]) -> dict[str, str]:
    """What each of `sources` ends with ("" for nothing to complain about), where memory and processor time are short."""
    lines = "\n".join(json.dumps([kind, name, source]) for name, source in sources.items())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(ALLOWED_MEMORY), str(ALLOWED_CPU_S)],
        cwd=ROOT, input=lines, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    assert list(said) == list(sources), f"{done.returncode} {done.stderr[-2000:]}"
    return said


@pytest.mark.integration
def test_rendered_bombs_end_within_little_memory_and_time() -> None:
    said = tried_in_a_child("template", RENDERED)
    assert [name for name, reason in said.items() if not reason.startswith(("BudgetExceeded", "TemplateRefused"))] == []
    assert [name for name, reason in said.items() if "MemoryError" in reason or len(reason) > 400] == []


@pytest.mark.integration
def test_compiled_bombs_end_within_little_memory_and_time() -> None:
    said = tried_in_a_child("template", COMPILED | ACCEPTED_OR_REFUSED)
    assert [name for name in COMPILED if not said[name].startswith(("BudgetExceeded", "TemplateRefused"))] == []
    assert [name for name, reason in said.items() if "MemoryError" in reason or len(reason) > 400] == []


# ---------------------------------------------------------------------------- files

FOUR_MIB = 4 * 1024 * 1024
HEAD = "model: m\nmessages: [{role: user, content: a}]\n"
FILES = {
    "brackets": "a: [" + "[]," * (FOUR_MIB // 3) + "]",
    "lines": "a:\n" + "- b\n" * (FOUR_MIB // 4),
    "duplicate keys": "{" + "a: 1," * (FOUR_MIB // 5) + "}",
    "unknown keys": HEAD + "".join(f"k{n}: 1\n" for n in range(FOUR_MIB // 10)),
    "bad labels": HEAD + "labels: [" + "A," * (FOUR_MIB // 3) + "]",
    "fewer bad labels": HEAD + "labels: [" + "A," * 100_000 + "]",
    "fewer unknown keys": HEAD + "".join(f"k{n}: 1\n" for n in range(50_000)),
    "fewer duplicate keys": HEAD + "tags: [x]\n" * 50_000,
    "anchors": "a: [" + "".join(f"&a{n} x," for n in range(FOUR_MIB // 12)) + "]",
    "tags": HEAD + "tags: [" + "!x 1," * (FOUR_MIB // 5) + "]",
    "laughs": HEAD + "notes: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 30)),
    "one long text by many aliases": "a: &a " + "x" * MEGABYTE + "\nb: [" + "*a, " * 5000 + "]",
    "recursive anchor": "a: &a {b: *a}",
    "depth": "a: " + "[" * 2_000_000,
    "long key": HEAD + "b" * 1000 + ": 1",
    "long text": "model: m\nmessages:\n- role: user\n  content: |\n    " + "word " * 600_000,
    "messages": "model: m\nmessages:\n" + "- {role: user, content: '{{a}}'}\n" * (FOUR_MIB // 32),
}


@pytest.mark.integration
@pytest.mark.long
def test_files_that_explode_are_refused_within_little_memory_and_time() -> None:
    said = tried_in_a_child("file", FILES)
    assert [name for name, reason in said.items() if not reason.startswith("BadFile: f:")] == []
    assert [name for name, reason in said.items() if len(reason) > 4_000_000] == []


def test_of_many_faults_of_a_file_ten_thousand_are_shown_and_the_others_counted() -> None:
    with pytest.raises(BadFile) as raised:
        load_prompt(HEAD + "labels: [" + "A," * 10_150 + "]", "f", "f")
    assert len(raised.value.faults) == 10_001
    assert "f:1: 150 more faults of this file are not shown (mend these first)" in str(raised.value)
    with pytest.raises(BadFile) as raised:
        load_yaml("a: 1\n" * 10_250, "f")
    assert len(raised.value.faults) == 10_001
    assert str(raised.value).endswith("f:10002: the faults from here on are not shown (mend those before)")


@pytest.mark.integration
def test_a_file_of_too_many_values_says_what_to_do() -> None:
    assert len(load_yaml("[" + "1," * 249_999 + "]", "f").data) == 249_999
    with pytest.raises(
        BadFile, match=r"f:1: the file has more than 250,000 keys and values \(split it, or keep cases in"
    ):
        load_yaml("[" + "1," * 250_000 + "]", "f")


@pytest.mark.integration
def test_a_prompt_of_a_megabyte_is_read_resolved_and_rendered() -> None:
    text = "word " * (MEGABYTE // 5)
    source = load_prompt(
        f"model: m\nvariables: {{v: {{type: string, default: '{text}'}}}}\n"
        f"messages:\n- {{role: system, content: '{text}'}}\n- {{role: user, content: '{{{{ v }}}}'}}\n",
        "f",
        "f",
    )
    from prompts.prompt import compile_prompt

    messages = compile_prompt(resolve(source, {}, nothing_registered)).render({})
    assert [message.content == text for message in messages] == [True, True]


# ---------------------------------------------------------------------------- includes


def family(files: dict[str, str]) -> dict[str, PromptSource]:
    start = "model: m\nmessages:\n  - role: user\n    content: |-\n      "
    return {name: load_prompt(start + text, f"{name}.prompt.yml", name) for name, text in files.items()}


def include(name: str) -> str:
    return f"{{% include '{name}' %}}"


@pytest.mark.integration
def test_ten_thousand_includes_in_a_row_are_told_to_be_too_deep() -> None:
    files = family({f"a{n}": include(f"a{n + 1}") for n in range(10_000)} | {"a10000": "end"})
    with pytest.raises(BadFile) as raised:
        resolve(files["a0"], files, nothing_registered)
    assert str(raised.value) == (
        "a0.prompt.yml:4: includes nest deeper than 16: a0 → a1 → a2 → a3 → … (mend the include)"
    )
    assert resolve(files["a9990"], files, nothing_registered).messages[0].content == "end"  # type: ignore[union-attr]


@pytest.mark.integration
def test_includes_that_fan_out_are_bounded() -> None:
    files = {f"{s}{n}": (include(f"a{n + 1}") + include(f"b{n + 1}")) * 2 for n in range(15) for s in "ab"}
    with pytest.raises(BadFile, match="more than 4,194,304 characters"):
        resolve_all(family(files | {"a15": "x", "b15": "x"}), nothing_registered)


def test_one_long_text_is_not_included_over_and_over() -> None:
    with pytest.raises(TemplateRefused, match="line 1: includes give more than 4,194,304 characters"):
        replace_includes(include("x") * 2000, lambda _: "y" * MEGABYTE)


# ---------------------------------------------------------------------------- schemas

DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        ({"allOf": [{"items": {"type": "integer"}}] * 1000}, [1] * 10_000, "more than 500,000 checks are made"),
        ({"items": {"enum": [*range(1000), -1]}}, [-1] * 9999, "more than 500,000 checks are made"),
        ({"items": {"dependentRequired": {f"p{n}": [] for n in range(4000)}}}, [{}] * 9999, "more than 500,000 checks"),
        ({"items": {"const": [1] * 1000}}, [[1] * 1000] * 9999, "more than 500,000 checks are made"),
        ({"$ref": "#/$defs/d0", "$defs": DOUBLING}, 1, "more than 10,000 references are followed"),
        ({"unevaluatedProperties": False, "allOf": [{"$ref": "#/$defs/d0"}], "$defs": DOUBLING}, {"a": 1}, "10,000"),
        ({"items": {"pattern": "(a|a|aa)+$"}}, ["a" * 26 + "b"] * 9999, "regex timed out"),
        ({"$ref": "#"}, 1, "references go in a circle"),
    ],
)  # fmt: skip
def test_a_schema_that_would_be_applied_without_end_is_ended(schema: dict[str, Any], value: Any, reason: str) -> None:
    compiled = Schema(schema)
    with pytest.raises(ValueError, match=reason) as raised:
        compiled.check(value)
    assert len(str(raised.value)) <= 400


@pytest.mark.parametrize("schema", [{"allOf": [{}] * 5000}, {"properties": {f"p{n}": {} for n in range(5000)}}])
def test_a_schema_of_thousands_of_schemas_is_refused(schema: dict[str, Any]) -> None:
    for check in (Schema, check_schema):
        with pytest.raises(ValueError, match="it holds more than 5,000 schemas"):
            check(schema)


def test_a_value_of_some_size_satisfies_a_schema_of_some_size() -> None:
    row = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10)}, "required": ["p1"]}
    Schema({"type": "array", "items": row}).check([{f"p{n}": "x" for n in range(10)}] * 5000)


# ---------------------------------------------------------------------------- texts that are none


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("model: m\0", "f:1: the file holds a NUL byte (save it as plain UTF-8 text)"),
        ("a: 1\nb: \ud800", "f:2: the file holds half a character (save it as plain UTF-8 text)"),
        ('name: "a\\0b"\n' + HEAD, "f:1: the text holds a NUL character (remove the escape: databases cannot keep it)"),
    ],
)
def test_a_text_that_no_database_keeps_is_refused(text: str, fault: str) -> None:
    with pytest.raises(BadFile) as raised:
        load_prompt(text, "f", "f")
    assert str(raised.value) == fault


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert load_prompt("\ufeff" + HEAD, "f", "f").model == "m"


def test_errors_of_budgets_are_errors_of_rendering() -> None:
    assert issubclass(BudgetExceeded, RenderError)
