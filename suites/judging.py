"""What a suite asks of judges: whether it can be asked at all, and whose agreement with people its gate rests on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.yaml_source import Document, suggest
from suites import assertions
from suites.assertions.compared import COMPARED, MAX_SCORE
from suites.assertions.embedded import EMBEDDED
from suites.assertions.judged import CALIBRATED, JUDGED, NEED_CONTEXT, RELEVANCE, grader_key
from suites.assertions.people import HUMAN
from suites.assertions.rubric import given_for, is_name, kind_of, slots_of
from suites.assertions.spec import AssertionSpec
from suites.case import Case, Place, Suite
from suites.values import walk_texts

_ASKING = JUDGED | EMBEDDED | {HUMAN}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the assertions of a suite look at beyond an answer, found in one pass over its cases.

    `others` tells whether any model or person is asked, `compares` whether answers are compared. `graders` holds one
    assertion for each grader whose agreement with people can be measured, `aliases` the models that are asked,
    `rubrics` the names of registry prompts that ask judges.
    """

    others: bool = False
    compares: bool = False
    graders: tuple[AssertionSpec, ...] = ()
    aliases: frozenset[str] = frozenset()
    rubrics: frozenset[str] = frozenset()

    @classmethod
    def of_suite(cls, suite: Suite) -> Needs:
        kinds = {kind.removeprefix(assertions.NOT) for kind in suite.kinds}
        if not kinds & (_ASKING | COMPARED):
            return cls()
        specs = [spec for spec in _distinct(suite) if kind_of(spec) in _ASKING]
        graders: dict[str, AssertionSpec] = {}
        for spec in specs:
            if kind_of(spec) in CALIBRATED:
                graders.setdefault(grader_key(spec), spec)
        aliases = {alias for spec in specs for alias in _aliases_of(suite, spec) if alias}
        rubrics = frozenset(name for spec in specs for name in _rubrics_of(spec))
        return cls(bool(specs), bool(kinds & COMPARED), tuple(graders.values()), frozenset(aliases), rubrics)


def _distinct(suite: Suite) -> Iterator[AssertionSpec]:
    """Every assertion; those that many cases share once."""
    seen: set[bytes] = set()
    for case in suite.tests:
        if case.shared.canonical not in seen:
            seen.add(case.shared.canonical)
            yield from case.shared.all


def _aliases_of(suite: Suite, spec: AssertionSpec) -> Iterator[str | None]:
    if kind_of(spec) in JUDGED:
        yield spec.provider or suite.judge.model
    if kind_of(spec) in EMBEDDED | {RELEVANCE}:
        yield _embeddings_of(spec) or suite.judge.embeddings


def _rubrics_of(spec: AssertionSpec) -> Iterator[str]:
    """The registry prompts that an assertion names as its rubrics."""
    if kind_of(spec) in JUDGED:
        yield from (given for slot in slots_of(spec) if is_name(given := given_for(spec, slot)))


def _embeddings_of(spec: AssertionSpec) -> str | None:
    """The model of embeddings that an assertion names itself."""
    return (spec.config or {}).get("embeddings") if kind_of(spec) == RELEVANCE else spec.provider


def compares_answers(content: Suite | Mapping[str, Any]) -> bool:
    """Whether a suite, or the content of its record, has answers compared with each other."""
    if isinstance(content, Suite):
        return bool(content.kinds & COMPARED)
    return any(keys[-1:] == ("type",) and text in COMPARED for keys, text in walk_texts(dict(content)))


SEVERAL = "ask several at once (`turnout run` with several --model or --prompt)"
WITHOUT_TUNING = "write an assertion that judges one answer: a fine-tune asks each variant by itself"


def check_alone(name: str, suite: Suite, fix: str = SEVERAL) -> None:
    """Raise BadInput, saying how to `fix` it, for a suite that compares answers where one variant has none to compare."""
    if not compares_answers(suite):
        return
    for spec in _distinct(suite):
        if spec.type in COMPARED and suite.repeat == 1:
            told, more = "one variant gives one answer to a case", "add `repeat: 3` and `pass_k: 1` to the suite"
            raise BadInput(f"suite {name}: `{spec.type}` compares answers, and {told}: {fix}, or {more}", param="model")
        if spec.type in COMPARED and suite.passes_needed > 1 and spec.weight > 0:
            told = f"one variant has one best answer of {suite.repeat} repeats, and {suite.passes_needed} must pass"
            more = "write `pass_k: 1`, or `weight: 0` to report without deciding"
            raise BadInput(f"suite {name}: `{spec.type}`: {told}: {fix}, or {more}", param="model")


