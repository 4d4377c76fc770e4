from hypothesis import given
from hypothesis import strategies as st

from prompts.blame import BlamedLine, blame
from prompts.prompt import PromptContent


def content(*messages):
    return PromptContent(messages=[{"role": role, "content": text} for role, text in messages], model="m")


def who(*contents):
    """The text of each line of the last content, with the content that changed it."""
    return [(line.text, line.changed_by) for line in blame(contents)]


def test_nothing_is_to_blame_for_nothing():
    assert blame([]) == []


def test_every_line_of_a_first_version_is_its_own():
    assert blame([content(("system", "one\ntwo"), ("user", "{{ x }}"))]) == [
        BlamedLine(0, "system", "one", 0),
        BlamedLine(0, "system", "two", 0),
        BlamedLine(1, "user", "{{ x }}", 0),
    ]


def test_a_line_belongs_to_the_version_that_last_changed_it():
    assert who(
        content(("system", "one\ntwo\nthree")),
        content(("system", "one\n2\nthree")),
        content(("system", "zero\none\n2\nthree")),
    ) == [("zero", 2), ("one", 0), ("2", 1), ("three", 0)]


def test_what_was_changed_and_changed_back_belongs_to_who_brought_it_back():
    assert who(content(("user", "a")), content(("user", "b")), content(("user", "a"))) == [("a", 2)]


def test_a_message_that_moves_to_another_role_is_changed():
    assert who(content(("system", "x"), ("user", "y")), content(("developer", "x"), ("user", "y"))) == [
        ("x", 1),
        ("y", 0),
    ]


def test_a_message_put_before_leaves_the_others_to_who_wrote_them():
    assert blame([content(("user", "x")), content(("system", "s"), ("user", "x"))]) == [
        BlamedLine(0, "system", "s", 1),
        BlamedLine(1, "user", "x", 0),
    ]


def test_lines_that_are_the_same_twice_keep_their_order():
    assert who(content(("user", "a\n\nb")), content(("user", "a\n\nb\n\nc"))) == [
        ("a", 0),
        ("", 0),
        ("b", 0),
        ("", 1),
        ("c", 1),
    ]


def test_the_same_content_in_between_changes_nothing():
    one, two = content(("user", "a\nb")), content(("user", "a\nc"))
    assert who(one, one, two, two) == [("a", 0), ("c", 2)]


def test_slots_and_parts_are_lines_as_well():
    slot = {"placeholder": "history"}
    before = PromptContent.model_validate({"model": "m", "messages": [slot], "placeholders": {"history": {}}})
    after = PromptContent.model_validate(
        {
            "model": "m",
            "messages": [slot, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
            "placeholders": {"history": {}},
        }
    )
    assert [(line.role, line.text, line.changed_by) for line in blame([before, after])] == [
        ("placeholder", "history", 0),
        ("user", "(text)", 1),
        ("user", "x", 1),
    ]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=8), min_size=1, max_size=6))
def test_a_line_is_always_in_the_version_that_it_is_blamed_on_and_in_all_since(texts):
    contents = [content(("user", "\n".join(lines))) for lines in texts]
    found = blame(contents)
    assert [line.text for line in found] == texts[-1]
    for line in found:
        assert all(line.text in texts[number] for number in range(line.changed_by, len(texts)))
