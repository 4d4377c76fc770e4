"""Handlebars and Mustache, and what our template for them renders: what Handlebars itself renders with the same values."""

import pytest

from prompts.errors import BadFile
from prompts.formats.handlebars import Converter, Variables
from prompts.formats.imported import Notes, Partial
from prompts.prompt import MessageTemplate, PromptContent, compile_prompt

ORDERS = {"type": "array", "items": {"type": "object", "required": ["name"],
                                     "properties": {"name": {"type": "string"}, "note": {"type": ["string", "null"]}}}}  # fmt: skip
STRING, NUMBER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
MATRIX = {"type": "array", "items": {"type": "array", "items": NUMBER}}
PRICES = {"type": "object", "additionalProperties": NUMBER}
USER = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": STRING, "tags": {"type": "array", "items": STRING}},
}
MAYBE = {"type": ["string", "null"], "default": None}

EQUIVALENTS = [
    # values
    ("Hi {{name}}!", {"name": STRING}, {"name": "<Ann>"}, "Hi <Ann>!"),
    ("Hi {{{name}}} {{&name}}", {"name": STRING}, {"name": "a&b"}, "Hi a&b a&b"),
    ("{{this.name}} {{./name}}", {"name": STRING}, {"name": "A"}, "A A"),
    ("{{user.name}}", {"user": USER}, {"user": {"name": "Ann"}}, "Ann"),
    ("{{user.[name]}} {{user.tags.[0]}} {{user.tags.length}}", {"user": {**USER, "required": ["name", "tags"]}},
     {"user": {"name": "Ann", "tags": ["x", "y"]}}, "Ann x 2"),
    ("[{{on}}]", {"on": BOOLEAN}, {"on": True}, "[true]"),
    ("[{{tags}}]", {"tags": {"type": "array"}}, {"tags": ["a", "b"]}, "[a,b]"),
    ("[{{maybe}}]", {"maybe": MAYBE}, {}, "[]"),
    ("[{{maybe}}]", {"maybe": MAYBE}, {"maybe": "x"}, "[x]"),
    # text
    (r"\{{name}} is {{name}}", {"name": STRING}, {"name": "A"}, "{{name}} is A"),
    (r"a\\{{name}}", {"name": STRING}, {"name": "A"}, r"a\A"),
    ("{% raw %} {# no #} {", {}, {}, "{% raw %} {# no #} {"),
    ("{{{name}}}}", {"name": STRING}, {"name": "A"}, "A}"),
    ("{ {{name}}", {"name": STRING}, {"name": "A"}, "{ A"),
    ("a{{! no }}b{{!-- }} --}}c", {}, {}, "abc"),
    # conditions
    ("{{#if on}}yes{{else}}no{{/if}}", {"on": BOOLEAN}, {"on": False}, "no"),
    ("{{#if n}}yes{{else}}no{{/if}}", {"n": NUMBER}, {"n": 0}, "no"),
    ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {"a": STRING, "b": STRING}, {"a": "", "b": "x"}, "B"),
    ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {"a": STRING, "b": STRING}, {"a": "", "b": ""}, "C"),
    ("{{#unless a}}none{{/unless}}", {"a": STRING}, {"a": ""}, "none"),
    ("{{#unless a}}none{{else}}some{{/unless}}", {"a": STRING}, {"a": "x"}, "some"),
    ("{{#if user.tags}}T{{/if}}.", {"user": USER}, {"user": {"name": "A"}}, "."),
    ("{{#ifEquals a 'x'}}=x{{else}}other{{/ifEquals}}", {"a": STRING}, {"a": "x"}, "=x"),
    ("{{#unlessEquals n 5}}not five{{/unlessEquals}}", {"n": NUMBER}, {"n": 4}, "not five"),
    # loops
    ("{{#each tags}}{{this}};{{/each}}", {"tags": {"type": "array"}}, {"tags": ["a", "b"]}, "a;b;"),
    ("{{#each tags}}{{@index}}{{.}}{{#unless @last}}, {{/unless}}{{/each}}", {"tags": {"type": "array"}},
     {"tags": ["a", "b"]}, "0a, 1b"),
    ("{{#each tags}}{{#if @first}}>{{/if}}{{@first}} {{/each}}", {"tags": {"type": "array"}}, {"tags": ["a", "b"]},
     ">true false "),
    ("{{#each tags}}x{{else}}none{{/each}}", {"tags": {"type": "array"}}, {"tags": []}, "none"),
    ("{{#each orders}}{{name}}({{note}}){{../who}} {{/each}}", {"orders": ORDERS, "who": STRING},
     {"orders": [{"name": "a"}, {"name": "b", "note": "n"}], "who": "W"}, "a()W b(n)W "),
    ("{{#each orders as |o i|}}{{i}}{{o.name}}{{note}}{{/each}}", {"orders": ORDERS},
     {"orders": [{"name": "a"}]}, "0a"),
    ("{{#each rows}}{{#each this}}{{@../index}}{{@index}}={{this}} {{/each}}{{/each}}", {"rows": MATRIX},
     {"rows": [[7], [8, 9]]}, "00=7 10=8 11=9 "),
    ("{{#each prices}}{{@key}}={{this}};{{/each}}", {"prices": PRICES}, {"prices": {"tea": 2, "milk": 1}}, "tea=2;milk=1;"),
    ("{{#each user.tags}}{{this}}{{else}}-{{/each}}", {"user": USER}, {"user": {"name": "A"}}, "-"),
    ("{{#each tags}}{{@root.who}}{{/each}}", {"tags": {"type": "array"}, "who": STRING}, {"tags": [1, 2], "who": "W"}, "WW"),
    # contexts
    ("{{#with user}}{{name}} {{../who}}{{/with}}", {"user": USER, "who": STRING}, {"user": {"name": "A"}, "who": "W"}, "A W"),
    ("{{#with user as |u|}}{{u.name}}{{/with}}", {"user": USER}, {"user": {"name": "A"}}, "A"),
    ("{{lookup tags n}}", {"tags": {"type": "array"}, "n": NUMBER}, {"tags": ["a", "b"], "n": 1}, "b"),
    # white space
    ("a  {{~name~}}  b", {"name": STRING}, {"name": "-"}, "a-b"),
    ("a\n{{#if on}}\nyes\n{{/if}}\nb", {"on": BOOLEAN}, {"on": True}, "a\nyes\nb"),
    ("a\n  {{#if on}}\nyes\n  {{else}}\nno\n  {{/if}}\nb", {"on": BOOLEAN}, {"on": False}, "a\nno\nb"),
    ("a {{#if on}}\nyes{{/if}}", {"on": BOOLEAN}, {"on": True}, "a \nyes"),
    ("a\n{{! gone }}\nb", {}, {}, "a\nb"),
    ("{{#each tags~}}\n {{this}}\n{{~/each}}", {"tags": {"type": "array"}}, {"tags": ["a", "b"]}, "ab"),
    # JSON: our own spelling of it
    ("{{json user}}", {"user": USER}, {"user": {"name": "A"}}, '{"name": "A"}'),
    ("{{json user indent=2}}", {"user": USER}, {"user": {"name": "A"}}, '{\n  "name": "A"\n}'),
    ("{{json this}}", {"n": NUMBER}, {"n": 1}, '{"n": 1}'),
]  # fmt: skip


