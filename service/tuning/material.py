"""What a fine-tune was asked for, and what it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from prompts.errors import BadInput
from prompts.names import Variant
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt
from service.engine.sources import Source
from service.registry import stored_suite
from service.settings import FakeSpec, Settings
from service.store import jobs, prompts, suites
from service.store.database import Database
from service.tuning.claim import Claim
from suites.case import Suite
from suites.policy import Budget


class FinetuneSpec(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What a fine-tune job was asked for.

    `examples`, or those of the stored `dataset`, are used in place of the suite's own; `recipe` goes over the
    suite's; `attempts` and `minutes` replace its budget. `held_out` are versions of other suites, by name, whose cases
    are not trained on either, beside those that every suite's name means.
    """

    suite: str
    suite_version: int
    prompt_version: int
    base: str
    examples: list[dict[str, Any]] | None = None
    dataset: str | None = None
    recipe: dict[str, Any] = {}
    attempts: int | None = None
    minutes: float | None = None
    dry_run: bool = False
    held_out: dict[str, int] = {}


@dataclass(frozen=True)
class Material:
    """What one attempt of a job works on, read anew in each step: all of it is immutable."""

    attempt: int
    spec: FinetuneSpec
    suite: Suite
    prompt: CompiledPrompt
    before: Variant
    after: Variant

    @property
    def adapter(self) -> str:
        """The name that this attempt's adapter gets."""
        return self.after.adapter or ""

    @property
    def recipe(self) -> dict[str, Any]:
        """What is fixed of the recipe."""
        return fixed_recipe(self.suite, self.spec.recipe)

    @property
    def budget(self) -> Budget:
        """How often and how long may be tried."""
        given = self.suite.fallback.budget if self.suite.fallback else Budget()
        asked = {"attempts": self.spec.attempts, "minutes": self.spec.minutes}
        return given.model_copy(update={name: value for name, value in asked.items() if value is not None})


def fixed_recipe(suite: Suite, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a suite and a request fix of the recipe; the request's word is the last."""
    return {**((suite.fallback and suite.fallback.recipe) or {}), **asked}


def material(claim: Claim, attempt: int = 1) -> Material:
    """The suite, the prompt version and the two variants of one attempt."""
    with claim.database.read() as session:
        job = jobs.get(session, claim.job_id)
    assert job is not None  # noqa: S101 - for the type checker: a claimed job exists
    spec = FinetuneSpec.model_validate(job["spec"])
    return material_of(claim.database, spec, claim.short_id, attempt)


def material_of(database: Database, spec: FinetuneSpec, short_id: str, attempt: int = 1) -> Material:
    """What a spec names: suite, prompt version, and both variants; `short_id` is part of the adapter's name."""
    with database.read() as session:
        record = suites.by_number(session, spec.suite, spec.suite_version)
        assert record is not None  # noqa: S101 - for the type checker: suite versions are never deleted
        version = prompts.by_number(session, record["prompt"], spec.prompt_version)
        assert version is not None  # noqa: S101 - for the type checker: prompt versions are never deleted
    prompt = compile_prompt(PromptContent.model_validate(version.content), version.digest)
    name = f"{record['prompt'].rpartition('.')[2]}-{short_id}" + (f"-{attempt}" if attempt > 1 else "")
    return Material(
        attempt=attempt,
        spec=spec,
        suite=stored_suite(database, record),
        prompt=prompt,
        before=Variant(version.name, version.number, prompt.content.model),
        after=Variant(version.name, version.number, spec.base, name),
    )


def model_source(settings: Settings, alias: str) -> Source:
    """Where the weights of a tunable model come from, with the chat template that it is served with.

    Raises BadInput for one that cannot be tuned here.
    """
    spec = settings.model(alias)
    if not spec.is_tunable or isinstance(spec, FakeSpec) or not spec.source:
        tunable = ", ".join(name for name, other in sorted(settings.models.items()) if other.is_tunable) or "none"
        raise BadInput(f"model {alias!r} cannot be tuned: tunable here are {tunable}", param="base")
    return Source.parse(spec.source, getattr(spec, "chat_template", None))
