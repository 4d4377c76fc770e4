import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BudgetExceeded, MissingVariable, RenderError, TemplateRefused
from prompts.template import MAX_OUTPUT_CHARACTERS, Template, includes, replace_includes


def render(source, **variables):
    return Template(source).render(variables)


VALUES = {
    "text": "a b",
    "number": 7,
    "items": [1, 2],
    "table": {"k": "v"},
    "rows": [{"k": "v"}],
}

BOMBS = {
    "huge range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "large body": "{% for a in range(99999) %}" + "{{ number }}" * 3000 + "{% endfor %}",
    "captured text": "{% set x %}{% for i in range(99999) %}" + "a" * 40_000 + "{% endfor %}{% endset %}",
    "doubled text": "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubled by +": "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubled by *": "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s * 2 %}{% endfor %}",
    "doubled by a block": "{% set n = namespace(s='ab') %}{% for i in range(99) %}"
    "{% set x %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = x %}{% endfor %}",
    "doubled list": "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "nested list": "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}",
    "nested mapping": "{% set n = namespace(s=1) %}{% for i in range(99) %}{% set n.s = {1: n.s, 2: n.s} %}{% endfor %}",
    "nested views": "{% set n = namespace(d={'a': 1}) %}{% for i in range(60) %}"
    "{% set n.d = {'a': n.d.items(), 'b': n.d.items()} %}{% endfor %}{{ n.d }}",
    "nested arguments printed": "{% set n = namespace(v=1) %}{% macro d() %}{% set n.v = varargs %}{% endmacro %}"
    "{% for i in range(60) %}{{ d(n.v, n.v) }}{% endfor %}{{ n.v }}",
    "nested arguments hashed": "{% set n = namespace(v=1) %}{% macro d() %}{% set n.v = varargs %}{% endmacro %}"
    "{% for i in range(60) %}{{ d(n.v, n.v) }}{% endfor %}{% set y = {}[n.v] %}",
    "nested named arguments": "{% set n = namespace(v=1) %}{% macro d() %}{% set n.v = kwargs %}{% endmacro %}"
    "{% for i in range(60) %}{{ d(a=n.v, b=n.v) }}{% endfor %}{{ n.v }}",
    "repeated list": "{{ [1] * 10 ** 9 }}",
    "repeated text": "{{ 'a' * 10 ** 9 }}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "macros by each other": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "tower of powers": "{{ 9 ** 9 ** 9 }}",
    "power of a power": "{{ 9999 ** 16 ** 16 }}",
    "growing product": "{% set n = namespace(x=3) %}{% for i in range(9999) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "negative power": "{{ 2 ** -(10 ** 12) }}",
    "long number": "{{ " + "9" * 5000 + " }}",
    "long number in hexadecimal": "{{ 0x" + "f" * 200_000 + " // 0x3" + "1" * 100_000 + " }}",
    "round far": "{{ 1|round(100000000, 'ceil') }}",
    "round far down": "{{ 1|round(-100000000) }}",
    "batch filled up": "{{ [1]|batch(100000000, 'x')|list }}",
    "many slices": "{{ [1]|slice(1000000000)|list }}",
    "wide JSON": "{{ [[[1]]]|tojson(indent=300000000) }}",
    "replace": "{{ ('a' * 2000)|replace('a', 'b' * 2000) }}",
    "replace again": "{% set n = namespace(s='aa') %}{% for i in range(99) %}"
    "{% set n.s = n.s|replace('a', 'aa') %}{% endfor %}",
    "replace the empty": "{{ ('a' * 2000)|replace('', 'b' * 2000) }}",
    "replaces kept": "{{ range(9999)|map('string')|map('replace', '1', 'a' * 1000000)|list|length }}",
    "join": "{{ range(99999)|join('a' * 2000) }}",
    "join of nested ranges": "{{ [range(99999), range(99999)]|join }}",
    "upper over and over": "{% set s = 'a' * 2000000 %}{% for i in range(50000) %}{% set x = s.upper() %}{% endfor %}",
    "title over and over": "{% for i in range(90000) %}{% set x = ('a ' * 1000000)|title %}{% endfor %}",
    "split over and over": "{% set s = 'a ' * 1000000 %}{% for i in range(50000) %}{% set x = s.split() %}{% endfor %}",
    "find over and over": "{% set s = 'a' * 29000 %}{% set p = 'a' * 49 ~ 'b' ~ 'a' * 49 %}"
    "{% for i in range(99999) %}{% set x = s.find(p) %}{% endfor %}",
    "in over and over": "{% set s = 'a' * 2000000 %}{% for i in range(90000) %}{% set x = 'b' in s %}{% endfor %}",
    "equal over and over": "{% set s = 'a' * 2000000 %}{% set t = 'a' * 2000000 %}"
    "{% for i in range(90000) %}{% set x = s == t %}{% endfor %}",
    "slice over and over": "{% set s = 'a' * 2000000 %}{% for i in range(90000) %}{% set x = s[::-1] %}{% endfor %}",
    "test over and over": "{% set s = 'a' * 2000000 %}{% for i in range(90000) %}{% set x = s is lower %}{% endfor %}",
    "loop.changed over and over": "{% set s = range(5000)|list %}{% for i in range(90000) %}"
    "{% set x = loop.changed(s + [i]) %}{% endfor %}",
    "long attribute path": "{% set n = namespace() %}{% set n.a = n %}"
    "{{ [n, n, n]|map(attribute='a' ~ '.a' * 900000)|list }}",
    "sort over and over": "{% for i in range(9999) %}{% set x = range(9999)|sort %}{% endfor %}",
    "sum of a range over and over": "{% for i in range(9999) %}{% set x = range(9999)|sum %}{% endfor %}",
    "nested brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "nested mappings": "{{ " + "{1:" * 3000 + "1" + "}" * 3000 + " }}",
    "nested ifs": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "nested fors": "{% for i in [1] %}" * 25 + "{% endfor %}" * 25,
    "many nots": "{{ " + "not " * 5000 + "1 }}",
    "many additions": "{{ " + "1+" * 5000 + "1 }}",
    "many attributes": "{{ table" + ".k" * 50_000 + " }}",
    "many filters": "{{ text" + "|upper" * 5000 + " }}",
    "many statements": "{{ number }}" * 500_000,
    "many literals": "{{ [" + "1," * 500_000 + "] }}",
    "folded constants": ("{{ ('a'" + "|replace('a', 'aaaaaaaaaaaaaaaa')" * 5 + ")[0] }}") * 2000,
    "open comments": "{#" * 200_000,
    "open blocks": "{% " * 200_000,
    "open raws": "{% raw %}" * 100_000,
    "too much output": "{% for i in range(9999) %}{{ text * 9999 }}{% endfor %}",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_a_template_without_end_is_ended_within_two_seconds(source):
    start_s = time.process_time()
    with pytest.raises((BudgetExceeded, TemplateRefused)):
        render(source, **VALUES)
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ text }}", "a b"),
        ("{{ text.upper() }} {{ text['title']() }}", "A B A B"),
        ("{{ text.split()|length }}", "2"),
        ("{{ table.k }}{{ table['k'] }}{{ table.get('x', 'y') }}", "vvy"),
        ("{% for k, v in table.items() %}{{ k }}={{ v }}{% endfor %}", "k=v"),
        ("{% for i in items if i > 1 %}{{ loop.index }}:{{ i }}{{ loop.last }}{% endfor %}", "1:2True"),
        ("{{ items|join(', ') }} {{ rows|join(', ', attribute='k') }}", "1, 2 v"),
        ("{{ 'aaa'|replace('a', 'b', 1) }}", "baa"),
        ("{{ rows|tojson }}", '[{"k": "v"}]'),
        ("{{ {'b': 1, 'a': '<é>'}|tojson(indent=1) }}", '{\n "a": "<é>",\n "b": 1\n}'),
        ("{{ items|batch(1)|list }} {{ 2.345|round(1) }}", "[[1], [2]] 2.3"),
        ("{{ items[::-1] }}{{ text[0] }}{{ items.0 }}", "[2, 1]a1"),
        ("{% macro m(x, y=2) %}{{ x }}{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 3, 4, z=5) }}",
         "13(4,){'z': 5}"),
        ("{% set n = namespace(t=0) %}{% for i in items %}{% set n.t = n.t + i %}{% endfor %}{{ n.t }}", "3"),
        ("{{ 'k' in table }} {{ 2 in items }} {{ 'b' in text }} {{ number == 7 }}", "True True True True"),
        ("{{ number is odd }} {{ text is string }} {{ missing is defined }}", "True True False"),
        ("{{ missing|default('there') }}", "there"),
        ("{% raw %}{{ text }}{% endraw %}{# nothing #}\n", "{{ text }}\n"),
        ("{% for k, group in rows|groupby('k') %}{{ k }}{{ group|length }}{% endfor %}", "v1"),
        ("{{ 'x' * 400 }}", "x" * 400),
        ("", ""),
    ],
)  # fmt: skip
def test_what_templates_are_for_works(source, text):
    assert render(source, **VALUES) == text


