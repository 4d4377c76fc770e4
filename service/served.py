"""What answering as one variant takes, as far as it is the same for every request: made once, and held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prompts.errors import BadInput
from prompts.messages import CompletionRequest, Message
from prompts.names import Variant
from prompts.output import OutputCheck
from prompts.prompt import plain_message
from service.choosing import Ask, Choice
from service.pool import price_of
from service.settings import Settings
from service.snapshot import Tuned
from suites.results import Price

DEFAULT_TIMEOUT_S = 120.0
MOST_HELD = 4_096
_ANY_ROLE = ("system", "developer", "user", "assistant", "tool")
_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})  # two names of one limit
_FORMS = frozenset(  # ways to say what an answer must be: a model is given one of them
    {"response_format", "structured_outputs", "guided_choice", "guided_regex", "guided_json", "guided_grammar"}
)


@dataclass(frozen=True, slots=True)
class Served:
    """One choice with its name, its parameters where a request gives none, its price and its output schema.

    `turnout` is the object that its replies carry; its fields are None for a plain model. `repair` counts the further
    questions that an answer may take which does not fit, `cache_s` the seconds for which an answer may be given again.
    """

    choice: Choice
    name: str
    parameters: Mapping[str, Any]
    timeout_s: float
    price: Price | None
    turnout: Mapping[str, Any]
    output: OutputCheck | None
    repair: int
    cache_s: int
    header: bytes = field(repr=False)

    @property
    def prompt(self) -> str | None:
        """The prompt's name, None for a plain model."""
        return self.choice.variant.prompt if self.choice.variant else None

    def request(self, ask: Ask) -> CompletionRequest:
        """What the model is asked. Raises a BadInput that names its field."""
        variant, prompt = self.choice.variant, self.choice.prompt
        if variant is None or prompt is None:
            adapter = self.choice.tuned.adapter if self.choice.tuned else None
            return CompletionRequest(_any_messages(ask), ask.parameters, adapter, self.timeout_s)
        rendered = prompt.render(ask.variables or {}, ask.messages, ask.placeholders or {})
        parameters = _merged(self.parameters, ask.parameters) if ask.parameters else self.parameters
        return CompletionRequest(rendered, parameters, variant.adapter, self.timeout_s, flow=variant.prompt)

    def output_for(self, ask: Ask) -> OutputCheck | None:
        """The schema that the answer must fit: none where the request asks for a form of its own."""
        return self.output if self.output is None or _FORMS.isdisjoint(ask.parameters) else None


class Serveds:
    """What is held of each choice that was asked for lately."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: dict[tuple[str, Variant | None, int | None, Tuned | None], Served] = {}

    def of(self, choice: Choice) -> Served:
        key = (choice.model, choice.variant, choice.route_revision, choice.tuned)
        found = self._held.get(key)
        if found is None or found.choice.prompt is not choice.prompt:  # read anew from a database that was restored
            if len(self._held) >= MOST_HELD:
                self._held.clear()
            found = self._held[key] = make_served(self._settings, choice)
        return found


def make_served(settings: Settings, choice: Choice) -> Served:
    """What `choice` takes; a model that the settings do not have is for the pool to refuse."""
    spec = settings.models.get(choice.model)
    content = choice.prompt.content if choice.prompt else None
    output = choice.prompt.output if choice.prompt else None
    name = choice.name
    return Served(
        choice=choice,
        name=name,
        parameters=choice.prompt.parameters if choice.prompt else {},
        timeout_s=float(getattr(spec, "timeout_s", DEFAULT_TIMEOUT_S)),
        price=price_of(settings, choice.model) if spec else None,
        turnout={
            "prompt": choice.variant.prompt if choice.variant else None,
            "version": choice.variant.version if choice.variant else None,
            "digest": choice.prompt.digest if choice.prompt else None,
            "variant": name,
            "route_revision": choice.route_revision,
        },
        output=output if output is not None and not output.unusable else None,
        repair=content.repair if content else 0,
        cache_s=content.cache_s if content else 0,
        header=name.encode("latin-1", "replace"),
    )


def _merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt's parameters under those of a request, which may say the same by another name."""
    said = {name for same in (_LIMITS, _FORMS) if not same.isdisjoint(given) for name in same}
    return {**{name: value for name, value in own.items() if name not in said}, **given}


def _any_messages(ask: Ask) -> tuple[Message, ...]:
    if not ask.messages:
        raise BadInput("messages: a model needs at least one message", param="messages")
    return tuple(_any_message(message, index) for index, message in enumerate(ask.messages))


def _any_message(message: Mapping[str, Any], index: int) -> Message:
    if message.get("role") not in _ANY_ROLE:
        raise BadInput(f"messages[{index}]: unknown role {message.get('role')!r}", param=f"messages[{index}].role")
    return plain_message(message, f"messages[{index}]")