def check_judges(
    suite: Suite,
    aliases: Collection[str],
    *,
    document: Document | None = None,
    places: Sequence[Place] = (),
    is_whole: bool = True,
) -> None:
    """Refuse judges that cannot be asked: unknown models, none at all, a comparison of what is not there.

    Raises BadFile with every such place, of which `document` and `places` know the lines; each fault names the first case
    that has it. Of a suite that is not whole nothing is said that it may lack for its other faults.
    """
    where = document or Document("suite", {}, {(): 0})
    faults = list(_head_faults(suite, aliases, where, is_whole=is_whole))
    found: dict[tuple[str, str], Fault] = {}
    read: dict[bytes, list[tuple[str, str]]] = {}
    for index, case in enumerate(suite.tests):
        told = read.get(case.shared.canonical)
        if told is None:
            told = read[case.shared.canonical] = list(_spec_faults(suite, case, aliases))
        for message, fix in (*told, *_case_faults(case)):
            place = places[index] if places else Place(where.path, where.line("tests", index))
            found.setdefault((message, fix), Fault(*place, message, fix))
    if faults or found:
        raise BadFile([*faults, *found.values()])


def _head_faults(suite: Suite, aliases: Collection[str], where: Document, *, is_whole: bool) -> Iterator[Fault]:
    for name in ("model", "embeddings"):
        alias = getattr(suite.judge, name)
        if alias is not None and alias not in aliases:
            yield where.fault(_unknown(f"judge.{name}", alias), "judge", name, fix=suggest(alias, aliases))
    if is_whole and suite.judge.floor is not None and not Needs.of_suite(suite).graders:
        message = "judge.floor: no assertion of this suite is decided by a model"
        yield where.fault(message, "judge", "floor", fix="remove it, or add an assertion such as llm-rubric")


def _unknown(what: str, alias: str) -> str:
    return f"{what}: turnout.yaml has no model {alias!r}"


def _spec_faults(suite: Suite, case: Case, aliases: Collection[str]) -> Iterator[tuple[str, str]]:
    """Faults of assertions, with their fixes."""
    if case.shared.types & COMPARED:
        yield from _comparison_faults(suite, case)
    for spec in case.shared.all:
        if kind_of(spec) not in JUDGED | EMBEDDED:
            continue
        for what, alias in (("provider", spec.provider), ("config.embeddings", (spec.config or {}).get("embeddings"))):
            if alias is not None and alias not in aliases:
                yield _unknown(f"`{spec.type}`: {what}", alias), suggest(alias, aliases)
        yield from _missing_models(suite, spec)


def _missing_models(suite: Suite, spec: AssertionSpec) -> Iterator[tuple[str, str]]:
    judge = suite.judge
    if kind_of(spec) in JUDGED and not (spec.provider or judge.model):
        fix = "add `judge: {model: ALIAS}` to the suite, or `provider: ALIAS` here"
        yield f"`{spec.type}` names no model to judge", fix
    if kind_of(spec) in EMBEDDED | {RELEVANCE} and not (_embeddings_of(spec) or judge.embeddings):
        here = "`config: {embeddings: ALIAS}`" if kind_of(spec) == RELEVANCE else "`provider: ALIAS`"
        yield (
            f"`{spec.type}` names no model of embeddings",
            f"add `judge: {{embeddings: ALIAS}}` to the suite, or {here} here",
        )


def _comparison_faults(suite: Suite, case: Case) -> Iterator[tuple[str, str]]:
    """Comparisons of what will not be there: other assertions' scores, other variants' answers."""
    others = [spec for spec in case.shared if not any(each.type in COMPARED for each in assertions.walk(spec))]
    for spec in case.shared.all:
        if spec.type == MAX_SCORE and spec not in case.shared:
            yield f"`{spec.type}` adds up the scores of a case", "write it beside the `assert-set`, not within"
        elif spec.type == MAX_SCORE and not others:
            yield (
                f"`{spec.type}` has no scores to add up",
                "give the case another assertion, such as equals or llm-rubric",
            )
        if spec.type in COMPARED and suite.repeat == 1 and (alone := _asked_alone(suite)):
            yield f"`{spec.type}` compares variants, and `{alone}` asks one by itself", f"remove it, or `{alone}`"


def _asked_alone(suite: Suite) -> str:
    """The key of a suite that has it run without another variant beside."""
    if suite.schedule is not None:
        return "schedule"
    return "fallback" if suite.fallback is not None and suite.fallback.when != "never" else ""


def _case_faults(case: Case) -> Iterator[tuple[str, str]]:
    """Variables that a type needs of each case."""
    needing = sorted(case.shared.types & NEED_CONTEXT)
    if needing and not case.known.get("context"):
        yield f"`{needing[0]}` needs the variable `context`", "add `vars: {context: what was looked up}`"
