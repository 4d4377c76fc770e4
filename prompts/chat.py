"""Messages to token ids, the same for training and for serving.

What a message *contains* can never become one of the model's special tokens: the chat template is rendered
around sentinels, the frame between them is tokenized with special tokens known, the contents with special
tokens spelt out as plain text. Where that gives as many special tokens as tokenizing the whole text in one go,
which is what other servers of the same model do, no content has brought any, and the ids are those of one go.

Works on any tokenizer of transformers; imports none of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prompts.chat_template import render_chat, template_of
from prompts.errors import BadInput

_SENTINEL = "\ue000{}\ue001"  # private-use characters: no template trims or changes them
_MOST_KNOWN = 4096  # characters of roles, names and tool calls: longer conversations are not remembered


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """Texts of all tokens that mean something to the model beyond their letters."""
    return tuple(_special(tokenizer).values())


def _special(tokenizer: Any) -> dict[int, str]:
    return {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token ids of `messages` up to where the assistant's answer begins.

    Raises BadInput where the model has no chat template, refuses the roles, a content is not text, a special token
    stands in a message outside of its content, or the template leaves calls of tools out.
    """
    frame = _frame(tokenizer, messages)
    contents = [_text(message) for message in messages]
    if not any(text in content for content in contents for text in frame.special):
        whole = _encode(tokenizer, _render(tokenizer, messages, contents))
        if frame.count(whole) == frame.has:
            return whole
    sentinels = _sentinels(messages)
    return _encode_around(
        tokenizer, _render(tokenizer, messages, sentinels), dict(zip(sentinels, contents, strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """The special tokens around the contents of a conversation, whatever these are.

    A chat template may cut a content to pieces that together read as a special token, and some tokenizers take other
    letters for one: that the whole text `has` as many `counted` ones tells that none did.
    """

    special: tuple[str, ...]
    counted: frozenset[int]
    has: int

    def count(self, ids: Sequence[int]) -> int:
        return sum(index in self.counted for index in ids)


def _frame(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> _Frame:
    """That of `messages`, remembered by all that is not content: rendering and encoding it takes as long as the messages."""
    fields = [{key: value for key, value in message.items() if key != "content"} for message in messages]
    try:
        known = json.dumps(fields)
    except (TypeError, ValueError):
        known = ""
    if not known or len(known) > _MOST_KNOWN:
        return _new_frame(tokenizer, fields)
    return _known_frame(tokenizer, template_of(tokenizer), known)


@functools.lru_cache(maxsize=64)
def _known_frame(tokenizer: Any, _template: str, fields: str) -> _Frame:
    return _new_frame(tokenizer, json.loads(fields))


def _new_frame(tokenizer: Any, fields: Sequence[Mapping[str, Any]]) -> _Frame:
    special = _special(tokenizer)
    _refuse_special_fields(fields, special.values())
    _refuse_calls_unread(fields, template_of(tokenizer))
    counted = frozenset(special.keys() - {tokenizer.unk_token_id})  # which stands for letters that the tokenizer lacks
    frame = _Frame(tuple(special.values()), counted, 0)
    return replace(frame, has=frame.count(_encode(tokenizer, _render(tokenizer, fields, _sentinels(fields)))))


def _sentinels(messages: Sequence[object]) -> list[str]:
    return [_SENTINEL.format(index) for index in range(len(messages))]


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Token ids of an assistant's `answer`, as plain text, with the end-of-turn token last."""
    plain = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*plain, end_of_turn(tokenizer)]


def end_of_turn(tokenizer: Any) -> int:
    """The id that ends an assistant's turn in this model's chat template: the first special token after it."""
    sentinel = _SENTINEL.format(0)
    turn = [{"role": "user", "content": "-"}, {"role": "assistant", "content": sentinel}]
    after = render_chat(tokenizer, turn, opens_answer=False).split(sentinel)[-1]
    found = sorted((after.index(text), index) for index, text in _special(tokenizer).items() if text in after)
    return int(found[0][1] if found else tokenizer.eos_token_id)


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(map(_is_text_part, content)):
        return "".join(part["text"] for part in content)
    raise BadInput(
        f"message content of type {type(content).__name__} cannot be given to this model: it reads text only",
        param="messages",
    )


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _refuse_special_fields(messages: Sequence[Mapping[str, Any]], special: Iterable[str]) -> None:
    """A role, a name or a tool call is put into the frame by the chat template, where special tokens are known."""
    refused = (*special, _SENTINEL[0])
    for index, message in enumerate(messages):
        for key, value in message.items():
            found = next((text for text in refused if key != "content" and text in _all_text(value)), None)
            if found is not None:
                raise BadInput(
                    f"messages[{index}].{key} holds the model's special token {found!r}: remove it",
                    param=f"messages[{index}].{key}",
                )


def _refuse_calls_unread(messages: Sequence[Mapping[str, Any]], template: str) -> None:
    """The model would read a conversation in which nobody called anything."""
    for index, message in enumerate(messages):
        for key in ("tool_calls", "function_call"):
            if message.get(key) and key not in template:
                raise BadInput(
                    f"messages[{index}].{key}: this model's chat template knows no calls of tools; write what was called"
                    " into the content, or ask a model that can",
                    param=f"messages[{index}].{key}",
                )


def _all_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\0".join(_all_text(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return "\0".join(_all_text(part) for part in value)
    return str(value)


def _render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], contents: Sequence[str]) -> str:
    turns = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
    return render_chat(tokenizer, turns, opens_answer=True)


def _encode_around(tokenizer: Any, framed: str, contents: Mapping[str, str]) -> list[int]:
    ids: list[int] = []
    rest = framed
    for sentinel, content in contents.items():
        frame, found, rest = rest.partition(sentinel)
        if not found:
            raise BadInput("the model's chat template drops or reorders messages", param="messages")
        ids += tokenizer(frame, add_special_tokens=False)["input_ids"]
        ids += tokenizer(content, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids + list(tokenizer(rest, add_special_tokens=False)["input_ids"])
