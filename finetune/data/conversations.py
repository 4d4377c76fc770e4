"""Conversations of OpenAI's chat JSONL as they are trained on without a prompt: every assistant message that counts is a turn.

A turn's question is all that stands before it, so that a conversation of three answers is three rows of training, which
share their beginning. `weight: 0` keeps an answer in the history of those after it, and out of what is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.data.chat_files import CHAT_FORM, Problem, form_problems, text_of
from finetune.data.examples import Example, parsed_line, without_mark
from prompts.errors import Fault
from prompts.strict_json import HALF

ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer that is learnt, and the messages before it, each with `role` and `content`."""

    messages: tuple[dict[str, str], ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a file, by its number; at least one of its turns is learnt."""

    turns: tuple[Turn, ...]
    line: int

    @property
    def key(self) -> str:
        """Equal for conversations that say the same and teach the same."""
        return json.dumps([[[*turn.messages], turn.answer] for turn in self.turns], sort_keys=True)

    @property
    def example(self) -> Example:
        """The conversation as the split knows examples: near duplicates are found by what stands before the last answer."""
        last = self.turns[-1]
        return Example({"messages": json.dumps([*last.messages], ensure_ascii=False)}, last.answer)


def read_conversations(lines: Iterable[str], path: str) -> Iterator[Conversation | list[Fault]]:
    """Each line's conversation, or everything that is wrong with it; blank lines are passed over."""
    for number, line in enumerate(without_mark(lines), start=1):
        if not line.strip():
            continue
        value = parsed_line(line, path, number, CHAT_FORM)
        if isinstance(value, Fault):
            yield [value]
            continue
        problems = list(_problems(value))
        found = None if problems else _conversation(value["messages"], number)
        yield found or [Fault(path, number, message, fix) for message, fix in problems]


def _problems(value: Any) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield "it is no JSON object", f"write {CHAT_FORM}"
        return
    wrong = list(form_problems(value))
    yield from wrong
    if value.get("tools"):
        yield "`tools`: what calls tools is not trained on here", "take `tools` out, or delete the line"
    if not wrong:
        yield from _text_problems(value["messages"])
        yield from _role_problems(value["messages"])
        yield from _learnt_problems(value["messages"])


def _role_problems(messages: list[dict[str, Any]]) -> Iterator[Problem]:
    for index, message in enumerate(messages):
        if message["role"] not in ROLES:
            yield f"messages[{index}]: the role {message['role']!r} is not trained on", f"use {', '.join(ROLES)}"


def _text_problems(messages: list[dict[str, Any]]) -> Iterator[Problem]:
    for index, message in enumerate(messages):
        if HALF.search(text_of(message["content"])):
            yield f"messages[{index}]: half of a pair (U+D800 to U+DFFF) stands alone, which is no character", "mend it"


def _learnt_problems(messages: list[dict[str, Any]]) -> Iterator[Problem]:
    if messages[-1]["role"] != "assistant":
        yield f"the last message is the {messages[-1]['role']}'s", "end with the assistant's answer"
    if messages[0]["role"] == "assistant":
        yield "the first message is the assistant's: it answers nothing", "begin with the user's or a system message"
    learnt = [message for message in messages if _is_learnt(message)]
    if not learnt:
        yield "no assistant message has the weight 1, so that nothing would be learnt", "give one the weight 1"
    if any(not text_of(message["content"]).strip() for message in learnt):
        yield "an answer to learn is empty", "give it, or the message the weight 0"


def _is_learnt(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "assistant" and message.get("weight", 1) == 1)


def _conversation(messages: list[dict[str, Any]], line: int) -> Conversation:
    plain = [{"role": message["role"], "content": text_of(message["content"])} for message in messages]
    learnt = [at for at, message in enumerate(messages) if _is_learnt(message)]
    return Conversation(tuple(Turn(tuple(plain[:at]), plain[at]["content"]) for at in learnt), line)
