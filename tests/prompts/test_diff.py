from prompts.diff import diff
from prompts.prompt import PromptContent


def content(*messages, **fields):
    return PromptContent(messages=[{"role": role, "content": text} for role, text in messages], model="m", **fields)


def test_the_same_content_has_no_difference():
    both = content(("system", "a"), ("user", "b"), parameters={"seed": 1})
    assert diff(both, both) == {"messages": [], "fields": {}, "same": True}


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
