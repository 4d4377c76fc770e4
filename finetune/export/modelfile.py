"""What Ollama needs beside a GGUF: its template in Go's words, made of the chat template and held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
_MARK = "\ue000{}\ue001"  # private-use characters: no template trims or changes them
Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Frame:
    """A chat template that puts a fixed text before and behind each message; `opening` where no system message is."""

    opening: str
    before: Mapping[str, str]
    behind: Mapping[str, str]
    answer: str

    def render(self, turns: Turns) -> str:
        """What the chat template gives for these messages, up to where the answer begins."""
        opening = "" if turns[0][0] == "system" else self.opening
        said = (self.before[role] + content + self.behind[role] for role, content in turns)
        return opening + "".join(said) + self.answer

    def in_go(self, bos: str) -> str:
        """The same as a template of Go's text/template over Ollama's messages; without `bos`, which the tokenizer adds."""
        first = '{{ if ne (index .Messages 0).Role "system" }}' + _literal(self.opening.removeprefix(bos)) + "{{ end }}"
        turns = [
            f'{{{{ {"if" if role == "system" else "else if"} eq .Role "{role}" }}}}'
            + _literal(self.before[role].removeprefix(bos) if not number else self.before[role])
            + "{{ .Content }}"
            + _literal(self.behind[role])
            for number, role in enumerate(ROLES)
        ]
        opening = first if self.opening else ""
        return f"{opening}{{{{ range .Messages }}}}{''.join(turns)}{{{{ end }}}}{{{{ end }}}}{_literal(self.answer)}"


def _literal(text: str) -> str:
    """A text that Go's template neither trims nor reads."""
    return text.replace("{{", '{{ "{{" }}')


def frame_of(tokenizer: Any) -> Frame | None:
    """The frame of a chat template, None where it is no such frame: a longer conversation must come out the same."""
    system, user, assistant = (_MARK.format(number) for number in range(3))
    try:
        alone = _render(tokenizer, [("user", user)])
        both = _render(tokenizer, [("system", system), ("user", user)])
        asked = _render(tokenizer, [("system", system), ("user", user)], answer=True)
        said = _render(tokenizer, [("system", system), ("user", user), ("assistant", assistant)])
        again = _render(tokenizer, [("system", system), ("user", user), ("assistant", assistant), ("user", user)])
        start, between, end = *both.split(system)[:1], *both.split(system)[1].split(user)
        second = again.removeprefix(said).split(user)[0]
        before_answer, behind_answer = said.removeprefix(both).split(assistant)
        frame = Frame(
            opening=alone.removesuffix(second + user + end),
            before={"system": start, "user": second, "assistant": before_answer},
            behind={"system": between.removesuffix(second), "user": end, "assistant": behind_answer},
            answer=asked.removeprefix(both),
        )
        return frame if _is_same(tokenizer, frame) else None
    except Exception:  # noqa: BLE001 - a model's own template may refuse with anything: then it is no such frame
        return None


def _is_same(tokenizer: Any, frame: Frame) -> bool:
    talks: list[Turns] = [
        [("user", "a b")],
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "1 < 2?")],
        [("user", "x"), ("assistant", "y"), ("user", "z"), ("assistant", "v"), ("user", "w")],
    ]
    return all(_render(tokenizer, turns, answer=True) == frame.render(turns) for turns in talks)


def _render(tokenizer: Any, turns: Turns, *, answer: bool = False) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer))


def modelfile(tokenizer: Any, name: str, *, file: str, adds_bos: bool) -> str:
    """The text of a Modelfile beside `file`."""
    frame = frame_of(tokenizer)
    bos = (tokenizer.bos_token or "") if adds_bos else ""
    lines = [f"# {name}: `ollama create {name} -f Modelfile`", f"FROM ./{file}"]
    if frame is None:
        lines.append("# the chat template has no form in Go's words here: Ollama takes what it knows of the GGUF's own")
    else:
        lines.append(f'TEMPLATE """{frame.in_go(bos)}"""')
    if tokenizer.eos_token:
        lines.append(f'PARAMETER stop "{tokenizer.eos_token}"')
    return "\n".join([*lines, "PARAMETER temperature 0"]) + "\n"
