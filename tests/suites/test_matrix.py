"""promptfoo's matrix: lists among a case's variables, by what the prompt declares."""

import pytest

from prompts.errors import BadFile
from suites.case import Suite
from suites.files import load_suite, read_suite
from suites.matrix import Matrix, combinations, described

STRING, ARRAY = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
DECLARED = {"q": STRING, "lang": STRING, "n": {"type": "integer"}, "docs": ARRAY, "any": {}}


def written(folder, body, **files):
    (folder / "suites").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "suites" / name.replace("__", ".")).write_text(text)
    path = folder / "suites" / "a.suite.yml"
    path.write_text("prompt: p\n" + body)
    return path


def load(folder, body, declared=DECLARED, **files):
    return load_suite(written(folder, body, **files), folder, lambda name: declared if name == "p" else None)


def faults(folder, body, **files):
    with pytest.raises(BadFile) as raised:
        load(folder, body, **files)
    return [str(fault) for fault in raised.value.faults]


def variables(found):
    return [case.vars for case in found.suite.tests]


def test_a_list_where_one_value_is_wanted_is_a_case_with_each_in_every_combination(tmp_path):
    found = load(
        tmp_path,
        """tests:
  - vars: {q: [a, b], lang: [de, en]}
    description: greets
    assert: [{type: contains, value: "{{ q }}"}]
  - {vars: {q: c, lang: de}, assert: [{type: is-json}]}
""",
    )
    pairs = [(case["q"], case["lang"]) for case in variables(found)]
    assert pairs == [("a", "de"), ("a", "en"), ("b", "de"), ("b", "en"), ("c", "de")]
    assert len({case.id for case in found.suite.tests}) == 5
    assert [case.description for case in found.suite.tests] == [
        "greets (1 of 4: q=a, lang=de)",
        "greets (2 of 4: q=a, lang=en)",
        "greets (3 of 4: q=b, lang=de)",
        "greets (4 of 4: q=b, lang=en)",
        "",
    ]
    assert [place.line for place in found.places] == [3, 3, 3, 3, 6]


def test_what_a_server_is_sent_is_expanded_once_and_for_all(tmp_path):
    found = load(tmp_path, "tests: [{vars: {q: [a, b], docs: [x, y]}, assert: [{type: is-json}]}]\n")
    again = Suite.from_data(found.suite.as_data())
    assert [case.vars for case in again.tests] == [{"q": "a", "docs": ["x", "y"]}, {"q": "b", "docs": ["x", "y"]}]
    assert again.digest == found.suite.digest


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ("docs: [x, y]", True),  # an array is data
        ("docs: [1, 2]", True),  # also one that its schema refuses: told as that
        ("any: [x, y]", True),  # a list is allowed there
        ("n: [1, 2]", False),
        ("q: [[x], [y]]", False),
        ("q: []", True),  # nothing to make a case of: refused by the schema
        ("unknown: [x, y]", True),
    ],
)
def test_the_prompts_schema_decides(tmp_path, given, stays):
    found = load(tmp_path, f"tests: [{{vars: {{{given}}}, assert: [{{type: is-json}}]}}]\n")
    assert len(found.suite.tests) == (1 if stays else 2)


def test_one_of_several_types_that_allows_the_list_keeps_it():
    declared = {"a": {"type": ["string", "array"]}, "b": {"anyOf": [STRING, ARRAY]}, "c": {"anyOf": [STRING]}}
    assert Matrix(declared).axes({"a": ["x"], "b": ["x"], "c": ["x"]}) == {"c": ["x"]}


@pytest.mark.parametrize("options", ["defaultTest: {options: {disableVarExpansion: true}}\n", ""])
def test_it_can_be_switched_off(tmp_path, options):
    own = "" if options else ", options: {disableVarExpansion: true}"
    found = load(tmp_path, f"{options}tests: [{{vars: {{q: [a, b]}}, assert: [{{type: is-json}}]{own}}}]\n")
    assert variables(found) == [{"q": ["a", "b"]}]


