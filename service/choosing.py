"""Who answers a request: a variant of a prompt by its route, a version by its selector, or a plain model. No database."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.errors import BadInput, BadName
from prompts.names import NAME, Selector, Variant, parse_selector, parse_variant
from prompts.prompt import CompiledPrompt
from service.errors import NotFound
from service.identity import Principal
from service.routing import Sticky
from service.settings import Settings
from service.snapshot import Routed, Snapshot, Tuned
from service.splits import PARTS, Split, point_of, unit_digest


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of an application.

    `unit` is the person who stays on one variant, `session` the conversation, each "" for nobody in particular; `pin` is a
    variant asked for by name, "" for what the route says. `named` is a model that the request names beside its prompt, as
    OpenAI's own do: one that does not answer it is refused.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, Any] | None = None
    placeholders: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    session: str = ""
    pin: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers: a variant of a prompt with its compiled version, or (prompt None) a plain model, bare or as it was `tuned`."""

    model: str
    variant: Variant | None = None
    prompt: CompiledPrompt | None = None
    route_revision: int | None = None
    tuned: Tuned | None = None

    @property
    def name(self) -> str:
        if self.variant:
            return str(self.variant)
        return self.tuned.name if self.tuned else self.model


@dataclass(frozen=True, slots=True)
class Plan:
    """Who answers, who answers where that one cannot, and who is asked beside them without ever being answered from.

    `unit` is the digest of whoever stays on the variant, as the log keeps it (`splits.unit_digest`), "" for nobody in
    particular; `reason` says by which of these `first` was found: route, pin, selector, model.
    """

    first: Choice
    fallbacks: tuple[Choice, ...] = ()
    shadows: tuple[Choice, ...] = ()
    unit: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Chance:
    """Where a request falls on a route: `key` is whom it is from ("" for nobody), `unit` that one's digest."""

    key: str
    unit: str
    point: int


@dataclass(frozen=True, slots=True)
class _Ready:
    """A route with all that it names: what every span of its split is answered by."""

    routed: Routed
    split: Split
    spans: tuple[Plan, ...]


