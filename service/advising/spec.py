"""What an advice was asked for, and what it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pydantic

from service.store import jobs
from service.tuning.claim import Claim
from service.tuning.material import FinetuneSpec, Material, material_of

DEFAULT_MINUTES = 10.0
DEFAULT_SHOTS = (4, 8, 16)
DEFAULT_WATTS = 10.0  # of one busy core of a server's CPU, with its share of memory and cooling
MOST_SHOTS = 64


class AdviceSpec(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What an advice job was asked for.

    `model` is the alias that the prompt asks, `base` the model to tune, None where none can be; `untunable` says why.
    `against` is another alias to set beside. `minutes` bound the trainings; `price_per_hour` (US dollars) and `watts` (of
    a busy core) are those of own hardware.
    """

    suite: str
    suite_version: int
    prompt_version: int
    model: str
    base: str | None = None
    untunable: str = ""
    against: str | None = None
    examples: list[dict[str, Any]] | None = None
    dataset: str | None = None
    held_out: dict[str, int] = {}
    shots: tuple[int, ...] = DEFAULT_SHOTS
    minutes: float = DEFAULT_MINUTES
    price_per_hour: float | None = None
    watts: float = DEFAULT_WATTS
    look: bool = False
    dry_run: bool = False
    called: str = ""
    local: bool = False

    @property
    def as_finetune(self) -> FinetuneSpec:
        """The same as a fine-tune asks for it: examples, held-out cases and recipe are found in one way."""
        kept = self.model_dump(include={"suite", "suite_version", "prompt_version", "examples", "dataset", "held_out"})
        return FinetuneSpec(**kept, base=self.base or self.model)


@dataclass(frozen=True)
class Work:
    """An advice under way: its claim, what was asked, and the suite and prompt that it is about."""

    claim: Claim
    spec: AdviceSpec
    material: Material

    @property
    def advice_id(self) -> str:
        return advice_id_of(self.claim.job_id)

    @property
    def model(self) -> str:
        """The alias that the prompt asks today."""
        return self.material.before.model

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        return self.material.prompt.content.request_parameters()

    @property
    def bar(self) -> float | None:
        return self.material.suite.thresholds.pass_rate


def open_work(claim: Claim) -> Work:
    """What the job of a claim works on, read anew: all of it is immutable."""
    with claim.database.read() as session:
        job = jobs.get(session, claim.job_id)
    assert job is not None  # noqa: S101 - for the type checker: a claimed job exists
    spec = AdviceSpec.model_validate(job["spec"])
    return Work(claim, spec, material_of(claim.database, spec.as_finetune, f"advice-{claim.short_id}"))


def advice_id_of(job_id: str) -> str:
    """The id of the advice that a job gives."""
    return f"adv_{job_id.partition('_')[2]}"


def job_id_of_advice(advice_id: str) -> str:
    """The job that gives an advice; a job's own id is taken, too."""
    return f"job_{advice_id.partition('_')[2]}"
