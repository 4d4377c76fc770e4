"""The page of a prompt: every section, and nothing in it that an author's text could break."""

from __future__ import annotations

from typing import Any

import pytest

from service.prompt_page import code, fenced, notes, page, rate, text

VERSION: dict[str, Any] = {
    "name": "support.triage",
    "version": 2,
    "digest": "sha256:abc",
    "title": "Ticket triage",
    "description": "Sends a ticket to a queue.\n\nFor the help desk.",
    "tags": ["support", "routing"],
    "notes": "# What worked\nShort answers.",
    "model": "model-a",
    "messages": [
        {"role": "system", "content": "Route the ticket."},
        {"placeholder": "history"},
        {"role": "user", "content": "{{ ticket }}"},
    ],
    "variables": {
        "ticket": {"type": "string", "maxLength": 4000, "description": "What the customer wrote"},
        "tone": {"type": "string", "enum": ["kind", "brief"], "default": "kind"},
    },
    "placeholders": {"history": {"description": "The talk so far", "default": None, "max_messages": 20}},
    "parameters": {"temperature": 0},
    "examples": [{"vars": {"ticket": "I was charged twice"}, "expected": "billing"}],
    "tools": [],
    "response_format": None,
}
RUN: dict[str, Any] = {
    "suite": "support.triage", "suite_version": 1, "run_id": "run_1", "variant": "support.triage@2+model-a",
    "finished_at": "2026-01-02T00:00:00", "total": 50, "passed": 46, "failed": 3, "errored": 1, "skipped": 0,
    "pass_rate": 0.92, "ci95": [0.8116, 0.9685],
    "metrics": {"queue": {"score": 0.9, "passed": 45, "total": 50, "errored": 0},
                "form": {"score": 1.0, "passed": 50, "total": 50, "errored": 0}},
}  # fmt: skip


def known(number: int, **more: Any) -> dict[str, Any]:
    about = {"created_at": f"2026-01-0{number}T08:00:00", "author": "key_1", "git_author": None, "message": None}
    return {"version": number, "draft": False, "runs": [], **about, **more}


HISTORY: dict[str, Any] = {
    "name": "support.triage",
    "labels": {"production": 2, "staging": 1, "latest": 2},
    "versions": [
        known(2, message="Route by queue", git_author="Ada <ada@example.com>", runs=[RUN]),
        known(1, message="The first | one"),
    ],
}
PAGE = """\
# Ticket triage

`support.triage@2` · `production`, `latest` · model `model-a` · `sha256:abc`

Sends a ticket to a queue.

For the help desk.

Tags: `support`, `routing`

## What it does

**system**

```jinja
Route the ticket.
```

**messages given per request**: `history`

**user**

```jinja
{{ ticket }}
```

## Variables

| name | type | required | default | description |
| --- | --- | --- | --- | --- |
| `ticket` | `string`, maxLength 4000 | yes |  | What the customer wrote |
| `tone` | `string`, one of "kind", "brief" | no | `"kind"` |  |

## Placeholders

| name | required | most messages | description |
| --- | --- | --- | --- |
| `history` | yes | 20 | The talk so far |

## Parameters

| name | value |
| --- | --- |
| `temperature` | `0` |

## Examples

```json
{
  "vars": {
    "ticket": "I was charged twice"
  },
  "expected": "billing"
}
```

## Versions

| version | date | author | labels | message | pass rate (95% interval) |
| --- | --- | --- | --- | --- | --- |
| 2 | 2026-01-02 | Ada \\<ada@example.com\\> | `production`, `latest` | Route by queue | \
92% (81% to 97%, 46 of 50) in `support.triage` with `model-a` |
| 1 | 2026-01-01 | key\\_1 | `staging` | The first \\| one |  |

## Known limits

### What worked
Short answers.

What its newest runs missed:

- `support.triage` with `model-a`: `queue` passed 45 of 50

## How to call it

```sh
curl $TURNOUT_URL/v1/chat/completions -H "Authorization: Bearer $TURNOUT_API_KEY" \\
  -H 'Content-Type: application/json' -d '{"model": "support.triage", "variables": {"ticket": "…"}, "placeholders": \
{"history": []}}'
```

```python
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["TURNOUT_URL"] + "/v1", api_key=os.environ["TURNOUT_API_KEY"])
answer = client.chat.completions.create(
    model="support.triage", messages=[], extra_body={'variables': {'ticket': '…'}, 'placeholders': {'history': []}}
)
print(answer.choices[0].message.content)
```
"""


def test_a_page_says_everything_about_a_version() -> None:
    assert page(VERSION, HISTORY) == PAGE


def test_a_page_of_next_to_nothing_says_so() -> None:
    bare = {**VERSION, "version": 1, "title": None, "description": None, "tags": [], "notes": None, "variables": {},
            "messages": [{"role": "user", "content": "Hi."}], "parameters": {}}  # fmt: skip
    for key in ("placeholders", "examples", "tools"):
        del bare[key]
    shown = page(bare, {**HISTORY, "labels": {}})

    assert shown.startswith("# support.triage\n\n`support.triage@1` · no label · model")
    for said in ("## Variables\n\nIt takes none.", "## Parameters\n\nThe model's own.",
                 "## Known limits\n\nNone are written down, and no run missed anything.",
                 '"model": "support.triage@1"'):  # fmt: skip
        assert said in shown
    assert "## Examples" not in shown


