"""Examples of a file in any form that is known, told apart by the keys of its first line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from finetune.data.chat_files import CHAT_FORM, ChatReader
from finetune.data.examples import Example, half_problems, parse_examples, parsed_line, without_mark
from prompts.errors import BadFile, BadInput, Fault
from prompts.prompt import CompiledPrompt

_CHAT_KEYS = frozenset({"messages", "preferred_output", "non_preferred_output", "completion"})
_VARS_KEYS = frozenset({"vars", "expected"})

Form = Literal["vars and expected", "chat messages"]


def read_examples(
    lines: Iterable[str], path: str, prompt: CompiledPrompt | None, *, ignore_system: bool = False
) -> list[Example]:
    """Examples of a JSONL file: `{"vars": …, "expected": …}` or OpenAI's `{"messages": […]}`, one form a file.

    `prompt` is what chat messages are read as variables of; where there is none such files are refused.
    `ignore_system` leaves the system messages of file and prompt out of the comparison. `path` names the file in errors.

    Raises BadFile with the faults of all lines.
    """
    given = list(without_mark(lines))
    forms = {number: form for number, line in enumerate(given, start=1) if (form := _form_of(line))}
    first, form = next(iter(forms.items()), (0, "vars and expected"))
    strays = [_stray(path, number, other, first, form) for number, other in forms.items() if other != form]
    rest = ["" if forms.get(number, form) != form else line for number, line in enumerate(given, start=1)]
    try:
        if form == "vars and expected":
            examples = parse_examples(rest, path)
        else:
            examples = _parse_chat(rest, path, _reader(path, first, prompt, ignore_system))
    except BadFile as error:
        raise BadFile([*error.faults, *strays]) from None
    if strays:
        raise BadFile(strays)
    return examples


def _form_of(line: str) -> Form | None:
    """What form a line has, by its keys; None where it is blank, or has none of both."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if value.keys() & _VARS_KEYS:
        return "vars and expected"
    return "chat messages" if value.keys() & _CHAT_KEYS else None


def _stray(path: str, number: int, form: Form, first: int, first_form: Form) -> Fault:
    reason = f"this line has {form}, and line {first}, the first, has {first_form}"
    return Fault(path, number, reason, "put the two forms into files of their own")


def _reader(path: str, line: int, prompt: CompiledPrompt | None, ignore_system: bool) -> ChatReader:
    if prompt is None:
        fix = "name the prompt whose messages they are"
        raise BadFile(
            [Fault(path, line, "chat messages are read as the variables of a prompt, and none is given", fix)]
        )
    try:
        return ChatReader(prompt, ignore_system=ignore_system)
    except BadInput as error:
        raise BadFile([Fault(path, line, str(error))]) from error


def _parse_chat(lines: Sequence[str], path: str, reader: ChatReader) -> list[Example]:
    examples: list[Example] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _read_line(line, path, number, reader)
        if isinstance(found, Example):
            examples.append(found)
        else:
            faults += found
    if faults:
        raise BadFile(faults)
    return examples


def _read_line(line: str, path: str, number: int, reader: ChatReader) -> Example | list[Fault]:
    value = parsed_line(line, path, number, CHAT_FORM)
    if isinstance(value, Fault):
        return [value]
    if not isinstance(value, dict):
        return [Fault(path, number, "an example is an object", f"write {CHAT_FORM}")]
    found = list(half_problems(value)) or reader.read(value)
    if isinstance(found, Example):
        return found
    return [Fault(path, number, message, fix) for message, fix in found]
