import time

import pytest

from prompts.errors import BadFile
from prompts.formats.prompt_yml import load_prompt
from prompts.prompt import PromptContent
from prompts.registry import MAX_INCLUDE_DEPTH, nothing_registered, resolve, resolve_all


def source(name, *contents, variables=""):
    messages = "".join(f"  - role: user\n    content: |-\n      {content}\n" for content in contents)
    return load_prompt(f"model: m\n{variables}messages:\n{messages}", f"{name}.prompt.yml", name)


def family(**contents):
    return {name: source(name, content) for name, content in contents.items()}


def include(name):
    return f"{{% include '{name}' %}}"


def faults_of(sources, registered=nothing_registered):
    with pytest.raises(BadFile) as raised:
        resolve_all(sources, registered)
    return [str(fault) for fault in raised.value.faults]


def test_includes_are_replaced_by_what_they_name_however_deep():
    sources = family(a=f"1 {include('b')} 5", b=f"2 {include('c')} 4", c="{{ three }}")
    assert resolve_all(sources, nothing_registered)["a"] == PromptContent(
        messages=[{"role": "user", "content": "1 2 {{ three }} 4 5"}],
        variables={"three": {"type": "string"}},
        model="m",
    )


def test_a_file_at_hand_goes_before_a_registered_version():
    registered = {"b": PromptContent(messages=[{"role": "system", "content": "old"}], model="m")}.get
    files = family(a=include("b"), b="new")
    assert resolve(files["a"], files, registered).messages[0].content == "new"
    assert resolve(files["a"], {}, registered).messages[0].content == "old"


def test_an_include_is_pinned_where_it_was_resolved():
    versions = {"b": PromptContent(messages=[{"role": "user", "content": "one"}], model="m")}
    before = resolve(source("a", include("b")), {}, versions.get)
    versions["b"] = PromptContent(messages=[{"role": "user", "content": "two"}], model="m")
    after = resolve(source("a", include("b")), {}, versions.get)
    assert (before.messages[0].content, after.messages[0].content) == ("one", "two")
    assert before.digest != after.digest


def test_the_including_prompt_declares_for_both():
    own = "variables:\n  v: {type: string, maxLength: 3}\n"
    files = {"a": source("a", include("b"), variables=own), "b": source("b", "{{ v }}{{ w }}")}
    assert resolve_all(files, nothing_registered)["a"].variables == {
        "v": {"type": "string", "maxLength": 3},
        "w": {"type": "string"},
    }


def test_whatever_is_wrong_with_includes_is_reported_together_at_their_lines():
    files = family(
        alone="fine",
        circle=include("round"),
        gone=f"x {include('nowhere')}",
        itself=include("itself"),
        round=include("circle"),
    )
    files["two"] = source("two", "a", "b")
    files["takes"] = source("takes", "x", f"y {include('two')}")
    assert faults_of(files) == [
        "circle.prompt.yml:4: include 'circle' goes in a circle: circle → round → circle (mend the include)",
        "gone.prompt.yml:4: include 'nowhere': no such prompt (mend the include)",
        "itself.prompt.yml:4: include 'itself' goes in a circle: itself → itself (mend the include)",
        "round.prompt.yml:4: include 'round' goes in a circle: round → circle → round (mend the include)",
        "takes.prompt.yml:7: include 'two' has 2 messages; a prompt that is included has one (mend the include)",
    ]


def chain(length):
    return family(**{f"p{n:02}": include(f"p{n + 1:02}") for n in range(length)}, **{f"p{length:02}": "end"})


def test_includes_may_nest_sixteen_deep_and_no_deeper():
    assert MAX_INCLUDE_DEPTH == 16
    assert resolve_all(chain(16), nothing_registered)["p00"].messages[0].content == "end"
    assert faults_of(chain(17)) == [
        "p00.prompt.yml:4: includes nest deeper than 16: p00 → p01 → p02 → p03 → … (mend the include)"
    ]


def test_includes_that_double_on_every_level_are_unfolded_once():
    files = family(**{f"p{n}": include(f"p{n + 1}") * 10 for n in range(14)}, p14="{#  #}")
    start_s = time.process_time()
    assert "more than 4,194,304 characters" in faults_of({"p0": files["p0"]} | files)[0]
    empty = family(**{f"p{n}": include(f"p{n + 1}") * 10 for n in range(14)}, p14="{{ v }}")
    empty["p14"] = source("p14", "")
    assert resolve_all(empty, nothing_registered)["p0"].messages[0].content == ""
    assert time.process_time() - start_s < 5


def test_an_included_text_that_breaks_its_surroundings_is_refused():
    with pytest.raises(BadFile):
        resolve_all(family(a=f"{{% if x %}}{include('b')}{{% endif %}}", b="{% endif %}"), nothing_registered)


def test_a_registered_content_cannot_bring_what_a_template_must_not_have():
    stranger = PromptContent(messages=[{"role": "user", "content": "{{ ''.__class__ }}"}], model="m")
    assert "'__class__' is not open to templates" in faults_of(family(a=include("b")), {"b": stranger}.get)[0]


def test_includes_within_raw_text_and_remarks_are_none():
    files = family(a="{% raw %}" + include("gone") + "{% endraw %}{# " + include("gone") + " #}")
    assert resolve_all(files, nothing_registered)["a"].messages[0].content == files["a"].messages[0].content


def test_an_included_prompt_with_examples_is_refused_instead_of_losing_them():
    files = family(a=include("b"))
    files["b"] = load_prompt(
        "model: m\nmessages:\n  - {role: user, content: '{{ q }}'}\nexamples: [{vars: {q: x}, expected: z}]",
        "b.yml",
        "b",
    )
    [fault] = faults_of(files)
    assert "include 'b' has few-shot examples, which an include would lose: move them to the prompt" in fault