def test_an_output_schema_and_tools_are_shown() -> None:
    schema = {"name": "o", "schema": {"type": "object"}}
    tool = {"type": "function", "function": {"name": "search"}}
    shown = page(
        {**VERSION, "response_format": "json_schema", "output_schema": schema, "tools": [tool], "tool_choice": "auto"},
        HISTORY,
    )

    assert 'Answers in the format `json_schema`:\n\n```json\n{\n  "name": "o",' in shown
    assert 'It may call these tools:\n\n```json\n[\n  {\n    "type": "function",' in shown
    assert '| `tool_choice` | `"auto"` |' in shown


def test_repairs_are_told_with_the_schema_that_they_are_for() -> None:
    structured = {"response_format": "json_schema", "output_schema": {"name": "o", "schema": {}}}

    assert "is asked for again, 2 times at most." in page({**VERSION, **structured, "repair": 2}, HISTORY)
    assert "asked for again" not in page({**VERSION, **structured}, HISTORY)


# ---------------------------------------------------------------------------- hostile text


HOSTILE = "x](y) | **b**\n| <script>alert(1)</script> `c` &lt; $z$\n# head"


def test_text_is_neither_markdown_nor_html_nor_a_new_line() -> None:
    assert text(HOSTILE) == (r"x\](y) \| \*\*b\*\* \| \<script\>alert(1)\</script\> \`c\` \&lt; \$z\$ \# head")
    assert [text(start) for start in ("- a", "+ a", "1. a", "2) a", "> a", "= a", "\\| a")] == [
        "\\- a", "\\+ a", "1\\. a", "2\\) a", "\\> a", "\\= a", "\\\\\\| a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("a|b\nc", r"`a\|b c`"), ("", "(empty)"), ("``", "``` `` ```")],
)
def test_code_holds_any_text_on_its_line(value: str, shown: str) -> None:
    assert code(value) == shown


def test_a_block_is_fenced_by_more_backticks_than_it_holds() -> None:
    assert fenced("```\n# out\n````", "jinja") == "`````jinja\n```\n# out\n````\n`````"
    assert fenced("a", "json") == "```json\na\n```"


def test_notes_stay_markdown_without_html_below_our_headings() -> None:
    written = "# One\n###### Six\n#tag\n<b>bold</b> a < b <https://example.com>\n```\n<i> # as it is\n```\n## Two"
    assert notes(written) == (
        "### One\n###### Six\n#tag\n\\<b>bold\\</b> a < b <https://example.com>\n```\n<i> # as it is\n```\n#### Two"
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("```\nnever closed", "```\nnever closed\n```"),
        ("~~~~ py\n~~~\n<b>", "~~~~ py\n~~~\n<b>\n~~~~"),
        ("````\n```\n# in\n`````\n# out", "````\n```\n# in\n`````\n### out"),
        ("```\n``` no end\n<b>", "```\n``` no end\n<b>\n```"),
    ],
)
def test_a_code_block_in_notes_ends_with_them(written: str, shown: str) -> None:
    assert notes(written) == shown


def test_no_field_of_an_author_opens_a_table_a_heading_or_html() -> None:
    hostile = {
        **VERSION,
        "title": HOSTILE, "description": HOSTILE, "tags": [HOSTILE], "notes": None,
        "messages": [{"role": "user", "content": f"```\n{HOSTILE}"}],
        "variables": {"a": {"type": HOSTILE, "description": HOSTILE, "enum": [HOSTILE], "default": HOSTILE}},
        "placeholders": {"p": {"description": HOSTILE}}, "parameters": {"stop": HOSTILE},
        "examples": [{"vars": {"a": HOSTILE}, "expected": f"```\n{HOSTILE}"}],
    }  # fmt: skip
    history = {**HISTORY, "versions": [known(2, message=HOSTILE, git_author=HOSTILE, runs=[{**RUN, "suite": HOSTILE}])]}

    outside = _outside_blocks(page(hostile, history))

    assert [line for line in outside if line.startswith("#")] == [
        "# x\\](y) \\| \\*\\*b\\*\\* \\| \\<script\\>alert(1)\\</script\\> \\`c\\` \\&lt; \\$z\\$ \\# head",
        "## What it does", "## Variables", "## Placeholders", "## Parameters", "## Examples", "## Versions",
        "## Known limits", "## How to call it",
    ]  # fmt: skip
    assert {_cells(line) for line in outside if line.startswith("|")} == {2, 4, 5, 6}


def _outside_blocks(markdown: str) -> list[str]:
    """The lines that are in no code block, and without their code spans."""
    import re

    lines, fence = [], ""
    for line in markdown.splitlines():
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = re.match("`+", line)[0]  # type: ignore[index]  # the line starts with some
        else:
            lines.append(line)
    return lines


def _cells(row: str) -> int:
    """How many cells a table's row has, by GFM: a bar is one unless a backslash stands before it."""
    import re

    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "92% (81% to 97%, 46 of 50)"),
        ({"ci95": None}, "92% (46 of 50)"),
        ({"pass_rate": None, "ci95": None}, "nothing judged"),
    ],
)
def test_a_rate_stands_with_its_interval_and_counts(changes: dict[str, Any], shown: str) -> None:
    assert rate({**RUN, **changes}) == shown
