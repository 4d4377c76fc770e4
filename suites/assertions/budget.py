"""Assertions on what an answer took: time and money."""

from __future__ import annotations

from suites.assertions.spec import Assertion, AssertionErrored, AssertionSpec, Family, Outcome, Output, refuse


def _latency(output: Output, spec: AssertionSpec) -> Outcome:
    return _within(output.latency_ms, spec, "ms")


def _cost(output: Output, spec: AssertionSpec) -> Outcome:
    if output.cost_usd is None:
        raise AssertionErrored("the cost is unknown: the model has no price in turnout.yaml")
    return _within(output.cost_usd, spec, "USD")


def _within(value: float, spec: AssertionSpec, unit: str) -> Outcome:
    bound = spec.threshold or 0.0
    passed = value <= bound
    verb = "as expected" if passed else "expected"
    return Outcome(passed, float(passed), f"{verb}: at most {bound:g} {unit}; took {value:.6g} {unit}")


def _check(spec: AssertionSpec) -> None:
    unit = "milliseconds" if spec.type.endswith("latency") else "USD"
    if spec.threshold is None:
        example = "2000" if unit == "milliseconds" else "0.002"
        refuse(f"`{spec.type}` needs a threshold in {unit}", f"add `threshold: {example}`")
    if spec.value is not None:
        refuse(f"`{spec.type}` has no value", "put the bound into `threshold:`")


FAMILY: Family = {"latency": Assertion(_latency, _check), "cost": Assertion(_cost, _check)}
