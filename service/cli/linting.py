"""What `turnout check` looks for beyond what a file may hold: findings that need the settings or several files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import nodes

from prompts.errors import Fault
from prompts.formats.prompt_yml import PromptSource
from prompts.names import PRODUCTION
from prompts.parameters import answer_tokens as longest_answer
from prompts.prompt import PromptContent
from prompts.secrets import ALLOW, secret_faults
from prompts.template import syntax_tree
from service.settings import Settings
from service.tokens import ASCII_A_TOKEN, FRAME_TOKENS, TokenCounter
from suites.files import MAX_FILE_BYTES, ResolvedSuite
from suites.parquet_cases import PARQUET
from suites.row_readers import JSON_LINES
from suites.values import FILE, walk_texts

LENGTH_RULE = "context-length"
_LONG_TOKEN = 2  # an estimate is certain to be exceeded where tokens of twice the usual length exceed it, too
_CASES_AT_ONCE = 1_000
_TABLE_FIX = (
    "take it out, make it invalid and get a new one; what is no secret: `# turnout: allow secret` on the line of the"
    " suite that refers to the file"
)
_FRAME_BYTES = 512  # what a chat template may put around messages of its own accord


@dataclass(frozen=True)
class Linter:
    """Lints against one project's settings. Tokenizers are loaded once, and only for a prompt that may be too long."""

    settings: Settings
    _counters: dict[str, TokenCounter] = field(default_factory=dict, repr=False)

    def prompt(self, source: PromptSource, content: PromptContent) -> Iterator[Fault]:
        """Findings that depend on the settings: labels that are protected, and the prompt's model."""
        yield from self._protected_labels(source)
        if source.model not in self.settings.models:
            known = ", ".join(sorted(self.settings.models))
            message = f"turnout.yaml has no model {source.model!r}"
            fix = f"add it below `models`, or name one of {known}"
            yield source.document.fault(message, "model", fix=fix, level="warning", rule="unknown-model")
            return
        fault = self._length(source, content)
        if fault is not None:
            yield fault

    def _protected_labels(self, source: PromptSource) -> Iterator[Fault]:
        """Labels that a push may only move where the version has passed its gate already."""
        protected = {PRODUCTION, *self.settings.registry.protected_labels}
        for index, label in enumerate(source.labels):
            if label in protected:
                message = f"the label {label!r} is protected: a push is refused unless this version has passed its gate"
                fix = f"take it out, push, run `turnout gate`, then `turnout label {source.name} {label} VERSION`"
                yield source.document.fault(message, "labels", index, fix=fix, level="warning", rule="protected-label")

    def _counter(self, alias: str) -> TokenCounter:
        if alias not in self._counters:
            self._counters[alias] = TokenCounter(self.settings.models[alias])
        return self._counters[alias]

    def _length(self, source: PromptSource, content: PromptContent) -> Fault | None:
        """A prompt that its model cannot hold together with the answer it may give."""
        counter = self._counter(content.model)
        context = counter.context
        if context is None:
            return None
        answer_tokens = longest_answer(content.parameters) or 0
        sure, most = _always(content), _variable_characters(content)
        if _bytes(sure) + most + answer_tokens <= context:
            return None  # no token is shorter than a byte: nothing needs counting
        counted = counter.count(sure)
        least = counted.count if counted.exact else counted.count // _LONG_TOKEN
        if least + answer_tokens > context:
            what = f"its text alone has {counted} tokens"
            return _length_fault(source, what, answer_tokens, context, "error")
        full = counted.count + most // ASCII_A_TOKEN
        if full + answer_tokens > context:
            what = f"with its variables at their longest it has about {full:,} tokens"
            return _length_fault(source, what, answer_tokens, context, "warning")
        return None


def _length_fault(source: PromptSource, what: str, answer_tokens: int, context: int, level: Any) -> Fault:
    answer = f" and may answer with {answer_tokens:,}" if answer_tokens else ""
    message = f"the prompt is longer than its model's context: {what}{answer}, {source.model} takes {context:,}"
    fix = "shorten it, give variables a `maxLength`, or lower max_tokens"
    return source.document.fault(message, "messages", fix=fix, level=level, rule=LENGTH_RULE)


