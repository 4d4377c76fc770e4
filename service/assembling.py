"""Datasets put together from suites, reviewed completions and files, and what is known of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydantic

from finetune.data import DataReport, Example, Source, make_report, read_examples
from prompts.errors import BadInput
from prompts.names import Selector, parse_selector
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt
from prompts.strict_json import HALF
from service import datasets
from service.errors import NotFound
from service.identity import Principal
from service.registry import Registry
from service.reviewing import Reviewed, Reviews
from service.said import Said
from service.settings import Settings
from service.store import datasets as stored
from service.store import prompts
from service.store.database import Database
from service.tuning.examples import heldout_cases, token_counts

INLINE = "inline"  # the file that examples sent as such are told to be of


class GivenFile(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A JSONL file by its text: lines of `vars` and `expected`, or OpenAI's chat messages."""

    name: str = pydantic.Field(min_length=1, max_length=255)
    text: str


class GivenExample(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One example: the prompt's variables and the answer."""

    vars: dict[str, Any]
    expected: str


class DatasetRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What a dataset is made of: any of a suite's training examples, reviewed completions, files and inline examples.

    `prompt` and `suite` are names, or names with a version (`name@7`). `ignore_system` reads chat messages whatever
    their system message says.
    """

    prompt: str
    suite: str | None = None
    reviewed: bool | Reviewed = False
    files: tuple[GivenFile, ...] = ()
    examples: tuple[GivenExample, ...] = ()
    ignore_system: bool = False
    message: Said | None = pydantic.Field(None, max_length=2_000)


class Assembly:
    """Makes datasets and reports on them."""

    def __init__(self, database: Database, settings: Settings, registry: Registry, reviews: Reviews) -> None:
        self._database = database
        self._settings = settings
        self._registry = registry
        self._reviews = reviews

    def create(self, request: DatasetRequest, actor: Principal) -> dict[str, Any]:
        """Store the dataset that a request means; `created` is False where it was there.

        Raises NotFound for a prompt or suite that is not there, BadFile with every fault of the files, and BadInput
        for a suite of another prompt or a dataset without examples.
        """
        selector = parse_selector(request.prompt)
        prompt = self._prompt(selector)
        parts = [*self._of_suite(selector.name, request.suite), *self._of_reviews(selector.name, request.reviewed)]
        parts += [*_of_files(request, prompt), *_inline(request.examples)]
        dataset, examples = datasets.build(selector.name, parts)
        is_new = datasets.keep(self._database, selector.name, dataset, examples, actor, request.message)
        with self._database.read() as session:
            return {**_shown(datasets.show(session, dataset.digest)), "created": is_new}

    def show(self, name: str) -> dict[str, Any]:
        """A dataset with its lineage and the report on it, for its prompt as it is now. Raises NotFound or BadInput."""
        dataset, examples = datasets.load(self._database, name)
        with self._database.read() as session:
            about = _shown(datasets.show(session, dataset.digest))
        return {**about, "report": self.report(about["prompt"], examples).model_dump(mode="json")}

    def listing(self, prompt: str | None, limit: int) -> list[dict[str, Any]]:
        """Datasets with their lineage, newest first. Raises NotFound for a prompt that there is not."""
        with self._database.read() as session:
            found = [_shown(about) for about in stored.listing(session, prompt, limit)]
            if not found:
                prompts.refuse_unknown(session, prompt)
            return found

    def examples(self, name: str) -> list[Example]:
        """A dataset's examples in their order. Raises NotFound or BadInput."""
        return datasets.load(self._database, name)[1]

    def report(self, prompt: str, examples: Sequence[Example]) -> DataReport:
        """The report on examples for a prompt; tokens are those of the prompt's own model."""
        compiled = self._prompt(Selector(prompt))
        alias = compiled.content.model
        tokens = token_counts(self._settings, alias) if alias in self._settings.models else None
        return make_report(examples, list(heldout_cases(self._database, {})), compiled, tokens)

    def _prompt(self, selector: Selector) -> CompiledPrompt:
        """The version that is meant; of a bare name `production`, without it the newest, be it a draft."""
        try:
            record = self._registry.version(selector)
        except NotFound:
            if selector.version is not None or selector.label is not None:
                raise
            with self._database.read() as session:
                newest = prompts.highest_numbers(session, [selector.name])
            if not newest:
                raise
            record = self._registry.version(Selector(selector.name, newest[selector.name]))
        return compile_prompt(PromptContent.model_validate(record.content), record.digest)

    def _of_suite(self, prompt: str, name: str | None) -> Iterator[tuple[Source, list[Example]]]:
        if name is None:
            return
        record = self._registry.suite_head(name)
        if record["prompt"] != prompt:
            raise BadInput(f"suite {name!r} tests {record['prompt']!r}, not {prompt!r}", param="suite")
        given = self._registry.read_suite(record).training.examples
        if not given:
            raise BadInput(f"suite {name!r} has no training examples: add `training`, or leave it out", param="suite")
        source = Source(kind="suite", name=record["name"], version=str(record["number"]), examples=len(given))
        yield source, [Example(each.vars, each.expected) for each in given]

    def _of_reviews(self, prompt: str, wanted: bool | Reviewed) -> Iterator[tuple[Source, Sequence[Example]]]:
        if wanted is False:
            return
        source, examples = self._reviews.examples(prompt, Reviewed() if wanted is True else wanted)
        if not examples:
            fix = f"accept some (`turnout review list {prompt}`), or leave `reviewed` out"
            raise BadInput(f"no accepted completions of {prompt!r} are meant: {fix}", param="reviewed")
        yield source, examples


def as_lines(examples: Iterable[Example]) -> Iterator[str]:
    """Examples as a suite's training file has them; half a character, which UTF-8 has not, as JSON's escape."""
    for each in examples:
        line = json.dumps({"vars": dict(each.vars), "expected": each.expected}, ensure_ascii=False)
        yield HALF.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n"


def _of_files(request: DatasetRequest, prompt: CompiledPrompt) -> Iterator[tuple[Source, list[Example]]]:
    for file in request.files:
        found = read_examples(file.text.split("\n"), file.name, prompt, ignore_system=request.ignore_system)
        digest = "sha256:" + hashlib.sha256(file.text.encode()).hexdigest()
        yield Source(kind="file", name=file.name, version=digest, examples=len(found)), found


def _inline(given: Sequence[GivenExample]) -> Iterator[tuple[Source, list[Example]]]:
    if given:
        yield (
            Source(kind="file", name=INLINE, examples=len(given)),
            [Example(each.vars, each.expected) for each in given],
        )


def _shown(about: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset as the API shows it."""
    return {
        "digest": about["digest"],
        "prompt": about["prompt"],
        "count": about["examples"],
        "sources": about["lineage"]["sources"],
        "message": about["message"],
        "created_by": about["created_by"],
        "created_at": about["created_at"],
    }