def convert(source, schemas=(), partials=(), mustache=False):
    notes = Notes("t.prompt")
    variables = Variables(dict(schemas), notes)
    converter = Converter(variables, notes, dict(partials), mustache=mustache)
    template = converter.template(converter.read(source, 1))
    return template, variables.found(), notes.found


def rendered(source, schemas=(), values=(), **more):
    template, variables, _ = convert(source, schemas, **more)
    content = PromptContent(messages=(MessageTemplate(role="user", content=template),), variables=variables, model="m")
    return compile_prompt(content).render(dict(values))[0].content


@pytest.mark.parametrize(("source", "schemas", "values", "expected"), EQUIVALENTS)
def test_a_template_renders_as_handlebars_renders_it(source, schemas, values, expected):
    assert rendered(source, schemas, values) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hi {{name}}", "Hi {{ name }}"),
        ("{{#each orders}}{{name}}{{/each}}", "{% for order in orders %}{{ order.name }}{% endfor %}"),
        ("{{#if a}}x{{else if b}}y{{/if}}", "{% if a %}x{% elif b %}y{% endif %}"),
    ],
)
def test_the_template_is_what_an_author_would_have_written(source, expected):
    assert convert(source)[0] == expected


def test_undeclared_variables_get_the_schema_that_their_use_tells():
    source = "{{a}} {{#if b}}{{b}}{{/if}} {{#each c}}{{this}}{{/each}} {{d.x}} {{#if e}}!{{/if}}"
    assert convert(source)[1] == {
        "a": {"type": "string"},
        "b": {"type": "string", "default": ""},
        "c": {"type": "array"},
        "d": {"type": "object"},
        "e": {"type": "boolean", "default": False},
    }


def test_a_loop_s_variable_takes_no_name_that_the_template_uses():
    template, _, _ = convert("{{#each orders}}{{this}}{{../order}}{{/each}}")
    assert template == "{% for order2 in orders %}{{ order2 }}{{ order }}{% endfor %}"


