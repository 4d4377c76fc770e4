"""The frozen spec that a training process reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finetune import durable
from finetune.plan.recipe import Recipe
from finetune.plan.search import Search, Split
from prompts.errors import BadInput

_ADDED = ("splits", "snapshots", "ships")  # after the first release: jobs without them keep the digest they had


class Row(BaseModel):
    """One rendered example: the messages as the model will see them, and the answer that it should give."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[dict[str, Any], ...] = Field(min_length=1)
    answer: str


class JobSpec(BaseModel):
    """All that one training job reads. Nothing else decides its result.

    `max_new_tokens` is how long an answer may get where it is served. `checkpoint_every_steps` 0 keeps checkpoints
    for cancelling alone. `threads` None leaves the number to torch; bit-identical results need the same number.
    `pack_tokens` bounds how many tokens one forward pass holds, and so the memory. `clusters` names for each training
    row the group of rows that resemble it, which no fold of the search may part (empty: none resembles another).
    `snapshots` is how many of the newest evaluations of the final run leave an adapter of their own; it `ships` the best
    one by its dev scores, or the last.
    With `splits` the job trains these in place of a search and of its final runs (`finetune/splits.py`): each by the
    spec's recipe on some of the rows, and the adapter it leaves is that of the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str = Field(min_length=1)
    base_folder: Path
    output_dir: Path
    train: tuple[Row, ...]
    dev: tuple[Row, ...] = ()
    recipe: Recipe = Recipe()
    search: Search = Search()
    clusters: tuple[int, ...] = ()
    splits: tuple[Split, ...] = ()
    max_new_tokens: int = Field(64, ge=1)
    snapshots: int = Field(0, ge=0, le=100)
    ships: Literal["best", "last"] = "best"
    lineage: dict[str, Any] = Field(default_factory=dict)
    checkpoint_every_steps: int = Field(20, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(None, ge=1)
    pack_tokens: int = Field(4096, ge=1)
    gradient_checkpointing: bool = False  # a third more time for a fraction of the memory; the same gradient
    four_bit: bool = (
        False  # the base model in NF4, for one that does not fit otherwise; the adapter is for the full one
    )
    devices: int = Field(1, ge=1)  # that share the base model's weights; see finetune/sharding.py
    compile: bool = False  # the decoder layers, by torch.compile: where the trial showed that it pays
    adapter_name: str = ""  # by default the job's id
    created_at: str = ""

    @property
    def digest(self) -> str:
        """`sha256:…` of all that decides the result; the folder it is written to does not."""
        unused = (name for name in _ADDED if getattr(self, name) == type(self).model_fields[name].default)
        return durable.sha256_of_bytes(self.model_dump_json(exclude={"output_dir", *unused}).encode())

    @model_validator(mode="after")
    def _fits_together(self) -> JobSpec:
        if self.devices > 1 and (self.four_bit or self.compile):
            raise ValueError(f"devices is {self.devices}: a base in 4 bits, and compiled layers, are for one device")
        if self.clusters and len(self.clusters) != len(self.train):
            raise ValueError(f"clusters has {len(self.clusters)} entries for {len(self.train)} rows: give one a row")
        if beyond := [at for one in self.splits for at in (*one.train, *one.left_out) if not 0 <= at < len(self.train)]:
            raise ValueError(f"splits name row {beyond[0]} of {len(self.train)}: count from 0")
        groups = len(set(self.clusters)) if self.clusters else len(self.train)
        if self.train and self.search.folds > groups:
            raise ValueError(f"{groups} groups of rows cannot make {self.search.folds} folds: set fewer")
        if max(self.search.epochs_grid, default=0.0) > self.recipe.epochs:
            raise ValueError(f"epochs_grid exceeds the recipe's epochs of {self.recipe.epochs:g}: raise those")
        if len(self.search.seeds) > 1 and not self.dev:
            raise ValueError("several seeds need dev rows, by which the median is known: give some, or one seed")
        return self


def write_spec(spec: JobSpec, path: Path) -> None:
    """Write the spec of a job, whole or not at all. Raises DiskFullError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_file(path, spec.model_dump_json(indent=1).encode())


def read_spec(path: Path) -> JobSpec:
    """The spec in a file. Raises BadInput."""
    try:
        return JobSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"cannot use the job spec {path}: {error}") from error
