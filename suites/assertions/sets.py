"""`assert-set`: several assertions that count as one, all of them needed, or a weighted score of at least `threshold`."""

from __future__ import annotations

from suites.assertions.spec import AssertionErrored, AssertionSpec, Family, Outcome, Scene, SceneAssertion, refuse

ASSERT_SET = "assert-set"


async def _evaluate(_scene: Scene, _spec: AssertionSpec) -> Outcome:
    raise AssertionErrored("a set is judged by its members: see `suites.judge`")


def _check(spec: AssertionSpec) -> None:
    if not spec.asserts:
        refuse("`assert-set` has no members", "add `assert:` with a list of assertions")
    if spec.value is not None:
        refuse("`assert-set` has no value", "remove `value:`")


FAMILY: Family = {ASSERT_SET: SceneAssertion(_evaluate, _check, takes=frozenset({"asserts"}), can_be_negated=False)}