def test_a_name_that_means_something_to_templates_is_changed_and_noted():
    template, variables, notes = convert("{{range}} {{class}} {{user-id}}")
    assert (template, sorted(variables)) == ("{{ range_ }} {{ class_ }} {{ user_id }}", ["class_", "range_", "user_id"])
    assert [note.what for note in notes] == ["range", "class", "user-id"]


def test_a_declared_variable_that_is_never_used_is_left_out_and_noted():
    _, variables, notes = convert("{{a}}", {"a": STRING, "b": STRING})
    assert (variables, [note.place for note in notes]) == ({"a": STRING}, ["t.prompt: variable b"])


def test_a_helper_defined_in_code_is_noted_and_its_arguments_stay():
    template, _, notes = convert("{{shout name}}{{#wrap x}}{{name}}{{/wrap}}", {"name": STRING})
    assert template == "{{ name }}{{ name }}"
    assert [(note.place, note.what) for note in notes] == [
        ("t.prompt:1", "helper shout"),
        ("t.prompt:1", "helper wrap"),
    ]


def test_context_data_becomes_a_variable_and_is_noted():
    template, variables, notes = convert("{{@auth.email}}")
    assert (template, variables) == ("{{ auth.email }}", {"auth": {"type": "object"}})
    assert notes[0].what == "@auth"


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("a\n{{#if x}}", 2, "{{#if x}} is never closed"),
        ("{{#if x}}\n{{/each}}", 2, "{{/each}} where {{/if}} should close line 1"),
        ("\n{{/if}}", 2, "{{/if}} closes nothing that is open"),
        ("{{name", 1, "has no end"),
        ("{{{{raw}}}}x{{{{/raw}}}}", 1, "raw blocks"),
        ("{{#> layout}}x{{/layout}}", 1, "is not read"),
        ("{{}}", 1, "a tag without a name"),
        ("{{#| x |}}{{/x}}", 1, "a tag without a name"),
        ("{{../x}}", 1, "../ leads out of the template"),
        ("{{@index}}", 1, "@index stands outside"),
        ("{{f (a}}", 1, "a parenthesis is never closed"),
        ("{{#if x}}{{role 'system'}}{{/if}}", 1, "{{role}} inside a block"),
        ("{{json this}}", 1, "`this` is all variables"),
        ("{{#a}}" * 70 + "{{/a}}" * 70, 1, "blocks nest deeper than 64"),
    ],
)
def test_what_is_no_template_is_refused_with_its_line(source, line, reason):
    with pytest.raises(BadFile) as raised:
        convert(source)
    fault = raised.value.faults[0]
    assert (fault.path, fault.line) == ("t.prompt", line)
    assert reason in fault.message


def test_partials_are_includes_or_stand_in_place_where_they_take_arguments():
    partials = {"tone": Partial("Be {{mood}}.", "shared.tone")}
    assert convert("{{> tone}} Now.", partials=partials)[0] == "{% include 'shared.tone' %} Now."
    assert convert('{{> tone mood="kind"}}', partials=partials)[0] == "Be {{ 'kind' }}."
    assert rendered("{{#each who}}{{> tone}} {{/each}}", {"who": {"type": "array"}}, {"who": [{"mood": "a"}, {"mood": "b"}]},
                    partials=partials) == "Be a. Be b. "  # fmt: skip


def test_partials_that_go_in_a_circle_are_refused():
    partials = {"a": Partial("{{> b x=1}}", "a"), "b": Partial("{{> a x=1}}", "b")}
    with pytest.raises(BadFile, match="go in a circle"):
        convert("{{> a x=1}}", partials=partials)


MUSTACHE = [
    ("{{name}} {{{name}}}", {"name": STRING}, {"name": "<A>"}, "<A> <A>"),
    ("{{#tags}}{{.}},{{/tags}}", {"tags": {"type": "array"}}, {"tags": ["a", "b"]}, "a,b,"),
    ("{{#orders}}{{name}} for {{who}};{{/orders}}", {"orders": ORDERS, "who": STRING},
     {"orders": [{"name": "a"}, {"name": "b"}], "who": "W"}, "a for W;b for W;"),
    ("{{#user}}{{name}}{{/user}}", {"user": USER}, {"user": {"name": "A"}}, "A"),
    ("{{#on}}yes{{/on}}{{^on}}no{{/on}}", {"on": BOOLEAN}, {"on": False}, "no"),
    ("{{^tags}}none{{/tags}}", {"tags": {"type": "array"}}, {"tags": []}, "none"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "schemas", "values", "expected"), MUSTACHE)
def test_mustache_sections_mean_what_their_value_is(source, schemas, values, expected):
    assert rendered(source, schemas, values, mustache=True) == expected
