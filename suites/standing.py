"""What keeps a gate from passing on judges' word: people who have yet to speak, and judges who do not agree with them."""

from __future__ import annotations

from collections.abc import Iterator

from suites.policy import JudgeFloor
from suites.verdicts import GateInput, Measured

_ROUNDING = 1e-12


def judging_doubts(given: GateInput) -> Iterator[str]:
    """Why a gate must not pass yet, each with the command that mends it."""
    if given.candidate.set_aside:
        yield set_aside_in_words(given.candidate.set_aside)
    for role, side in (("candidate", given.candidate), ("baseline", given.baseline)):
        if side is not None and side.waiting:
            cases = "1 case waits" if side.waiting == 1 else f"{side.waiting} cases wait"
            yield f"{cases} for people in the {role}'s run: turnout judge waiting {side.run_id or 'RUN'}"
    if given.judge is None:
        return
    for grader in given.judge.graders:
        if below := below_floor(given.judge.floor, grader):
            yield f"judge {grader.model}, {grader.name}: {below}: turnout judge calibrate {given.suite}"


def set_aside_in_words(count: int) -> str:
    """What keeps a suite with skipped cases from passing."""
    cases = "1 case is" if count == 1 else f"{count} cases are"
    return f"{cases} skipped by the suite, which says why: mend or remove what `skip` stands beside"


def below_floor(floor: JudgeFloor, grader: Measured) -> str:
    """What keeps a grader below the floor; "" where it reaches it."""
    if grader.calibration_id is None:
        return "its agreement with people was never measured for this model, these votes and these rubrics"
    for name, bound in floor.given().items():
        value = getattr(grader, name)
        if value is None:
            return f"{name} cannot be said of {grader.n} labels that are all alike, and the floor is {bound:g}"
        if value < bound - _ROUNDING:
            return f"{name} {value:.3f} over {grader.n} labels is below the floor of {bound:g}"
    return ""
