"""A case and the head of a suite, as records; and how cases are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import PydanticCustomError

from prompts.errors import BadName
from prompts.names import check_name
from suites import assertions
from suites.assertions.spec import AssertionSpec, refuse
from suites.bounds import count
from suites.options import NO_OPTIONS, CaseOptions
from suites.packs import Packed, expand
from suites.policy import Fallback, GateSettings, JudgeSettings, Record, Share, Thresholds, Training
from suites.salvage import error_at, with_errors
from suites.schedule import check_schedule
from suites.specs import CheckedSpec
from suites.values import fill, names_in

ID_CHARACTERS = 16  # 64 bits of sha256: among a million cases two share an id with a chance of 3 in 100 million


_NAME_FIX = "write its file's path below prompts/, with dots for folders: support.ticket-triage"


def _known_name(name: str) -> str:
    try:
        return check_name(name)
    except BadName as error:
        bare, at, _ = name.partition("@")
        fix = f"write {bare}: which version is tested is said where the suite is run" if at else _NAME_FIX
        refuse(str(error), fix)


def _possible(pass_k: int, info: ValidationInfo) -> int:
    repeat = info.data.get("repeat", pass_k)
    if pass_k > repeat:
        refuse(f"{pass_k} of {repeat} repeats can never pass", f"raise `repeat`, or write pass_k: {repeat}")
    return pass_k


_REPEATS = count("a number of repeats, from 1 to 100", "3, say", least=1, most=100)
PromptName = Annotated[StrictStr, AfterValidator(_known_name)]


class Asserts(tuple[AssertionSpec, ...]):
    """The assertions of a case. Most cases of a data set share one of these: what is the same for all is found once."""

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON, as a case's id is made of it."""
        return canonical([spec.model_dump(exclude_defaults=True) for spec in self])

    @cached_property
    def data(self) -> list[dict[str, Any]]:
        """Plain data, as a file would hold it."""
        return [spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) for spec in self]

    @cached_property
    def all(self) -> tuple[AssertionSpec, ...]:
        """These and all within them."""
        return tuple(each for spec in self for each in assertions.walk(spec))

    @cached_property
    def metrics(self) -> frozenset[str]:
        """The metrics that some of them add to."""
        return frozenset(spec.metric for spec in self.all if spec.metric)

    @cached_property
    def types(self) -> frozenset[str]:
        """Their types, and those of all within them, without `not-`."""
        return frozenset(spec.type.removeprefix(assertions.NOT) for spec in self.all)

    @cached_property
    def names(self) -> frozenset[str]:
        """Variables that some of them refer to."""
        return frozenset(name for spec in self.all for name in names_in(spec.value))


class DefaultTest(Record):
    """What every case starts from: its own variables win, its own assertions come on top."""

    vars: dict[str, Any] = Field(default={})
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None
    options: CaseOptions = NO_OPTIONS


class Case(Record):
    """One held-out case. With `threshold` its weighted score decides, without it every assertion must hold.

    Cases that name the same `cluster` are drawn together by the bootstrap of a gate on scores. A case with `skip` is not
    asked: it counts as skipped for that reason, and neither a run nor a gate passes with one. `facts` are variables that
    assertions alone see: what is expected, where the prompt is not to be given it.
    """

    vars: dict[str, Any] = Field(default_factory=dict)
    placeholders: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None
    options: CaseOptions = NO_OPTIONS
    must_pass: StrictBool = False
    description: StrictStr = ""
    tags: tuple[StrictStr, ...] = ()
    cluster: StrictStr = ""
    skip: StrictStr = ""
    facts: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _metadata_as_tags(cls, data: Any, handler: ModelWrapValidatorHandler[Case]) -> Case:
        """promptfoo's `metadata` is there to filter by: `{category: math}` is the tag `category=math`."""
        if not isinstance(data, dict) or "metadata" not in data:
            return handler(data)
        given = {name: value for name, value in data.items() if name != "metadata"}
        own = given.get("tags", [])
        try:
            tags = list(tags_of(data["metadata"]))
        except PydanticCustomError as error:
            return with_errors(handler, given, [error_at(error, data["metadata"], "metadata")])
        return handler({**given, "tags": [*own, *tags]} if isinstance(own, list | tuple) else given)

    @cached_property
    def id(self) -> str:
        """The same in every suite and run that asks and expects the same: by it are cases paired."""
        placeholders = b',"placeholders":' + canonical(self.placeholders) if self.placeholders else b""
        transform = b',"transform":' + canonical(self.options.transform) if self.options.transform else b""
        facts = b',"facts":' + canonical(self.facts) if self.facts else b""
        asked = (
            b'{"assert":',
            self.shared.canonical,
            facts,
            placeholders,
            transform,
            b',"vars":',
            canonical(self.vars),
            b"}",
        )
        return hashlib.sha256(b"".join(asked)).hexdigest()[:ID_CHARACTERS]

    @property
    def shared(self) -> Asserts:
        """The assertions with what is known of them."""
        return self.asserts if isinstance(self.asserts, Asserts) else Asserts(self.asserts)

    @property
    def known(self) -> Mapping[str, Any]:
        """What assertions see: the variables and the facts."""
        return {**self.vars, **self.facts} if self.facts else self.vars

    def filled_asserts(self) -> Iterable[AssertionSpec]:
        """The assertions with the case's variables put in."""
        return [_filled(spec, self.known) for spec in self.asserts] if self.shared.names else self.asserts

    def as_data(self) -> dict[str, Any]:
        """Plain data, defaults left out, as a file would hold it."""
        data: dict[str, Any] = {"vars": self.vars, "assert": self.shared.data}
        data["placeholders"] = {name: list(messages) for name, messages in self.placeholders.items()}
        data |= {"threshold": self.threshold, "must_pass": self.must_pass, "description": self.description}
        data |= {"tags": list(self.tags), "cluster": self.cluster, "skip": self.skip}
        data["facts"] = self.facts
        data |= {"options": {"transform": self.options.transform} if self.options.transform else None}
        return {name: value for name, value in data.items() if value or (value == 0 and name == "threshold")}


