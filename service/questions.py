"""What runs and gates are asked for, and how a job keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pydantic

from prompts.errors import BadInput
from prompts.names import Selector, check_name, parse_selector
from service.evaluation import ALL_CASES, DEFAULT_CONCURRENCY, Again
from suites.filters import Filter

RUN_BASELINE = "run:"
MOST_VARIANTS = 20  # of one matrix
NO_BASELINE = "none"  # `none` for all suites, `NAME@none` for those of one prompt


class RunRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What `POST /api/runs` and `turnout run` ask for. `prompt` is a selector; by default `production`.

    `rubrics` are versions (`NAME@N`) for the names by which the suite calls its judges' rubrics.

    A run with a `filter` is no evidence: no gate takes it for a baseline.
    """

    suite: str
    prompt: str | None = None
    model: str | None = None
    adapter: str | None = None
    concurrency: int = pydantic.Field(DEFAULT_CONCURRENCY, ge=1, le=1024)
    no_cache: bool = False
    rerun_failed: bool = False
    rubrics: tuple[str, ...] = ()
    filter: Filter = ALL_CASES


class VariantRequest(pydantic.BaseModel, frozen=True, extra="forbid", defer_build=True):
    """One variant of a matrix: as in a `RunRequest`."""

    prompt: str | None = None
    model: str | None = None
    adapter: str | None = None


class MatrixRequest(pydantic.BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What `POST /api/matrices` asks for, and `turnout run` where a suite compares the answers of several variants.

    One run of each variant, in this order, over the same cases. The other fields are those of a `RunRequest`.
    """

    suite: str
    variants: tuple[VariantRequest, ...] = pydantic.Field(min_length=2, max_length=MOST_VARIANTS)
    concurrency: int = pydantic.Field(DEFAULT_CONCURRENCY, ge=1, le=1024)
    no_cache: bool = False
    rubrics: tuple[str, ...] = ()
    filter: Filter = ALL_CASES

    def runs(self) -> Iterator[RunRequest]:
        """What each run asks for."""
        shared = self.model_dump(exclude={"variants", "filter"})
        for variant in self.variants:
            yield RunRequest(**shared, **variant.model_dump(), filter=self.filter)


class GateRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What `POST /api/gates` and `turnout gate` ask for.

    `candidate` and `baseline` name versions by selector, one for each prompt where there are several; a baseline may
    also be `run:ID`, or "none". `model` is the candidate's: a baseline is asked on its version's own. `fallback` lets
    a missed threshold start the suite's fine-tune. `rerun_failed` keeps what each side's last run judged, and asks what
    errored or was not asked: a second chance for what failed would be no evidence. `rubrics` are as those of a run.
    `held_out` are versions of other suites, `NAME@N`, whose cases the fine-tune that `fallback` starts must not see.
    """

    suites: tuple[str, ...] = pydantic.Field(min_length=1)
    candidate: str | tuple[str, ...] = ()
    baseline: str | tuple[str, ...] = ()
    model: str | None = None
    concurrency: int = pydantic.Field(DEFAULT_CONCURRENCY, ge=1, le=1024)
    no_cache: bool = False
    rerun_failed: bool = False
    fallback: bool = False
    rubrics: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


class RunJob(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A run as its job keeps it: every name pinned to a version, so that a label that moves meanwhile changes nothing."""

    suite: str
    variant: str
    concurrency: int
    use_cache: bool
    rerun_of: str | None = None
    asks: Again = "failed"
    rubrics: dict[str, str] = {}
    filter: Filter = ALL_CASES


class MatrixJob(pydantic.BaseModel, frozen=True, extra="forbid", defer_build=True):
    """A matrix as its job keeps it."""

    runs: tuple[RunJob, ...]


class GateJob(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A gate as its job keeps it. A baseline is a run to make, the id of one made before, or None.

    The fallback of one that `is_scheduled` starts once for a version of the suite on a version of the prompt.
    """

    candidates: tuple[RunJob, ...]
    baselines: tuple[RunJob | str | None, ...]
    fallback: bool = False
    held_out: dict[str, int] = {}
    is_scheduled: bool = False


def rubrics_by_name(given: Sequence[str]) -> dict[str, str]:
    """Versions of rubrics by their names; raises BadInput where one is no version."""
    found = {text: parse_selector(text) for text in given}
    for text, selector in found.items():
        if selector.version is None:
            raise BadInput(f"rubrics: {text!r} is no version: write {selector.name}@N", param="rubrics")
    return {selector.name: text for text, selector in found.items()}


def by_name(given: str | tuple[str, ...], role: str) -> dict[str, Selector | str]:
    """Selectors by the prompt they name; `run:ID` stands under `RUN_BASELINE`.

    Raises BadInput, which names the `role`, for what is none, and where two versions of one prompt are named.
    """
    found: dict[str, Selector | str] = {}
    for text in (given,) if isinstance(given, str) else given:
        if text.startswith(RUN_BASELINE):
            found[RUN_BASELINE] = text.removeprefix(RUN_BASELINE)
        else:
            selector = _selector(text, role)
            if found.get(selector.name, selector) != selector:
                raise BadInput(f"{role}: prompt {selector.name!r} is given two versions: name one", param=role)
            found[check_name(selector.name)] = selector
    return found


def _selector(text: str, role: str) -> Selector:
    kind, colon, _ = text.partition(":")
    if colon:
        forms = "NAME@SEL, run:ID, git:REF or none" if role == "baseline" else "a version, NAME@SEL"
        raise BadInput(f"{text!r} begins with {kind + ':'!r}: a {role} is {forms}", param=role)
    return parse_selector(text)
