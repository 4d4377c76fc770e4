"""Assertions on how sure the model was of its answer, by the log-probabilities of its tokens."""

from __future__ import annotations

import math

from suites.assertions.similarity import check_share
from suites.assertions.spec import Assertion, AssertionErrored, AssertionSpec, Family, Outcome, Output, refuse

_MOST_EXPONENT = 700.0  # beyond it a float is infinite


def _perplexity(output: Output, spec: AssertionSpec) -> Outcome:
    found = perplexity(output)
    most = math.inf if spec.threshold is None else spec.threshold
    passed = found <= most
    verb = "as expected" if passed else "expected"
    return Outcome(passed, float(passed), f"{verb}: a perplexity of at most {most:g}; got {found:.4g}")


def _perplexity_score(output: Output, spec: AssertionSpec) -> Outcome:
    score = 1.0 / (1.0 + perplexity(output))
    least = spec.threshold or 0.0
    passed = score >= least - 1e-9
    verb = "as expected" if passed else "expected"
    return Outcome(passed, score, f"{verb}: 1 / (1 + perplexity) of at least {least:g}; got {score:.4f}")


def perplexity(output: Output) -> float:
    """e to the mean negative log-probability of a token; 1 is certain.

    Raises AssertionErrored where the upstream gave no log-probabilities.
    """
    if not output.logprobs:
        raise AssertionErrored("the model gave no log-probabilities: its server must answer `logprobs: true`")
    mean = math.fsum(output.logprobs) / len(output.logprobs)
    return math.exp(min(-mean, _MOST_EXPONENT))


def _check(spec: AssertionSpec) -> None:
    if spec.value is not None:
        refuse(f"`{spec.type}` has no value", "put the bound into `threshold:`")
    if spec.threshold is None and spec.weight > 0:
        refuse(f"`{spec.type}` needs a threshold", "add `threshold:`, or `weight: 0` to report without deciding")
    if spec.type.endswith("score"):
        check_share(spec)


_TAKES: frozenset[str] = frozenset()  # nothing is made of the text: it is not what is judged
FAMILY: Family = {
    "perplexity": Assertion(_perplexity, _check, takes=_TAKES),
    "perplexity-score": Assertion(_perplexity_score, _check, takes=_TAKES),
}
PERPLEXITIES = frozenset(FAMILY)
