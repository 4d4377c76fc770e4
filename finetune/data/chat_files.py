"""Examples from OpenAI's chat JSONL: `{"messages": [{"role": …, "content": …}, …]}` a line, the last the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.data.examples import Example
from finetune.data.inversion import INSTEAD, Inversion, NotInvertibleError
from prompts.errors import RenderError
from prompts.prompt import CompiledPrompt

CHAT_FORM = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'
_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})
_MESSAGE_KEYS = frozenset({"role", "content", "weight", "refusal"})
_CALLS = ("tool_calls", "function_call")

Problem = tuple[str, str]  # what is wrong, and the fix


class ChatReader:
    """Reads lines of one chat file as examples of one prompt.

    Raises BadInput on construction where the prompt cannot be read backwards, with the reason.
    """

    def __init__(self, prompt: CompiledPrompt, *, ignore_system: bool = False) -> None:
        self._prompt = prompt
        self._inversion = Inversion(prompt, ignore_system=ignore_system)

    def read(self, value: Mapping[str, Any]) -> Example | list[Problem]:
        """The example of one line, or everything that is wrong with it."""
        problems = list(_shape_problems(value)) or list(self._tool_problems(value))
        if problems:
            return problems
        *asked, answer = value["messages"]
        try:
            found = self._inversion.variables([(message["role"], text_of(message["content"])) for message in asked])
            self._prompt.checked(found)
        except (NotInvertibleError, RenderError) as error:
            return [(str(error), f"write the messages as the prompt renders them, or {INSTEAD}")]
        return Example(vars=found, expected=text_of(answer["content"]))

    def _tool_problems(self, value: Mapping[str, Any]) -> Iterator[Problem]:
        given = value.get("tools")
        if given and list(given) != [dict(tool) for tool in self._prompt.content.tools]:
            yield "`tools` are not those of the prompt", "declare the same tools in the prompt, or take them out here"


def _shape_problems(value: Mapping[str, Any]) -> Iterator[Problem]:
    yield from list(form_problems(value)) or _answer_problems(value["messages"])


def form_problems(value: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a line's keys and messages, whichever of these are to be learnt."""
    if "preferred_output" in value or "non_preferred_output" in value:
        fix = f"write the preferred answer as the last of `messages`: {CHAT_FORM}"
        yield "pairs of preferred and other outputs (DPO) are not trained on: an example has one answer", fix
        return
    if "prompt" in value and "completion" in value:
        yield "prompt and completion are OpenAI's old form, which has no roles", f"write {CHAT_FORM}"
        return
    for key in sorted(value.keys() - _KEYS):
        yield f"unknown key {key!r}", "a line has `messages`, and where the prompt has them `tools`"
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "`messages` is not a list with messages in it", f"write {CHAT_FORM}"
        return
    for index, message in enumerate(messages):
        yield from _message_problems(message, index)


def _message_problems(message: Any, index: int) -> Iterator[Problem]:
    place = f"messages[{index}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        yield f"{place} is no object with a `role`", f"write {CHAT_FORM}"
        return
    for call in _CALLS:
        if message.get(call):
            yield f"{place}: `{call}`: answers and histories that call tools are not trained on", "delete the line"
            return
    for key in sorted(message.keys() - _MESSAGE_KEYS - set(_CALLS)):
        yield f"{place}: unknown key {key!r}, which the prompt's messages do not have", "take it out"
    if message.get("weight", 1) not in (0, 1) or ("weight" in message and message["role"] != "assistant"):
        yield f"{place}: `weight` is {message['weight']!r}", "an assistant message has the weight 0 or 1"
    if text_of(message.get("content")) is None:
        yield f"{place}: `content` is not text", "examples are text: take images, audio and files out"


def _answer_problems(messages: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    last = messages[-1]
    if last["role"] != "assistant":
        yield f"the last message is the {last['role']}'s", "end with the assistant's answer, which is what is learnt"
    elif last.get("weight", 1) == 0:
        yield "the answer has the weight 0, so that nothing would be learnt", "delete the line, or give it the weight 1"
    elif not (text_of(last["content"]) or "").strip():
        yield "the answer is empty", "give the answer that the model should learn, or delete the line"


def text_of(content: Any) -> Any:
    """The text of a content, also of one that is a list of text parts; None where it is anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(content) else None
