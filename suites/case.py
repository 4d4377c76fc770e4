"""Suites and their cases, as authors write them and as they are run.

A `Suite` that came from `from_document`, `from_data` or `suites.files` is resolved: `defaultTest` has been merged into
its cases, no `file://` is left in it, and each of its assertions has been checked down to patterns and schemas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import SkipValidation

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document
from suites.assembly import collected
from suites.assertions.spec import AssertionSpec
from suites.case_record import Asserts, Case, DefaultTest, SuiteHead, canonical, read_chunk, stored_rows, write_chunk
from suites.options import CaseOptions
from suites.packs import Packed, Packer, expand
from suites.policy import Example, Fallback, GateSettings, JudgeSettings, Label, Thresholds, Training
from suites.rows import Declared, Place, Places, Row, inline_rows, reference_of
from suites.values import FILE, MAX_DEPTH, too_deep, walk_texts

__all__ = [
    "Case",
    "CaseOptions",
    "DefaultTest",
    "Example",
    "Fallback",
    "GateSettings",
    "JudgeSettings",
    "Label",
    "Place",
    "Suite",
    "SuiteHead",
    "Thresholds",
    "Training",
]


class Suite(SuiteHead):
    """A resolved suite. Its cases are read as they are needed: many of them take no more memory than a few."""

    tests: SkipValidation[Sequence[Case]]

    @classmethod
    def from_document(cls, document: Document) -> Suite:
        """Read a suite whose cases stand in the document itself.

        Raises BadFile with every fault; `file://` is one, since only the command line opens files.
        """
        return read_document(document).whole()

    @classmethod
    def from_data(cls, data: Mapping[str, Any], origin: str = "suite") -> Suite:
        """Read a suite that came as data; raises BadFile whose faults name `origin` and no line."""
        return read_data(data, origin).whole()

    def as_data(self) -> dict[str, Any]:
        """Plain data, defaults left out, from which `from_data` makes an equal suite."""
        return {**self.head_data(), "tests": [case.as_data() for case in self.tests]}

    def head_data(self) -> dict[str, Any]:
        """The same without the cases."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"tests"})

    @classmethod
    def from_packed(cls, head: Mapping[str, Any], chunks: Sequence[bytes], count: int) -> Suite:
        """A suite that was stored: `head_data`, and the chunks of its packed cases, which are not checked again."""
        return cls.of_head(SuiteHead.model_validate(dict(head)), Packed(chunks, count, read_chunk))

    @classmethod
    def of_head(cls, head: SuiteHead, tests: Sequence[Case]) -> Suite:
        """A head that was checked, with its cases, into which its `defaultTest` has been merged."""
        return cls.model_construct(**{**dict(head), "tests": tests, "default_test": DefaultTest()})

    @cached_property
    def packed(self) -> Packed[Case]:
        """The cases as they are stored."""
        if isinstance(self.tests, Packed):
            return self.tests
        packer = Packer(write_chunk)
        for case in self.tests:
            packer.add(case)
        return packer.packed(read_chunk)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of `as_data`: the same for two files that mean the same suite."""
        before, after = canonical({**self.head_data(), "tests": None}).split(b'"tests":null')
        found = hashlib.sha256(before + b'"tests":[')
        for index, data in enumerate(stored_rows(self.packed)):
            found.update((b"," if index else b"") + canonical(data))
        found.update(b"]" + after)
        return "sha256:" + found.hexdigest()

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The types of all assertions of all cases."""
        kinds: set[str] = set()
        for chunk in self.packed.chunks:
            sets = [Asserts(map(AssertionSpec.model_validate, specs)) for specs in expand(chunk)["asserts"]]
            kinds |= {spec.type for asserts in sets for spec in asserts.all}
        return frozenset(kinds)

    @property
    def passes_needed(self) -> int:
        """How many of a case's `repeat` outcomes must be passes."""
        return self.pass_k or self.repeat


class Assembled(NamedTuple):
    """What was made of a head and its rows, and every fault of them.

    With faults `suite` is what is left without them, to be held against its prompt and never to be run; its prompt is ""
    where that is faulty. None where nothing sensible is left.
    """

    suite: Suite | None
    places: Places
    faults: list[Fault]

    def whole(self) -> Suite:
        """The suite, which has no fault; raises BadFile with all faults where there are some."""
        if self.faults or self.suite is None:
            raise BadFile(self.faults)
        return self.suite


def read_data(data: Mapping[str, Any], origin: str) -> Assembled:
    """The suite that came as data, its cases in a list; its faults name `origin` and no line."""
    if too_deep(data):
        fault = Fault(origin, 0, "lists and mappings nest too deeply", f"keep it below {MAX_DEPTH} levels")
        return Assembled(None, Places(), [fault])
    return read_document(Document(origin, dict(data), {(): 0}))


def read_document(document: Document) -> Assembled:
    """The suite whose cases stand in the document itself, and every fault of it; `file://` is one."""
    rows, faults = inline_rows(document)
    found = [*faults, *_file_faults(document)]
    inline = [row for row in rows if not reference_of(row)]
    return assembled(document, inline, found, is_complete=not found)


def assembled(
    document: Document,
    rows: Iterable[Row],
    found: list[Fault],
    declared: Declared | None = None,
    *,
    is_complete: bool = True,
) -> Assembled:
    """The suite of a head and its rows, and every fault of both, `found` among them.

    Rows are taken one by one and not kept; `found` may grow while they are. `declared` gives the variables of the suite's
    prompt, by which a list is data or a matrix; without it every list is data. `is_complete` says that no row is missing
    from `rows`: only then is it known what no case has.
    """
    head, prompt, tests, places, faults = collected(document, rows, found, declared, is_complete=is_complete)
    if head is None or tests is None:
        return Assembled(None, places, faults)
    return Assembled(Suite.of_head(head.model_copy(update={"prompt": prompt}), tests), places, faults)


def _file_faults(document: Document) -> Iterator[Fault]:
    if not isinstance(document.data, dict):
        return
    for top in ("tests", "defaultTest"):
        for keys, text in walk_texts(document.data.get(top), (top,)):
            if text.startswith(FILE):
                message = f"{'.'.join(map(str, keys))}: {FILE} is resolved by the command line alone"
                yield document.fault(message, *keys, fix="give the content inline, or by the digest of an upload")
