"""What the tests of conversions share: files by their names, and cases as they would be judged."""

from __future__ import annotations

import asyncio
import fnmatch
from pathlib import PurePosixPath

from prompts.formats.imported import Foreign
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.writing import prompt_text
from prompts.messages import Completion, CompletionRequest
from prompts.prompt import compile_prompt
from service.models.fake import FakeModel
from suites.case import Suite
from suites.foreign.converted import KnownModel, Wanted
from suites.results import Price
from suites.runner import run_suite

ECHO = {"echo": KnownModel("echo", has_price=True, is_echo=True)}


def foreign(text, files=None, path="promptfooconfig.yaml", prefix=""):
    """A file with others beside it."""
    files = files or {}

    def beside(name):
        return files.get(str(PurePosixPath(name)))

    def fitting(pattern):
        return sorted(name for name in files if fnmatch.fnmatch(name, pattern))

    return Foreign(text, path, "prompt", prefix, beside=beside, fitting=fitting)


def wanted(**more):
    return Wanted(**{"known": ECHO, **more})


def loaded(each):
    """The prompt and the suite of a conversion, read as their files would be."""
    return load_prompt(prompt_text({"model": "m", **each.prompt}), "a.prompt.yml", each.name), Suite.from_data(
        each.suite
    )


def outcomes(each, answer=None):
    """The status of each case, asked of `echo`, or of a model that always gives `answer`."""
    source, suite = loaded(each)
    compiled = compile_prompt(source.content)
    model = FakeModel.from_config({"echo": "all"}) if answer is None else FakeModel(answer)
    found = {}

    async def ask(case, _) -> Completion:
        return await model.complete(CompletionRequest(tuple(compiled.render(case.vars, (), case.placeholders))))

    def keep(result):
        found[result.index] = result.status

    asyncio.run(run_suite(suite.tests, ask, price=Price(0, 0), on_result=keep))
    return [found[index] for index in sorted(found)]


def why(converted):
    """What was left out, and why, without places."""
    return {note.what: note.why for note in converted.left_out}
