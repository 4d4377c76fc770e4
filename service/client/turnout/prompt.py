"""What callers hold: a prompt to render, and what rendering gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnout.template import FallbackTemplate, Given, Message, Template


@dataclass(frozen=True, slots=True)
class Rendered:
    """Messages for a model, in OpenAI's form, and where they come from.

    `model` is the prompt's model alias and `parameters` what to ask it with; of a fallback they are None and empty,
    as are `version` and `digest`. `is_stale` says that the service could not confirm this version lately.
    """

    messages: list[Message]
    model: str | None
    parameters: dict[str, Any]
    name: str
    version: int | None
    digest: str | None
    is_fallback: bool = False
    is_stale: bool = False


def fallen_back(template: FallbackTemplate, given: Given) -> Rendered:
    """What the caller's fallback gives in place of a rendering that did not come."""
    checked = template.check(given.variables, given.placeholders, given.follow_up)
    return Rendered(template.fill(checked), None, {}, template.name, None, None, is_fallback=True)


@dataclass(frozen=True, slots=True)
class PromptBase:
    """One version of a prompt: what `Prompt` and `AsyncPrompt` share.

    `variables` are the JSON Schemas by name. The version stays what it is however long the object is kept: ask the
    client again for what its label means now.
    """

    name: str
    version: int | None
    digest: str | None
    model: str | None
    parameters: Mapping[str, Any]
    variables: Mapping[str, Mapping[str, Any]]
    is_fallback: bool
    is_stale: bool
    _template: Template = field(repr=False, compare=False)
    _fallback: FallbackTemplate | None = field(repr=False, compare=False)

    def _check(
        self,
        variables: Mapping[str, Any] | None,
        more: Mapping[str, Any],
        placeholders: Mapping[str, Any] | None,
        messages: Sequence[Mapping[str, Any]],
    ) -> Given:
        given = {**variables, **more} if variables else more
        return self._template.check(given, placeholders or {}, messages)

    @property
    def is_local(self) -> bool:
        """Whether rendering needs no request: no template of the prompt is more than text and `{{ name }}`."""
        return self._template.lines is not None

    def _rendered(self, messages: list[Message]) -> Rendered:
        return Rendered(messages, self.model, dict(self.parameters), self.name, self.version, self.digest,
                        self.is_fallback, self.is_stale)  # fmt: skip


def fields_of(template: Template, is_stale: bool, fallback: FallbackTemplate | None) -> dict[str, Any]:
    """The fields of a `PromptBase` on `template`."""
    return {
        "name": template.name,
        "version": template.version,
        "digest": template.digest,
        "model": template.model,
        "parameters": template.parameters,
        "variables": {name: variable.schema for name, variable in template.variables.items()},
        "is_fallback": isinstance(template, FallbackTemplate),
        "is_stale": is_stale,
        "_template": template,
        "_fallback": fallback,
    }


@dataclass(frozen=True, slots=True)
class Prompt(PromptBase):
    """A prompt of `Turnout`."""

    _ask: Callable[[PromptBase, Given], Rendered] = field(repr=False, compare=False)

    def render(
        self,
        variables: Mapping[str, Any] | None = None,
        /,
        *,
        placeholders: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> Rendered:
        """The messages for variables (a mapping, or by name), placeholders, and messages that follow the template's.

        Raises BadVariables before any request. A prompt that is not `is_local` is rendered by the service: NotFound,
        Unreachable or Refused then say why it was not.
        """
        given = self._check(variables, more, placeholders, messages)
        return self._rendered(self._template.fill(given)) if self.is_local else self._ask(self, given)


@dataclass(frozen=True, slots=True)
class AsyncPrompt(PromptBase):
    """A prompt of `AsyncTurnout`."""

    _ask: Callable[[PromptBase, Given], Awaitable[Rendered]] = field(repr=False, compare=False)

    async def render(
        self,
        variables: Mapping[str, Any] | None = None,
        /,
        *,
        placeholders: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> Rendered:
        """As `Prompt.render`."""
        given = self._check(variables, more, placeholders, messages)
        return self._rendered(self._template.fill(given)) if self.is_local else await self._ask(self, given)
