"""One assertion on one answer, as a suite would have it judged."""

import asyncio

import pytest
from pydantic_core import PydanticCustomError

from suites.assertions import AssertionErrored, AssertionSpec, Output, Scene, assess, check


def judged(kind, answer, value=None, *, scene=None, **spec):
    """The outcome of a spec that `check` accepts; `answer` is a text or an Output."""
    found = AssertionSpec(type=kind, value=value, **spec)
    check(found)
    output = answer if isinstance(answer, Output) else Output(answer)
    return asyncio.run(assess(Scene(output, **(scene or {})), found))


def holds(*args, **kwargs):
    return judged(*args, **kwargs).passed


def errored(*args, **kwargs):
    with pytest.raises(AssertionErrored) as raised:
        judged(*args, **kwargs)
    return str(raised.value)


def refused(**spec):
    """The message and the fix of a spec that `check` refuses."""
    with pytest.raises(PydanticCustomError) as raised:
        check(AssertionSpec(**spec))
    return raised.value.message(), raised.value.context["fix"]
