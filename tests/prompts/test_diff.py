import pytest

from prompts.diff import diff, diff_rendered, words
from prompts.errors import MissingVariable, UnexpectedVariable
from prompts.prompt import PromptContent


def content(*messages, **fields):
    return PromptContent(messages=[{"role": role, "content": text} for role, text in messages], model="m", **fields)


def test_the_same_content_has_no_difference():
    both = content(("system", "a"), ("user", "b"), parameters={"seed": 1})
    assert diff(both, both) == {"messages": [], "message_changes": [], "fields": {}, "changes": [], "same": True}


def test_a_changed_line_is_shown_with_its_role():
    found = diff(
        content(("system", "one\ntwo\nthree"), ("user", "x")), content(("system", "one\n2\nthree"), ("user", "x"))
    )
    assert found["messages"] == [
        "--- before",
        "+++ after",
        "@@ -1,4 +1,4 @@",
        " [system] one",
        "-[system] two",
        "+[system] 2",
        " [system] three",
        " [user] x",
    ]
    assert (found["fields"], found["same"]) == ({}, False)


def test_a_message_that_moves_to_another_role_is_a_change():
    found = diff(content(("system", "x")), content(("user", "x")))
    assert found["messages"][3:] == ["-[system] x", "+[user] x"]


def test_an_empty_message_that_is_added_is_seen():
    assert "+[user] " in diff(content(("user", "x")), content(("user", "x"), ("user", "")))["messages"]


def test_every_other_field_is_shown_before_and_after():
    before = content(("user", "x"), parameters={"temperature": 0}, variables={"a": {"type": "string"}})
    after = content(("user", "x"), parameters={"temperature": 1}, response_format="json_object")
    assert diff(before, after)["fields"] == {
        "parameters": [{"temperature": 0}, {"temperature": 1}],
        "variables": [{"a": {"type": "string"}}, {}],
        "response_format": [None, "json_object"],
    }


def test_a_last_newline_and_odd_ends_of_lines_are_differences_that_are_seen():
    assert diff(content(("user", "x\n")), content(("user", "x")))["messages"][3:] == [" [user] x", "-[user] "]
    for odd in ("\r\n", "\u2028", "\f"):
        assert diff(content(("user", "x\ny")), content(("user", f"x{odd}y")))["messages"] != []


# ---------------------------------------------------------------------------- message by message, word by word


def spans(found):
    return [(change["kind"], [(span["kind"], span["text"]) for span in change["words"]]) for change in found]


def test_within_a_changed_line_the_words_that_changed_are_told():
    found = diff(content(("system", "Be brief.\nUse plain words.")), content(("system", "Be brief.\nUse short words!")))
    assert spans(found["message_changes"]) == [
        (
            "changed",
            [
                ("same", "Be brief.\nUse "),
                ("removed", "plain"),
                ("added", "short"),
                ("same", " words"),
                ("removed", "."),
                ("added", "!"),
            ],
        )
    ]


def test_words_leave_both_texts_whole():
    before, after = "a  b\r\nc\u2028d é\n\n", "a b\nc\u2028d e\n"
    found = words(before, after)
    assert "".join(span["text"] for span in found if span["kind"] != "added") == before
    assert "".join(span["text"] for span in found if span["kind"] != "removed") == after


def test_a_block_too_large_for_words_is_told_apart_by_lines():
    before, after = "a " * 3000, "b " * 3000
    assert words(before, after) == [{"kind": "removed", "text": before}, {"kind": "added", "text": after}]


def test_messages_are_added_removed_and_kept_in_their_places():
    found = diff(
        content(("system", "s"), ("user", "one"), ("assistant", "two")), content(("system", "s"), ("user", "x"))
    )
    assert [(change["kind"], change["before"], change["after"]) for change in found["message_changes"]] == [
        ("changed", {"index": 1, "role": "user"}, {"index": 1, "role": "user"}),
        ("removed", {"index": 2, "role": "assistant"}, None),
    ]
    added = diff(content(("user", "x")), content(("system", "s"), ("user", "x")))["message_changes"]
    assert [(change["kind"], change["after"]) for change in added] == [("added", {"index": 0, "role": "system"})]


def test_a_message_in_another_role_is_the_same_message_with_its_role_changed():
    [change] = diff(content(("system", "x"), ("user", "y")), content(("developer", "x"), ("user", "y")))[
        "message_changes"
    ]
    assert (change["kind"], change["before"]["role"], change["after"]["role"]) == ("role", "system", "developer")
    assert change["words"] == [{"kind": "same", "text": "x"}]


def test_parts_and_slots_are_compared_too():
    image = {"type": "image_url", "image_url": {"url": "{{ a }}"}}
    before = PromptContent.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look."}, image]}]}
    )
    after = PromptContent.model_validate(
        {
            "model": "m",
            "messages": [
                {"placeholder": "history"},
                {"role": "user", "content": [{"type": "text", "text": "See."}, image]},
            ],
            "placeholders": {"history": {}},
        }
    )
    found = diff(before, after)
    assert found["messages"][3:] == [
        "+[placeholder] history",
        " [user] (text)",
        "-[user] Look.",
        "+[user] See.",
        ' [user] (image_url) {"image_url": {"url": "{{ a }}"}}',
    ]
    assert [(change["path"], change["kind"]) for change in found["changes"]] == [("/placeholders/history", "added")]


