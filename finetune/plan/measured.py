"""What a trial step of a job found on this machine, and the ways of training that follow from it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Measured(BaseModel):
    """Figures of real steps on a job's own rows, taken in a process that is then thrown away.

    `step_s` is the median step and `largest_step_s` that of the batch with the most tokens, whose peak of memory is
    `peak_bytes`: of the whole process on a CPU, of torch's tensors on CUDA. `free_bytes` is what the process might
    take in all: what it holds and what was free beside it, the least of several devices. `reason` says why the job does not
    fit and what to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str  # as torch names it: cpu, cuda:0, mps:0
    precision: str  # of the base model's weights: float32 or bfloat16
    load_s: float = Field(ge=0)  # from the start of the process to the first step: imports, weights, tokenizer, rows
    step_s: float = Field(ge=0)
    largest_step_s: float = Field(ge=0)
    row_s: float = Field(ge=0)  # a row's share of the median step
    score_row_s: float = Field(ge=0)  # of a row's dev score
    tokens_per_s: float = Field(ge=0)  # of examples, each token counted once for every row that it is in
    peak_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0)
    pack_tokens: int = Field(ge=1)  # tokens one forward pass holds
    gradient_checkpointing: bool = False
    four_bit: bool = False  # of the base model's linear layers
    devices: int = Field(1, ge=1)  # that share the base model
    device_free_bytes: tuple[int, ...] = ()  # `free_bytes` of each of them
    compile: bool = False  # the decoder layers
    compile_s: float = Field(0.0, ge=0)  # what compiling them took, once a process
    fits: bool = True
    reason: str = ""
    decisions: tuple[str, ...] = ()  # a sentence for each way that was taken

    def ways(self) -> dict[str, Any]:
        """The fields of a JobSpec that this trial decides."""
        return self.model_dump(include={"pack_tokens", "gradient_checkpointing", "four_bit", "devices", "compile"})