def tags_of(metadata: Any) -> Iterator[str]:
    """`key=value` for each plain value of promptfoo's metadata and each item of a list; those of `tags` as they are."""
    if not isinstance(metadata, dict):
        refuse("`metadata` is keys and values", "write metadata: {category: math}")
    for key, value in metadata.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                refuse(f"`metadata` nests below {key!r}", "write plain values, or lists of them")
            text = item if isinstance(item, str) else json.dumps(item)
            yield text if key == "tags" else f"{key}={text}"


def _filled(spec: AssertionSpec, variables: Mapping[str, Any]) -> AssertionSpec:
    if spec.asserts:
        return spec.model_copy(update={"asserts": tuple(_filled(part, variables) for part in spec.asserts)})
    return spec.model_copy(update={"value": fill(spec.value, variables)}) if names_in(spec.value) else spec


class SuiteHead(Record):
    """A suite but for its cases."""

    prompt: PromptName
    description: StrictStr = ""
    thresholds: Thresholds = Thresholds()
    gate: GateSettings = GateSettings()
    repeat: Annotated[StrictInt, Field(ge=1, le=100), BeforeValidator(_REPEATS)] = 1
    pass_k: Annotated[StrictInt, Field(ge=1), AfterValidator(_possible), BeforeValidator(_REPEATS)] | None = None
    schedule: Annotated[StrictStr, AfterValidator(check_schedule)] | None = None
    judge: JudgeSettings = JudgeSettings()
    default_test: DefaultTest = Field(default=DefaultTest(), alias="defaultTest")
    tests: Any = None
    training: Training = Training()
    fallback: Fallback | None = None


def canonical(data: Any) -> bytes:
    """Canonical JSON."""
    return _ENCODER.encode(data).encode("ascii")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))  # `json.dumps` would make one for each case


def write_chunk(cases: Sequence[Case]) -> dict[str, Any]:
    """Cases as plain data, each set of assertions once."""
    known: dict[bytes, int] = {}
    asserts: list[list[dict[str, Any]]] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for case in cases:
        data = case.as_data()
        own = data.pop("assert", [])
        number = known.setdefault(case.shared.canonical, len(asserts))
        if number == len(asserts):
            asserts.append(own)
        rows.append((number, data))
    return {"asserts": asserts, "cases": rows}


def stored_rows(cases: Packed[Case]) -> Iterator[dict[str, Any]]:
    """What `as_data` would give of each case, straight from the chunks."""
    for chunk in cases.chunks:
        data = expand(chunk)
        for number, row in data["cases"]:
            asserts = data["asserts"][number]
            yield {**row, "assert": asserts} if asserts else row


def read_chunk(chunk: bytes) -> list[Case]:
    """The cases of a stored chunk. They were checked before they were stored."""
    data = expand(chunk)
    asserts = [Asserts(map(AssertionSpec.model_validate, specs)) for specs in data["asserts"]]
    return [_stored_case(row, asserts[number]) for number, row in data["cases"]]


def _stored_case(row: dict[str, Any], asserts: Asserts) -> Case:
    placeholders = row.get("placeholders")
    return case_of(
        vars=row.get("vars", {}),
        placeholders={name: tuple(messages) for name, messages in placeholders.items()} if placeholders else {},
        asserts=asserts,
        threshold=row.get("threshold"),
        options=CaseOptions.model_construct(**row["options"]) if "options" in row else NO_OPTIONS,
        must_pass=row.get("must_pass", False),
        description=row.get("description", ""),
        tags=tuple(row.get("tags", ())),
        cluster=row.get("cluster", ""),
        skip=row.get("skip", ""),
        facts=row.get("facts", {}),
    )


def case_of(**values: Any) -> Case:
    """A case of values that were checked: what `model_construct` makes of all fields, in a fifth of its time."""
    case = Case.__new__(Case)
    for name, value in (("__dict__", values), ("__pydantic_fields_set__", _CASE_FIELDS),
                        ("__pydantic_extra__", None), ("__pydantic_private__", None)):  # fmt: skip
        object.__setattr__(case, name, value)
    return case


_CASE_FIELDS = set(Case.model_fields)  # one set for all cases, where pydantic would keep one for each
