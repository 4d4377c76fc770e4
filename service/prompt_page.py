"""A prompt's page in Markdown: what it does, how to call it, how its versions did. Pure: data in, text out.

Whatever an author wrote is shown as text: it can end no code block, start no table and hold no HTML. Notes are
Markdown, and stay so, but their HTML is shown as text, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prompts.diff import shown
from prompts.names import PRODUCTION
from service.printable import printable

Version = Mapping[str, Any]
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$])")
_LINE_START = re.compile(r"^(\d+(?=[.)])|(?=[-+=>]))")
_HTML = re.compile(r"<(?=[A-Za-z/!?])(?!https?://)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"( {0,3})(#{1,6})(?=\s|$)")
_SAMPLES: dict[Any, Any] = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}


def page(version: Version, history: Mapping[str, Any]) -> str:
    """The page of one version, as the API shows it, with the history of its prompt."""
    parts: tuple[Callable[[], Iterable[str]], ...] = (
        lambda: _head(version, history),
        lambda: _what_it_does(version),
        lambda: _variables(version),
        lambda: _placeholders(version),
        lambda: _parameters(version),
        lambda: _examples(version),
        lambda: _versions(history),
        lambda: _known_limits(version, history),
        lambda: _how_to_call(version, history),
    )
    return printable("\n\n".join(block for part in parts for block in part())) + "\n"


def _head(version: Version, history: Mapping[str, Any]) -> Iterable[str]:
    yield f"# {text(version['title'] or version['name'])}"
    labels = ", ".join(_labels_of(version["version"], history)) or "no label"
    called = code(f"{version['name']}@{version['version']}")
    yield f"{called} · {labels} · model {code(version['model'])} · {code(version['digest'])}"
    if version["description"]:
        yield "\n\n".join(text(part) for part in re.split(r"\n\s*\n", version["description"].strip()))
    if version["tags"]:
        yield "Tags: " + ", ".join(code(tag) for tag in version["tags"])


def _what_it_does(version: Version) -> Iterable[str]:
    yield "## What it does"
    for message in version["messages"]:
        entry = shown(message)
        if entry.role == "placeholder":
            yield f"**messages given per request**: {code(entry.text)}"
        else:
            yield f"**{entry.role}**\n\n{fenced(entry.text, 'jinja')}"
    if version.get("response_format"):
        schema = version.get("output_schema")
        yield f"Answers in the format {code(version['response_format'])}" + (":" if schema else ".")
        if schema:
            yield fenced(_json(schema, indent=2), "json")
        if version.get("repair"):
            yield f"An answer that does not fit is asked for again, {version['repair']} times at most."
    if version.get("tools"):
        yield "It may call these tools:"
        yield fenced(_json(version["tools"], indent=2), "json")


def _variables(version: Version) -> Iterable[str]:
    yield "## Variables"
    if not version["variables"]:
        yield "It takes none."
        return
    rows = [
        (code(name), _type_of(schema), "no" if "default" in schema else "yes",
         code(_json(schema["default"])) if "default" in schema else "", text(str(schema.get("description", ""))))
        for name, schema in version["variables"].items()
    ]  # fmt: skip
    yield table(("name", "type", "required", "default", "description"), rows)


def _type_of(schema: Mapping[str, Any]) -> str:
    """The type with the bounds that matter to who fills it in."""
    kind = schema.get("type", "any")
    bounds = [f"{key} {schema[key]}" for key in ("minLength", "maxLength", "minimum", "maximum") if key in schema]
    if "enum" in schema:
        bounds.append("one of " + ", ".join(_json(value) for value in schema["enum"]))
    return ", ".join([code(kind if isinstance(kind, str) else _json(kind)), *(text(bound) for bound in bounds)])


def _placeholders(version: Version) -> Iterable[str]:
    declared: Mapping[str, Any] = version.get("placeholders") or {}
    if declared:
        yield "## Placeholders"
        rows = [
            (code(name), "yes" if known.get("default") is None else "no", text(str(known.get("max_messages") or "")),
             text(known.get("description") or ""))
            for name, known in declared.items()
        ]  # fmt: skip
        yield table(("name", "required", "most messages", "description"), rows)


def _parameters(version: Version) -> Iterable[str]:
    yield "## Parameters"
    parameters = {
        **version["parameters"],
        **({"tool_choice": version["tool_choice"]} if version.get("tool_choice") else {}),
    }
    if not parameters:
        yield "The model's own."
        return
    yield table(("name", "value"), [(code(name), code(_json(value))) for name, value in parameters.items()])


def _examples(version: Version) -> Iterable[str]:
    if version.get("examples"):
        yield "## Examples"
        for example in version["examples"]:
            yield fenced(_json(example, indent=2), "json")


def _versions(history: Mapping[str, Any]) -> Iterable[str]:
    yield "## Versions"
    rows = [
        (str(record["version"]), record["created_at"][:10], text(record.get("git_author") or record["author"]),
         ", ".join([*_labels_of(record["version"], history), *(["draft"] if record["draft"] else [])]),
         text(record["message"] or ""), "<br>".join(_figures(run) for run in record["runs"]))
        for record in history["versions"]
    ]  # fmt: skip
    yield table(("version", "date", "author", "labels", "message", "pass rate (95% interval)"), rows)


def _labels_of(number: int, history: Mapping[str, Any]) -> list[str]:
    return [code(label) for label, at in history["labels"].items() if at == number]


def _figures(run: Mapping[str, Any]) -> str:
    """One run: its pass rate with the interval; the variant where it is not the version on its own model."""
    return f"{rate(run)} in {code(run['suite'])} with {code(run['variant'].partition('+')[2])}"


def rate(run: Mapping[str, Any]) -> str:
    """`92% (81% to 97%, 46 of 50)`, or what there is of it."""
    if run["pass_rate"] is None:
        return "nothing judged"
    interval = "{:.0%} to {:.0%}, ".format(*run["ci95"]) if run["ci95"] else ""
    judged = run["passed"] + run["failed"] + run["errored"]
    return f"{run['pass_rate']:.0%} ({interval}{run['passed']} of {judged})"


def _known_limits(version: Version, history: Mapping[str, Any]) -> Iterable[str]:
    yield "## Known limits"
    missed = [line for run in _runs_of(version, history) for line in _missed(run)]
    if version["notes"]:
        yield notes(version["notes"])
    if missed:
        yield "What its newest runs missed:"
        yield "\n".join(f"- {line}" for line in missed)
    if not version["notes"] and not missed:
        yield "None are written down, and no run missed anything."


def _runs_of(version: Version, history: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [run for record in history["versions"] if record["version"] == version["version"] for run in record["runs"]]


def _missed(run: Mapping[str, Any]) -> Iterable[str]:
    where = f"{code(run['suite'])} with {code(run['variant'].partition('+')[2])}"
    for name, metric in (run["metrics"] or {}).items():
        if metric["passed"] < metric["total"]:
            yield f"{where}: {code(name)} passed {metric['passed']} of {metric['total']}"
    if not run["metrics"] and run["passed"] < run["total"]:
        yield f"{where}: {run['passed']} of {run['total']} cases passed"


def _how_to_call(version: Version, history: Mapping[str, Any]) -> Iterable[str]:
    is_produced = history["labels"].get(PRODUCTION) == version["version"]
    model = version["name"] if is_produced else f"{version['name']}@{version['version']}"
    given: dict[str, Any] = {
        "variables": {name: _sample(schema) for name, schema in version["variables"].items() if "default" not in schema}
    }
    declared: Mapping[str, Any] = version.get("placeholders") or {}
    needed = [name for name, known in declared.items() if known.get("default") is None]
    if needed:
        given["placeholders"] = {name: [] for name in needed}
    body = _json({"model": model, **given}).replace("'", "'\\''")
    yield "## How to call it"
    yield fenced(
        "curl $TURNOUT_URL/v1/chat/completions -H \"Authorization: Bearer $TURNOUT_API_KEY\" \\\n"
        f"  -H 'Content-Type: application/json' -d '{body}'", "sh",
    )  # fmt: skip
    yield fenced(
        "import os\n\nfrom openai import OpenAI\n\n"
        'client = OpenAI(base_url=os.environ["TURNOUT_URL"] + "/v1", api_key=os.environ["TURNOUT_API_KEY"])\n'
        f"answer = client.chat.completions.create(\n    model={_json(model)}, messages=[],"
        f" extra_body={given!r}\n)\nprint(answer.choices[0].message.content)",
        "python",
    )


def _sample(schema: Mapping[str, Any]) -> Any:
    """A value to show in a call: one that the schema names, else one of its type."""
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type")
    return _SAMPLES.get(kind if isinstance(kind, str) else None, "…")


def text(value: str) -> str:
    """`value` as plain text on one line: nothing in it is Markdown or HTML."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(value.split()))
    return _LINE_START.sub(r"\1\\", escaped)


def code(value: str) -> str:
    """`value` as a code span that also stands in a table."""
    line = " ".join(value.split()).replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}" if line else "(empty)"


def fenced(value: str, language: str) -> str:
    """`value` as a code block, whatever backticks it holds."""
    fence = "`" * max(3, _longest_run(value) + 1)
    return f"{fence}{language}\n{value}\n{fence}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows whose cells are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def notes(value: str) -> str:
    """An author's Markdown below our own headings: HTML as text, headings two deeper, an open code block closed."""
    lines: list[str] = []
    fence = ""
    for line in value.strip().splitlines():
        found = _FENCE.match(line)
        if fence:
            lines.append(line)
            if found and found[1].startswith(fence) and line.strip() == found[1]:
                fence = ""
            continue
        fence = found[1] if found else ""
        lines.append(line if found else _HEADING.sub(_deeper, _HTML.sub(r"\\<", line)))
    return "\n".join([*lines, *([fence] if fence else [])])


def _deeper(heading: re.Match[str]) -> str:
    return heading[1] + "#" * min(6, len(heading[2]) + 2)


def _longest_run(value: str) -> int:
    return max((len(run) for run in re.findall("`+", value)), default=0)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
