"""Who judges in a suite, and how each of them stands with people by what was measured last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from prompts.names import LATEST, PRODUCTION, Selector, parse_selector
from prompts.prompt import PromptContent, compile_prompt, digest_of
from service.errors import NotFound
from service.registry import select_version
from service.settings import Settings
from service.store import calibrations
from service.store.database import Database
from suites.assertions.rubric import known_rubric, slots_of
from suites.assertions.spec import AssertionSpec, Rubric
from suites.case import Suite
from suites.judging import Needs
from suites.verdicts import JudgeStanding, Measured

AS_THEY_ARE: Mapping[str, str] = MappingProxyType({})  # rubrics by what their names mean now


@dataclass(frozen=True, slots=True)
class Grader:
    """One kind of judging in a suite: who judges what, and by which rubrics, by their digests in order of use.

    `key` covers all that its agreement with people depends on, the settings of the model and the votes among it.
    """

    type: str
    metric: str | None
    model: str
    rubrics: tuple[str, ...]
    key: str

    def as_data(self) -> dict[str, Any]:
        return {"type": self.type, "metric": self.metric, "model": self.model, "rubrics": list(self.rubrics)}


def origin_of(settings: Settings, alias: str) -> str:
    """A digest of a judge: its alias and what that stands for. Raises BadSetting for an unknown alias."""
    return digest_of(["judge", alias, settings.model(alias).model_dump(mode="json", exclude={"price"})])


def registered_rubric(database: Database, name: str) -> Rubric | None:
    """What `name`, `name@label` or `name@N` means now: a bare name production, else the newest."""
    selector = parse_selector(name)
    bare = selector.version is None and selector.label is None
    tried = [Selector(selector.name, label=label) for label in (PRODUCTION, LATEST)] if bare else [selector]
    with database.read() as session:
        for selector in tried:
            try:
                record = select_version(session, selector)
            except NotFound:
                continue
            compiled = compile_prompt(PromptContent.model_validate(record.content), record.digest)
            return Rubric(compiled, f"{record.name}@{record.number}")
    return None


def pinned_rubrics(database: Database, names: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The version (`NAME@N`) of each rubric, that of `given` where it has one; those that are nowhere are left out."""
    found: dict[str, str] = {}
    for name in sorted(names):
        rubric = registered_rubric(database, given.get(name, name))
        if rubric is not None:
            found[name] = rubric.name
    return found


def grader_of(
    database: Database,
    settings: Settings,
    suite: Suite,
    spec: AssertionSpec,
    rubrics: Mapping[str, str] = AS_THEY_ARE,
) -> Grader:
    """The grader of a judged assertion, by the versions `rubrics` where they name one.

    Raises NotFound for a rubric that the registry does not have.
    """
    alias = spec.provider or suite.judge.model or ""
    digests = []
    for slot in slots_of(spec):
        found = known_rubric(spec, slot)
        rubric = found if isinstance(found, Rubric) else registered_rubric(database, rubrics.get(found, found))
        if rubric is None:
            raise NotFound("prompt", str(found), f"`{spec.type}` has it as its rubricPrompt: push it (`turnout push`)")
        digests.append(rubric.prompt.digest)
    key = digest_of([spec.type, spec.metric, origin_of(settings, alias), suite.judge.votes, digests])
    return Grader(spec.type, spec.metric, alias, tuple(digests), key)


def standing_of(
    database: Database, settings: Settings, name: str, suite: Suite, rubrics: Mapping[str, str] = AS_THEY_ARE
) -> JudgeStanding | None:
    """How the judges of a suite stand; None where it has no floor for them."""
    if suite.judge.floor is None:
        return None
    found = [grader_of(database, settings, suite, spec, rubrics) for spec in Needs.of_suite(suite).graders]
    with database.read() as session:
        measured = [_measured(grader, calibrations.newest(session, name, grader.key)) for grader in found]
    return JudgeStanding(floor=suite.judge.floor, votes=suite.judge.votes, graders=tuple(measured))


def _measured(grader: Grader, record: dict[str, Any] | None) -> Measured:
    figures = {name: record["figures"][name] for name in ("n", "accuracy", "kappa")} if record else {}
    return Measured(**grader.as_data(), calibration_id=record["id"] if record else None, **figures)