def test_a_case_may_switch_on_again_what_the_default_switched_off(tmp_path):
    body = """defaultTest: {options: {disableVarExpansion: true, transform: output.trim()}}
tests: [{vars: {q: [a, b]}, assert: [{type: is-json}], options: {disableVarExpansion: false}}]
"""
    assert [case.options.transform for case in load(tmp_path, body).suite.tests] == ["output.trim()"] * 2


def test_a_prompt_that_is_not_known_expands_nothing(tmp_path):
    found = load_suite(written(tmp_path, "tests: [{vars: {q: [a, b]}, assert: [{type: is-json}]}]\n"), tmp_path)
    assert variables(found) == [{"q": ["a", "b"]}]


def test_lists_of_the_default_span_it_too(tmp_path):
    body = """defaultTest: {vars: {lang: [de, en]}, assert: [{type: is-json}]}
tests: [{vars: {q: a}}, {vars: {q: b, lang: fr}}]
"""
    found = [(case["q"], case["lang"]) for case in variables(load(tmp_path, body))]
    assert found == [("a", "de"), ("a", "en"), ("b", "fr")]


def test_a_matrix_beyond_the_bound_is_a_fault_of_its_line(tmp_path):
    many = "[" + ", ".join(map(str, range(400))) + "]"
    (fault,) = faults(tmp_path, f"tests:\n  - vars: {{q: {many}, lang: {many}}}\n    assert: [{{type: is-json}}]\n")
    assert "a.suite.yml:3: vars: the lists of q, lang stand for 160,000 cases; the most are 100,000" in fault


def test_a_fault_of_every_combination_is_told_once(tmp_path):
    (fault,) = faults(tmp_path, 'tests: [{vars: {q: [a, b, c]}, assert: [{type: equals, value: "{{ u }}"}]}]\n')
    assert "refers to {{ u }}, which the case does not have" in fault


def test_an_item_that_stands_twice_is_a_fault(tmp_path):
    (fault,) = faults(tmp_path, "tests: [{vars: {q: [a, b, a]}, assert: [{type: is-json}]}]\n")
    assert "a.suite.yml:2: two cases of its matrix are the same (remove the item that stands twice in a list)" in fault


def test_a_pattern_of_files_is_a_list_of_what_is_in_them(tmp_path):
    body = """tests:
  - {vars: {q: "file://notes_*.txt"}, assert: [{type: is-json}]}
  - {vars: {docs: "file://notes_*.txt"}, assert: [{type: is-json}]}
"""
    found = load(tmp_path, body, notes_b__txt="second\n", notes_a__txt="first\n")
    assert variables(found) == [{"q": "first"}, {"q": "second"}, {"docs": ["first", "second"]}]
    assert [path.name for path in found.sources] == ["a.suite.yml", "notes_a.txt", "notes_b.txt"]
    (fault,) = faults(tmp_path, "tests: [{vars: {q: 'file://none_*.txt'}, assert: [{type: is-json}]}]\n")
    assert "file://none_*.txt: no file fits" in fault


def test_descriptions_of_a_matrix_differ_even_where_long_values_begin_alike():
    axes = {"q": ["long " * 20 + "a", "long " * 20 + "b"]}
    found = [described("d", number, 2, chosen) for number, chosen in enumerate(combinations(axes), 1)]
    assert len(set(found)) == 2
    assert all(len(text) < 70 for text in found)


def test_what_is_left_of_a_suite_with_faults_is_expanded_too(tmp_path):
    body = "tests: [{vars: {q: [a, b]}, assert: [{type: is-jsn}, {type: is-json}]}]\n"
    found, told = read_suite(written(tmp_path, body), tmp_path, lambda _: DECLARED)
    assert [case.vars["q"] for case in found.suite.tests] == ["a", "b"]
    assert not found.is_whole
    assert len(told) == 1