# ---------------------------------------------------------------------------- key by key


def changes(before, after):
    return [(c["path"], c["kind"], c["before"], c["after"]) for c in diff(before, after)["changes"]]


def test_parameters_variables_and_schemas_are_compared_key_by_key():
    before = content(
        ("user", "{{ a }}"),
        parameters={"temperature": 0, "seed": 7},
        variables={"a": {"type": "string", "maxLength": 10}},
        response_format="json_schema",
        output_schema={"name": "o", "schema": {"type": "object", "required": ["x"]}},
    )
    after = content(
        ("user", "{{ a }}"),
        parameters={"temperature": 1, "stop": ["\n"]},
        variables={"a": {"type": "string", "maxLength": 20}, "b/c": {"default": ""}},
        response_format="json_schema",
        output_schema={"name": "o", "schema": {"type": "object", "required": ["x", "y"]}},
    )
    assert changes(before, after) == [
        ("/variables/a/maxLength", "changed", 10, 20),
        ("/variables/b~1c", "added", None, {"default": ""}),
        ("/parameters/temperature", "changed", 0, 1),
        ("/parameters/seed", "removed", 7, None),
        ("/parameters/stop", "added", None, ["\n"]),
        ("/output_schema/schema/required/1", "added", None, "y"),
    ]


def test_a_model_and_a_format_that_was_not_there():
    assert changes(content(("user", "x")), content(("user", "x"), response_format="json_object")) == [
        ("/response_format", "added", None, "json_object")
    ]
    assert changes(content(("user", "x")), PromptContent(messages=content(("user", "x")).messages, model="n")) == [
        ("/model", "changed", "m", "n")
    ]


def tool(name, **parameters):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_tools_are_told_apart_by_name_wherever_they_stand():
    before = content(("user", "x"), tools=[tool("search", type="object"), tool("open")])
    after = content(("user", "x"), tools=[tool("open"), tool("search", type="array"), tool("close")])
    assert [change[:2] for change in changes(before, after)] == [
        ("/tools/search/function/parameters/type", "changed"),
        ("/tools/close", "added"),
    ]


def test_an_example_that_is_taken_away_leaves_the_others_alone():
    one, two, three = ({"vars": {"a": name}, "expected": name} for name in ("one", "two", "three"))
    before = content(("user", "{{ a }}"), variables={"a": {}}, examples=[one, two, three])
    after = content(("user", "{{ a }}"), variables={"a": {}}, examples=[two, three])
    assert changes(before, after) == [("/examples/0", "removed", one, None)]


def test_true_and_one_are_not_the_same():
    assert changes(content(("user", "x"), parameters={"n": 1}), content(("user", "x"), parameters={"n": True})) == [
        ("/parameters/n", "changed", 1, True)
    ]


# ---------------------------------------------------------------------------- rendered


def test_a_rendered_diff_gives_each_version_the_variables_that_it_declares():
    before = content(("user", "Ticket: {{ a }}"), variables={"a": {"type": "string"}})
    after = content(
        ("user", "{{ tone }} Ticket: {{ a }}"), variables={"a": {"type": "string"}, "tone": {"type": "string"}}
    )
    found = diff_rendered(before, after, {"a": "late", "tone": "Kindly."})
    assert found["a"] == [{"role": "user", "content": "Ticket: late"}]
    assert found["b"] == [{"role": "user", "content": "Kindly. Ticket: late"}]
    assert found["same"] is False
    assert spans(found["message_changes"]) == [("changed", [("added", "Kindly. "), ("same", "Ticket: late")])]


def test_a_rendered_diff_refuses_what_neither_declares_and_names_the_version_that_lacks_something():
    before = content(("user", "{{ a }}"), variables={"a": {"type": "string"}})
    after = content(("user", "{{ b }}"), variables={"b": {"type": "string"}})
    with pytest.raises(UnexpectedVariable, match="'c'"):
        diff_rendered(before, after, {"a": "x", "b": "y", "c": "z"})
    with pytest.raises(MissingVariable, match="version b: missing variable 'b'"):
        diff_rendered(before, after, {"a": "x"})


def test_a_placeholders_messages_are_part_of_a_rendered_diff():
    before = content(("user", "x"))
    after = PromptContent.model_validate(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}, {"placeholder": "history"}],
            "placeholders": {"history": {}},
        }
    )
    found = diff_rendered(before, after, {}, {"history": [{"role": "assistant", "content": "hello"}]})
    assert [(change["kind"], change["words"]) for change in found["message_changes"]] == [
        ("added", [{"kind": "added", "text": "hello"}])
    ]