def test_names_are_those_that_must_be_given():
    source = "{% set own = a %}{% for x in b %}{{ x.c }}{{ own }}{{ range(3)|list }}{% endfor %}{{ namespace(d=e).d }}"
    assert Template(source).names == {"a", "b", "e"}


def test_an_undefined_name_is_refused_wherever_it_would_become_text():
    for source in ("{{ gone }}", "{{ gone.k }}", "{% if gone %}{% endif %}", "{% for x in gone %}{% endfor %}",
                   "{{ 'a' ~ gone }}", "{{ table.gone }}", "{{ gone == 1 }}"):  # fmt: skip
        with pytest.raises(MissingVariable, match=r"gone"):
            render(source, **VALUES)


def test_an_error_names_the_line_and_the_reason():
    for source, reason in {
        "a\n{{ b": r"line 2: unexpected end of template",
        "a\n\n{% import 'x' as x %}": r"line 3: {% import %} is not allowed",
        "\n{{ x.__class__ }}": r"line 2: '__class__' is not open to templates",
        "{{ x|nope }}": r"No filter named 'nope'",
        "{% nope %}": r"line 1: Encountered unknown tag 'nope'",
    }.items():
        with pytest.raises(TemplateRefused, match=reason):
            Template(source)


def test_a_failing_filter_is_a_fault_of_the_template():
    with pytest.raises(TemplateRefused, match="the template failed: ZeroDivisionError"):
        render("{{ 1 // 0 }}")
    with pytest.raises(TemplateRefused, match="the template failed: TypeError"):
        render("{{ 1 + 'a' }}")


