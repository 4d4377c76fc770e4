"""What a resolved suite is held to besides: scripts that may be run, prices that are known, assertions that decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic_core import PydanticCustomError

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document, suggest
from suites import assertions
from suites.assembly import is_measured
from suites.assertions.folders import ScriptFolders
from suites.assertions.loose import why_loose
from suites.assertions.python import PYTHON, check_folders
from suites.assertions.spec import AssertionSpec
from suites.case import Suite
from suites.rows import Place


def check_scripts(
    suite: Suite, folders: ScriptFolders, *, document: Document | None = None, places: Sequence[Place] = ()
) -> None:
    """Refuse Python files that are not there, or lie outside of the folders whose files may be run.

    Raises BadFile with every such file and the first case that has it, of which `document` and `places` know the lines.
    """
    where = document or Document("suite", {}, {(): 0})
    faults: dict[str, Fault] = {}
    for index, case in enumerate(suite.tests):
        if PYTHON not in case.shared.types:
            continue
        for spec in (each for whole in case.filled_asserts() for each in assertions.walk(whole)):
            try:
                check_folders(spec, folders)
            except PydanticCustomError as error:
                place = places[index] if places else Place(where.path, where.line("tests", index))
                fix = str((error.context or {}).get("fix", ""))
                faults.setdefault(str(spec.value), Fault(*place, error.message(), fix))
    if faults:
        raise BadFile(list(faults.values()))


def undecided(suite: Suite, places: Sequence[Place]) -> Iterator[Fault]:
    """A warning for each case that passes whatever is answered, though it has assertions, and for assertions that cannot fail.

    An assertion is told with the first case that has it. Nothing is said where answers are measured besides: by their
    latency or cost, or by a metric that the case adds to.
    """
    if is_measured(suite.thresholds):
        return
    told: set[str] = set()
    read: set[tuple[bytes, bool]] = set()
    for case, place in zip(suite.tests, places, strict=True):
        shared, by_score = case.shared, bool(case.threshold)
        if not shared or shared.metrics & suite.thresholds.metrics.keys():
            continue
        if case.threshold == 0 or not any(_decides(spec, by_score) for spec in shared):
            why = "its `threshold` is 0" if case.threshold == 0 else "its assertions decide nothing"
            fix = "raise the threshold, or give an assertion a `weight` above 0"
            yield Fault(*place, f"{why}: any answer passes", fix, level="warning", rule="no-assertion")
        elif (shared.canonical, by_score) not in read:
            read.add((shared.canonical, by_score))
            for why in {why: None for spec in shared for why in _loose(spec, by_score) if why not in told}:
                told.add(why)
                yield Fault(*place, why, _MAKE_IT_DECIDE, level="warning", rule="no-assertion")


_MAKE_IT_DECIDE = "set it so that a wrong answer misses it, or give it `weight: 0` to report without deciding"


def _loose(spec: AssertionSpec, by_score: bool) -> Iterator[str]:
    """What is said of assertions with a weight that no answer fails; one with a metric is there for its score, too."""
    if spec.weight == 0:
        return
    if spec.type == assertions.ASSERT_SET:
        for part in spec.asserts:
            yield from _loose(part, by_score or bool(spec.threshold))
    elif why := why_loose(spec, is_scored=by_score or spec.metric is not None):
        yield f"`{spec.type}`: {why}"


def _decides(spec: AssertionSpec, by_score: bool) -> bool:
    """Whether an assertion has a part in what its case comes to; `by_score` where its score counts beside its outcome."""
    if spec.type != assertions.ASSERT_SET or spec.weight == 0:
        return spec.weight > 0
    return (by_score or spec.threshold != 0) and any(_decides(part, by_score) for part in spec.asserts)


def check_base_model(suite: Suite, tunable: Mapping[str, bool], document: Document) -> None:
    """Refuse a `fallback.base_model` that is none of the aliases of `tunable`, or one that cannot be tuned.

    Raises BadFile with its line in `document`.
    """
    base = suite.fallback.base_model if suite.fallback else None
    if base is None or tunable.get(base):
        return
    known = [alias for alias, can in tunable.items() if can]
    what = f"model {base!r} cannot be tuned" if base in tunable else f"turnout.yaml has no model {base!r}"
    fix = suggest(base, known) if known else _MAKE_ONE_TUNABLE
    raise BadFile(
        [document.fault(f"fallback.base_model: {what}", "fallback", "base_model", fix=fix, rule="base-model")]
    )


_MAKE_ONE_TUNABLE = "give turnout.yaml a local model, or a vllm one with `tunable: true`"


def untuned_fallback(suite: Suite, model: str, tunable: Mapping[str, bool], document: Document) -> Iterator[Fault]:
    """A warning where a missed threshold would tune `model`, the prompt's own, for want of a base, and it cannot be tuned.

    Nothing is said of a model that is none of the aliases of `tunable`. `turnout finetune --base` may still name another.
    """
    fallback = suite.fallback
    if fallback is None or fallback.when == "never" or fallback.base_model or tunable.get(model, True):
        return
    known = ", ".join(sorted(alias for alias, can in tunable.items() if can))
    message = f"fallback: it names no `base_model`, and its prompt's model {model!r} cannot be tuned"
    fix = f"write `base_model:` with one that can ({known})" if known else f"{_MAKE_ONE_TUNABLE}, and name it"
    fix += ", or `when: never`"
    yield document.fault(message, "fallback", fix=fix, level="warning", rule="base-model")


def check_prices(
    suite: Suite,
    model: str,
    has_price: bool,
    *,
    document: Document | None = None,
    places: Sequence[Place] = (),
) -> None:
    """Refuse bounds on costs (a threshold, `cost` assertions) where nobody knows what `model`, which answers, costs.

    Raises BadFile with every such place, of which `document` and `places` know the lines.
    """
    if has_price:
        return
    fix = f"give {model} a `price` in turnout.yaml, or remove this"
    where = document or Document("suite", {}, {(): 0})
    faults = []
    if suite.thresholds.cost_per_1k_usd is not None:
        message = f"thresholds.cost_per_1k_usd: the price of model {model!r} is unknown"
        faults.append(where.fault(message, "thresholds", "cost_per_1k_usd", fix=fix, rule="unknown-price"))
    seen: set[bytes] = set()  # a fault names the first case that has it
    has_costly = any(kind.endswith("cost") for kind in suite.kinds)
    for index, case in enumerate(suite.tests if has_costly else ()):
        costly = next((each for each in case.shared.all if each.type.endswith("cost")), None)
        if costly is not None and case.shared.canonical not in seen:
            seen.add(case.shared.canonical)
            place = places[index] if places else Place(where.path, where.line("tests", index))
            message = f"`{costly.type}`: the price of model {model!r} is unknown"
            faults.append(Fault(*place, message, fix, rule="unknown-price"))
    if faults:
        raise BadFile(faults)
