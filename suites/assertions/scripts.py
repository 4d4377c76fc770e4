"""What every script is given and what its answer means, be it JavaScript or Python; and transforms, which are scripts too."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prompts.messages import Message
from suites.assertions.spec import AssertionErrored, AssertionSpec, Outcome, Scene, shorten
from suites.assertions.tools import called

MAX_PARTS = 100  # component results and named scores that are kept of one answer
_FORMS = "true or false, a score, or {pass, score, reason}"


async def context_of(scene: Scene, spec: AssertionSpec | None = None) -> dict[str, Any]:
    """The `context` of a script: promptfoo's `vars`, `prompt`, `test` and `config`; `prompt` is null where it is unknown."""
    variables = dict(scene.variables)
    question = await scene.aids.question(scene.case_id) if scene.aids is not None else ()
    config = (spec.config if spec else None) or {}
    return {"vars": variables, "prompt": _prompt(question), "test": {"vars": variables}, "config": config}


def _prompt(question: Sequence[Message]) -> str | None:
    """The text of a single message, or the messages as JSON."""
    if len(question) == 1 and isinstance(question[0].content, str):
        return question[0].content
    return json.dumps([message.as_dict() for message in question], ensure_ascii=False) if question else None


def output_of(scene: Scene) -> Any:
    """The `output` of a script: the text; its value where a transform made one; the calls of an answer that has no text."""
    output = scene.output
    if output.data is not None:
        return output.data
    return called(output) if not output.text and output.message else output.text


def outcome_of(value: Any, spec: AssertionSpec) -> Outcome:
    """What a script's answer means, in promptfoo's forms.

    Raises AssertionErrored for an answer of another form. A number is a score, and passes from the threshold on or,
    without one, above 0; of an object both `pass` and the threshold must hold. Scores are kept between 0 and 1.
    """
    if isinstance(value, bool):
        return Outcome(value, float(value), f"the script said {str(value).lower()}")
    if _is_number(value):
        return _scored(value, spec)
    if isinstance(value, Mapping):
        return _graded(value, spec)
    raise AssertionErrored(f"the script gave {shorten(value)}, not {_FORMS}")


def _scored(value: float, spec: AssertionSpec) -> Outcome:
    if spec.threshold is None:
        return Outcome(value > 0, _share(value), f"the script gave the score {value:g}")
    passed = value >= spec.threshold - 1e-9
    return Outcome(passed, _share(value), f"the script gave the score {value:g}; the threshold is {spec.threshold:g}")


def _graded(value: Mapping[str, Any], spec: AssertionSpec) -> Outcome:
    passed = value.get("pass", value.get("pass_"))
    score = value.get("score", float(passed) if isinstance(passed, bool) else None)
    if not _is_number(score) or not (passed is None or isinstance(passed, bool)):
        raise AssertionErrored(f"the script gave {shorten(dict(value))}, not {_FORMS}")
    scored = _scored(score, spec)
    holds = scored.passed if passed is None else passed and (spec.threshold is None or scored.passed)
    return Outcome(holds, scored.score, str(value.get("reason") or scored.reason)[:2000], parts=_parts(value, spec))


def _parts(value: Mapping[str, Any], spec: AssertionSpec) -> tuple[Outcome, ...]:
    """Component results and named scores."""
    named = value.get("namedScores", value.get("named_scores")) or {}
    components = value.get("componentResults", value.get("component_results")) or []
    if not isinstance(named, Mapping) or not isinstance(components, list):
        raise AssertionErrored("the script gave namedScores that are no mapping, or componentResults that are no list")
    plain = spec.model_copy(update={"threshold": None})
    parts = [outcome_of(component, plain) for component in components[:MAX_PARTS]]
    for name, score in list(named.items())[:MAX_PARTS]:
        if not _is_number(score):
            raise AssertionErrored(
                f"the script gave the named score {shorten(name)} as {shorten(score)}, not as a number"
            )
        parts.append(Outcome(score > 0, _share(score), "named by the script", metric=str(name)[:100]))
    return tuple(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def time_limit(spec: AssertionSpec, default_s: float, most_s: float) -> float:
    """Seconds that a script may take: `config: {timeout_ms: …}`. Raises ValueError outside of the bounds."""
    given = (spec.config or {}).get("timeout_ms", default_s * 1000)
    if not _is_number(given) or not 0 < given <= most_s * 1000:
        raise ValueError(f"timeout_ms cannot be {shorten(given)}: write 1 to {most_s * 1000:,.0f}")
    return float(given) / 1000