def test_what_has_no_text_of_its_own_is_told_how_to_become_text():
    with pytest.raises(TemplateRefused, match=r"add `\|list`"):
        render("{{ [1]|map('string') }}")
    with pytest.raises(TemplateRefused, match=r"call it with \(\)"):
        render("{{ 'a'.upper }}")


def test_the_budget_is_per_render():
    template = Template("{% for i in range(15000) %}{% endfor %}")
    assert [template.render({}) for _ in range(20)] == [""] * 20


def test_output_up_to_the_limit_is_given_and_not_one_more():
    assert len(render("{{ x }}", x="a" * MAX_OUTPUT_CHARACTERS)) == 2_097_152
    with pytest.raises(BudgetExceeded, match="more than 2,097,152 characters"):
        render("{{ x }}b", x="a" * MAX_OUTPUT_CHARACTERS)


def test_a_variable_may_bear_the_name_of_a_parameter_of_python():
    names = {"cls": "1", "context": "2", "environment": "3", "range": "4", "kwargs": "5", "globals": "6"}
    assert render("{{ cls }}{{ context }}{{ environment }}{{ range }}{{ kwargs }}{{ globals }}", **names) == "123456"


CODE = st.sampled_from(
    ["{{ 7 * 7 }}", "{% for i in range(3) %}", "{#", "{% include 'x' %}", "{{ text.__class__ }}", "}}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | CODE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | CODE, inner, max_size=4),
    max_leaves=10,
)


@given(st.text() | CODE)
def test_a_text_is_data_and_arrives_as_it_is(value):
    assert render("<{{ text }}|{{ text|trim }}|{{ [text]|join }}>", text=value) == f"<{value}|{value.strip()}|{value}>"


@given(JSON)
def test_any_json_value_gives_text_or_an_error_of_ours(value):
    for source in ("{{ x }}", "{{ x.k }}", "{{ x['k'] }}", "{{ x|tojson }}", "{% for i in x %}{{ i }}{% endfor %}",
                   "{{ x|length }}", "{{ x ~ x }}", "{{ x == x }}", "{{ x|sort|list }}", "{{ x|upper }}"):  # fmt: skip
        try:
            text = render(source, x=value)
        except RenderError:
            continue
        assert type(text) is str


@given(st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "{#", "#}", "if", "for", "in", "x", " ", ".", "[", "]", "(", ")",
                                 "|", "'", "a", "1", "~", "+", "endif", "endfor", "set", "=", "\n", "-", "raw", "endraw"]),
                max_size=25).map("".join))  # fmt: skip