class Chooser:
    """Makes plans from the snapshot alone, as long as a plan `is_ready`; else the database is asked first."""

    def __init__(self, settings: Settings, snapshot: Snapshot) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._routes: dict[str, _Ready] = {}

    def is_ready(self, ask: Ask) -> bool:
        """Whether `plan` needs no database: all that labels and routes name is compiled, any other version may not be."""
        if ask.pin or self._snapshot.may_lack(ask.model):
            return False
        name, at, which = ask.model.partition("@")
        if not at or not (which.isascii() and which.isdigit() and len(which) < 10):
            return True
        return self._snapshot.is_ready(name, int(which))

    def plan(self, ask: Ask, principal: Principal | None = None) -> Plan:
        """A prompt's name follows its route, `@` bypasses it; any other model is an alias of the settings.

        Raises NotFound, a BadInput that names its field, or Forbidden where `principal` may not pin a variant.
        """
        plan = self._plan(ask, principal)
        if ask.named:
            self._refuse_another(ask, plan)
        return plan

    def _refuse_another(self, ask: Ask, plan: Plan) -> None:
        """Raise BadInput where the model named beside a prompt is none that answers it.

        It may be named by its alias, by the name that its server knows, or as a variant.
        """
        routed = self._snapshot.view.routes.get(ask.model) if plan.reason == "route" else None
        variants = routed.state.incumbents if routed else tuple(filter(None, (plan.first.variant,)))
        specs = {variant.model: self._settings.models.get(variant.model) for variant in variants}
        upstream = {getattr(spec, "model", None) for spec in specs.values()}
        if ask.named not in {ask.model, *specs, *upstream, *map(str, variants)}:
            answering = " or ".join(sorted(specs))
            reason = f"model: {ask.named[:200]!r} does not answer {ask.model}, {answering} does: leave `model` out"
            raise BadInput(f"{reason}, or change the prompt's model or its route", param="model")

    def _plan(self, ask: Ask, principal: Principal | None) -> Plan:
        if ask.pin:
            return self._pinned(ask, principal)
        routed = self._snapshot.view.routes.get(ask.model)
        if routed is not None and routed.state.variants:
            return self._routed(ask, routed)
        name = ask.model.partition("@")[0]
        if NAME.fullmatch(name) and name in self._snapshot.view.newest:
            return Plan(self._selected(parse_selector(ask.model)), reason="selector")
        if "@" not in ask.model and ask.model in self._settings.models:
            _refuse_variables(ask)
            return Plan(Choice(ask.model), reason="model")
        if (tuned := self._snapshot.tuned(ask.model)) is not None:
            _refuse_variables(ask)
            return Plan(Choice(tuned.model, tuned=tuned), reason="model")
        raise NotFound(
            "model", ask.model, "name a prompt (`name`, `name@label`, `name@7`), a model alias or a fine-tuned model"
        )

    def _routed(self, ask: Ask, routed: Routed) -> Plan:
        ready = self._routes.get(ask.model)
        if ready is None or ready.routed is not routed:
            ready = self._routes[ask.model] = self._ready(routed)
        found = chance(ask, routed)
        plan = ready.spans[ready.split.index(found.point)]
        return Plan(plan.first, plan.fallbacks, plan.shadows, found.unit, plan.reason) if found.unit else plan

    def _ready(self, routed: Routed) -> _Ready:
        state, split = routed.state, routed.state.split
        choices = {
            variant: Choice(
                variant.model, variant, self._snapshot.prompt(variant.prompt, variant.version), routed.revision
            )
            for variant in (*(span.variant for span in split.spans), *state.fallbacks, *state.shadows)
        }
        plans = {
            span.variant: Plan(
                choices[span.variant],
                tuple(choices[variant] for variant in state.fallbacks if variant != span.variant),
                tuple(choices[variant] for variant in state.shadows if variant != span.variant),
                reason="route",
            )
            for span in split.spans
        }
        return _Ready(routed, split, tuple(plans[span.variant] for span in split.spans))

    def _selected(self, selector: Selector) -> Choice:
        number = self._snapshot.select(selector)
        prompt = self._snapshot.prompt(selector.name, number)
        return Choice(prompt.content.model, Variant(selector.name, number, prompt.content.model), prompt)

    def _pinned(self, ask: Ask, principal: Principal | None) -> Plan:
        """The variant that an author asks for by name: it counts for no rollout, and nobody answers in its place."""
        if principal is None or not principal.may("author"):
            (principal or Principal("nobody", "app")).require("author", "pin a variant (x-turnout-variant)")
        try:
            variant = parse_variant(ask.pin)
        except BadName as error:
            raise BadName(f"x-turnout-variant: {error}", param="x-turnout-variant") from error
        if variant.prompt != ask.model.partition("@")[0]:
            raise BadInput(
                f"x-turnout-variant: {ask.pin!r} is no variant of the model {ask.model!r}", param="x-turnout-variant"
            )
        if variant.model not in self._settings.models:
            raise NotFound("model", variant.model, "x-turnout-variant names a model alias of the settings")
        if variant.adapter and self._snapshot.base_of(variant.adapter) != variant.model:
            raise NotFound("adapter", variant.adapter, f"none of that name belongs to {variant.model!r}")
        prompt = self._snapshot.prompt(variant.prompt, variant.version)
        return Plan(Choice(variant.model, variant, prompt), reason="pin")


def _refuse_variables(ask: Ask) -> None:
    for given, what in ((ask.variables, "variables"), (ask.placeholders, "placeholders")):
        if given is not None:
            raise BadInput(f"{ask.model!r} is a model, not a prompt: it takes no {what}", param=what)


def chance(ask: Ask, routed: Routed) -> Chance:
    """Where a request falls: the same point for the same person, one drawn anew for each request of nobody."""
    key = sticky_key(ask, routed.state.sticky)
    if not key:
        return Chance("", "", random.randrange(PARTS))  # noqa: S311 - a share, no secret
    unit = unit_digest(routed.salt, key)
    return Chance(key, unit, point_of(unit))


def sticky_key(ask: Ask, sticky: Sticky | None) -> str:
    """Whom a request is from: the user, else the session; of a route that says so, one of these, or what variables say."""
    if isinstance(sticky, tuple):
        given = {name: ask.variables[name] for name in sticky if ask.variables and name in ask.variables}
        return f"variables:{json.dumps(given, sort_keys=True)}" if given else ""
    if ask.unit and sticky != "session":
        return ask.unit
    return f"session:{ask.session}" if ask.session and sticky != "user" else ""