def _always(content: PromptContent) -> list[dict[str, Any]]:
    """The messages with only what every render has: no variables, conditions or loops; and the examples' answers."""
    messages = [{"role": m.role, "content": "".join(map(_fixed_text, m.texts))} for m in content.templates]
    asked = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    for example in content.examples:
        values = "".join(value for value in example.vars.values() if isinstance(value, str))
        messages += [{"role": "user", "content": asked + values}, {"role": "assistant", "content": example.answer}]
    return messages


def _fixed_text(template: str) -> str:
    outputs = (node for node in syntax_tree(template).body if isinstance(node, nodes.Output))
    return "".join(part.data for node in outputs for part in node.nodes if isinstance(part, nodes.TemplateData))


def _variable_characters(content: PromptContent) -> int:
    """How many characters the variables may add: their `maxLength` at each place they stand; 0 where it is not said."""
    total = 0
    for message in content.templates:
        for text in message.texts:
            for node in syntax_tree(text).find_all(nodes.Name):
                longest = content.variables.get(node.name, {}).get("maxLength", 0)
                total += longest if isinstance(longest, int) else 0
    return total


def _bytes(messages: list[dict[str, Any]]) -> int:
    """No fewer than the tokens of `messages`: their bytes, and generous frames around them."""
    return sum(len(message["content"].encode()) + FRAME_TOKENS * 4 for message in messages) + _FRAME_BYTES


def file_secrets(path: Path, shown: str, root: Path) -> Iterator[Fault]:
    """Secrets in one file; none where it cannot be read or is a link out of the project, which are faults of their own."""
    try:
        if path.resolve().is_relative_to(root.resolve()) and path.stat().st_size <= MAX_FILE_BYTES:
            yield from secret_faults(path.read_text("utf-8-sig"), shown)
    except (OSError, UnicodeDecodeError):
        return


def suite_secrets(suite: ResolvedSuite, root: Path) -> Iterator[Fault]:
    """Secrets in a suite and the files it reads.

    A file of cases that cannot hold comments is allowed by one on the line of the suite that refers to it.
    """
    own, *others = suite.sources
    lines = own.read_text("utf-8-sig").split("\n")
    allowed = [line for line in lines if FILE in line and ALLOW.search(line)]
    below = root.resolve()
    tables: set[str] = set()
    for path in (own, *(path for path in others if not any(path.name in line for line in allowed))):
        shown = str(path.relative_to(below)) if path.is_relative_to(below) else str(path)
        if path.suffix.lower() in PARQUET:
            tables.add(shown)
        elif path.suffix.lower() in JSON_LINES:
            yield from _line_secrets(path, shown)
        else:
            yield from secret_faults(path.read_text("utf-8-sig"), shown)
    if tables:
        yield from _table_secrets(suite, tables)


def _line_secrets(path: Path, shown: str) -> Iterator[Fault]:
    """Secrets in a file of JSON lines, which may be long: some at a time, as each lies in one line."""
    with path.open(encoding="utf-8-sig") as file:
        before = 0
        while lines := list(islice(file, _CASES_AT_ONCE)):
            for fault in secret_faults("".join(lines), shown):
                yield replace(fault, line=before + fault.line)
            before += len(lines)


def _table_secrets(suite: ResolvedSuite, tables: set[str]) -> Iterator[Fault]:
    """Secrets in the cases of tables that are no text, at their rows. Many are looked at in one go: it is far cheaper."""
    cases = zip(suite.suite.tests, suite.places, strict=True)
    below = ((case, place) for case, place in cases if place.path in tables)
    while batch := list(islice(below, _CASES_AT_ONCE)):
        lines = [" ".join(" ".join(text for _, text in walk_texts(case.as_data())).split()) for case, _ in batch]
        for fault in secret_faults("\n".join(lines), ""):
            place = batch[fault.line - 1][1]
            yield replace(fault, path=place.path, line=place.line, fix=_TABLE_FIX)