def test_any_source_gives_text_or_an_error_of_ours(source):
    try:
        text = render(source, x="1", a=[1])
    except RenderError:
        return
    assert type(text) is str


def test_includes_are_found_in_order_and_replaced_by_text():
    source = "a {% include 'x.y' %} b\n{%- include \"z\" -%}\n c {{ v }} {% raw %}{% include 'no' %}{% endraw %}"
    assert includes(source) == ("x.y", "z")
    replaced = replace_includes(source, {"x.y": "<{{ v }}>", "z": "Z"}.__getitem__)
    assert replaced == "a <{{ v }}> bZc {{ v }} {% raw %}{% include 'no' %}{% endraw %}"
    assert render(replaced, v="1") == "a <1> bZc 1 {% include 'no' %}"


def test_an_include_takes_one_quoted_name_and_nothing_else():
    for inner in ("x", "'x' ignore missing", "'x' without context", "['x', 'y']", "'x' ~ 'y'", ""):
        with pytest.raises(TemplateRefused, match=r"line 2: write {% include 'name' %} with one quoted name"):
            includes("\n{% include " + inner + " %}")


def test_a_source_without_includes_is_replaced_by_itself():
    source = "a{{ b }}{% if c %}\n d {% endif %}{# e #}{% raw %}{{{% endraw %}\n\n"
    assert replace_includes(source, str) == source


@pytest.mark.parametrize(
    ("source", "names", "expected"),
    [
        ("R={{range}} N={{ namespace }}", {"range", "namespace"}, "R=5 N=6"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", set(), "012"),
        ("{% set n = namespace(x=1) %}{{ n.x }} {{ range }}", {"range"}, "1 5"),
        ("{% for range in [1] %}{{ range }}{% endfor %}", set(), "1"),
    ],
)
def test_a_variable_may_be_called_as_a_function_is_that_the_template_does_not_call(source, names, expected):
    template = Template(source)
    assert template.names == names
    assert template.render({"range": "5", "namespace": "6"}) == expected


def test_a_variable_named_self_is_to_be_renamed():
    with pytest.raises(TemplateRefused, match="line 1: 'self' is not open to templates: rename the variable"):
        Template("{{ self }}")
