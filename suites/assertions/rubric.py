"""The prompts that ask judges: built-in ones, an author's own in the registry, or a text within the suite.

All are ordinary prompts: what is judged is put into their templates as values, which can add no message. A built-in one
is a file beside this module; it changes only with its digest, which every outcome names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from prompts.errors import TurnoutError
from prompts.messages import Message
from prompts.names import NAME
from prompts.prompt import CompiledPrompt, MessageTemplate, PromptContent, compile_prompt
from prompts.template import Template
from suites.assertions.spec import Aids, AssertionErrored, AssertionSpec, Rubric, refuse, shorten
from suites.assertions.text import as_text

INLINE = "inline"
SLOTS: Mapping[str, tuple[str, ...]] = {  # types that ask twice, and what their two rubrics are called
    "g-eval": ("steps", "evaluate"),
    "context-faithfulness": ("statements", "verdicts"),
}
_SHORT = len("sha256:") + 12
_FORMS = "a registry prompt (`judges.tone`, `judges.tone@3`), a text with {{ output }}, or a list of messages"


async def rubric_of(spec: AssertionSpec, slot: str, aids: Aids) -> Rubric:
    """The prompt that asks the judge of `spec`; raises AssertionErrored where the registry has none of its name."""
    found = known_rubric(spec, slot)
    if isinstance(found, Rubric):
        return found
    rubric = await aids.rubric(found)
    if rubric is None:
        raise AssertionErrored(f"rubricPrompt: the registry has no prompt {found!r}: push it (`turnout push`)")
    return rubric


def known_rubric(spec: AssertionSpec, slot: str) -> Rubric | str:
    """A built-in rubric, or one of the suite itself; the name of one that the registry has."""
    given = given_for(spec, slot)
    if given is None:
        return built_in(kind_of(spec) + (f"-{slot}" if slot else ""))
    return str(given) if is_name(given) else _inline(_as_messages(given))


def given_for(spec: AssertionSpec, slot: str) -> Any:
    """What an author wrote for one rubric of `spec`; None where the built-in one is meant."""
    given = spec.rubric_prompt
    if not slot or given is None:
        return given
    if isinstance(given, dict):
        return given.get(slot)
    return given[SLOTS[kind_of(spec)].index(slot)]


def slots_of(spec: AssertionSpec) -> tuple[str, ...]:
    """The rubrics that a type asks with, by name; one without a name where it has only that."""
    return SLOTS.get(kind_of(spec), ("",))


def kind_of(spec: AssertionSpec) -> str:
    """The type without `not-`."""
    return spec.type.removeprefix("not-")


def is_name(given: Any) -> bool:
    """Whether an author's rubric is the name of a registry prompt, as in `judges.tone` or `judges.tone@3`."""
    return isinstance(given, str) and NAME.fullmatch(given.partition("@")[0]) is not None and "\n" not in given


@lru_cache(maxsize=64)
def built_in(name: str) -> Rubric:
    """A rubric that ships with Turnout."""
    from prompts.formats.prompt_yml import load_prompt

    file = resources.files("suites.assertions").joinpath("rubrics", f"{name}.prompt.yml")
    return Rubric(compile_prompt(load_prompt(file.read_text("utf-8"), file.name, name).content), name)


def _as_messages(given: Any) -> str:
    """An author's own rubric as JSON of `[{role, content}]`; a plain text is one message of the user."""
    if isinstance(given, str):
        try:
            read = json.loads(given)
        except ValueError:
            read = None
        given = read if isinstance(read, list) else [{"role": "user", "content": given}]
    return json.dumps(given)


@lru_cache(maxsize=1024)
def _inline(messages: str) -> Rubric:
    """Compile a rubric of the suite itself: every name it uses is a variable of type text."""
    templates = tuple(MessageTemplate.model_validate(message) for message in json.loads(messages))
    names = {name for template in templates for text in template.texts for name in Template(text).names}
    variables = {name: {"type": "string"} for name in sorted(names)}
    return Rubric(compile_prompt(PromptContent(messages=templates, variables=variables, model="judge")), INLINE)


def check_rubric(spec: AssertionSpec) -> None:
    """Refuse a `rubricPrompt` that is none of the forms, or whose template does not compile."""
    given, slots = spec.rubric_prompt, slots_of(spec)
    if given is None:
        return
    if len(slots) > 1 and not _is_by_slot(given, slots):
        named = " and ".join(f"`{slot}`" for slot in slots)
        refuse(f"`{spec.type}` asks twice, its rubricPrompt must say for which", f"write a mapping with {named}")
    for slot in slots:
        _check_one(spec, given_for(spec, slot))


def _is_by_slot(given: Any, slots: Sequence[str]) -> bool:
    if isinstance(given, dict):
        return bool(given) and given.keys() <= set(slots)
    return isinstance(given, list) and len(given) == len(slots) and all(isinstance(item, str) for item in given)


def _check_one(spec: AssertionSpec, given: Any) -> None:
    if given is None or is_name(given):
        return
    if not given or not isinstance(given, str | list):
        refuse(f"`{spec.type}`: rubricPrompt cannot be {shorten(given)}", f"write {_FORMS}")
    try:
        _inline(_as_messages(given))
    except (TurnoutError, ValueError, TypeError) as error:
        refuse(f"`{spec.type}`: rubricPrompt: {str(error).splitlines()[0]}", f"write {_FORMS}")


def rendered(rubric: Rubric, values: Mapping[str, str], variables: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages for a judge; `values` go before the case's own `variables`.

    Raises AssertionErrored where the rubric asks for what is in neither, or cannot be rendered.
    """
    prompt = rubric.prompt
    given = {}
    for name, schema in prompt.content.variables.items():
        if name in values:
            given[name] = values[name]
        elif name in variables:
            given[name] = as_text(variables[name]) if schema == {"type": "string"} else variables[name]
    try:
        return prompt.render(given)
    except TurnoutError as error:
        known = ", ".join(sorted({*values, *variables}))
        raise AssertionErrored(f"rubric {rubric.name}: {error} (known here: {known})") from error


def mark_of(*texts: str) -> str:
    """A line that none of these texts can hold: made of their digest."""
    return "----- " + hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def short_digest(prompt: CompiledPrompt) -> str:
    """The digest of a rubric as reasons show it."""
    return prompt.digest[:_SHORT]
