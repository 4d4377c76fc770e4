"""Suites and their cases, as authors write them and as they are run.

A `Suite` that came from `from_document`, `from_data` or `suites.files` is resolved: `defaultTest` has been merged into
its cases, no `file://` is left in it, and each of its assertions has been checked down to patterns and schemas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, ValidationInfo
from pydantic_core import PydanticCustomError

from prompts.errors import BadFile, BadName, Fault
from prompts.names import check_name
from prompts.yaml_source import Document, ModelT, parse_model
from suites import assertions
from suites.assertions.spec import AssertionSpec, refuse
from suites.policy import Example, Fallback, GateSettings, Record, Share, Thresholds, Training
from suites.schedule import check_schedule
from suites.values import FILE, MAX_DEPTH, Keys, fill, names_in, too_deep, walk_texts

__all__ = [
    "Case",
    "DefaultTest",
    "Example",
    "Fallback",
    "GateSettings",
    "Place",
    "Suite",
    "Thresholds",
    "Training",
    "check_prices",
]

ID_CHARACTERS = 16  # 64 bits of sha256: among a million cases two share an id with a chance of 3 in 100 million


def _known_name(name: str) -> str:
    try:
        return check_name(name)
    except BadName as error:
        raise ValueError(str(error)) from error


def _checked(spec: AssertionSpec) -> AssertionSpec:
    """Check a spec while it is read; one that refers to variables only once these are known."""
    assertions.check_type(spec)
    if not names_in(spec.value):
        assertions.check(spec)
    return spec


def _possible(pass_k: int, info: ValidationInfo) -> int:
    repeat = info.data.get("repeat", pass_k)
    if pass_k > repeat:
        refuse(f"{pass_k} of {repeat} repeats can never pass", f"raise `repeat`, or write pass_k: {repeat}")
    return pass_k


PromptName = Annotated[StrictStr, AfterValidator(_known_name)]
CheckedSpec = Annotated[AssertionSpec, AfterValidator(_checked)]


class DefaultTest(Record):
    """What every case starts from: its own variables win, its own assertions come on top."""

    vars: dict[str, Any] = Field(default={})
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None


class Case(Record):
    """One held-out case. With `threshold` its weighted score decides, without it every assertion must hold."""

    vars: dict[str, Any] = Field(default={})
    placeholders: dict[str, tuple[dict[str, Any], ...]] = Field(default={})
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None
    must_pass: StrictBool = False
    description: StrictStr = ""
    tags: tuple[StrictStr, ...] = ()

    @property
    def id(self) -> str:
        """The same in every suite and run that asks and expects the same: by it are cases paired."""
        asserts = [spec.model_dump(exclude_defaults=True) for spec in self.asserts]
        asked = {"vars": self.vars, "assert": asserts}
        asked |= {"placeholders": self.placeholders} if self.placeholders else {}
        return hashlib.sha256(_canonical(asked)).hexdigest()[:ID_CHARACTERS]

    def filled_asserts(self) -> Iterator[AssertionSpec]:
        """The assertions with the case's variables put in."""
        for spec in self.asserts:
            names = names_in(spec.value)
            yield spec.model_copy(update={"value": fill(spec.value, self.vars)}) if names else spec


class SuiteHead(Record):
    """A suite but for its cases."""

    prompt: PromptName
    description: StrictStr = ""
    thresholds: Thresholds = Thresholds()
    gate: GateSettings = GateSettings()
    repeat: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    pass_k: Annotated[StrictInt, Field(ge=1), AfterValidator(_possible)] | None = None
    schedule: Annotated[StrictStr, AfterValidator(check_schedule)] | None = None
    default_test: DefaultTest = Field(default=DefaultTest(), alias="defaultTest")
    tests: Any = None
    training: Training = Training()
    fallback: Fallback | None = None


class Suite(SuiteHead):
    """A resolved suite."""

    tests: tuple[Case, ...]

    @classmethod
    def from_document(cls, document: Document) -> Suite:
        """Read a suite whose cases stand in the document itself.

        Raises BadFile with every fault; `file://` is one, since only the command line opens files.
        """
        rows, faults = inline_rows(document)
        inline = [row for row in rows if not reference_of(row)]
        suite, _ = assemble(document, inline, [*faults, *_file_faults(document)])
        return suite

    @classmethod
    def from_data(cls, data: Mapping[str, Any], origin: str = "suite") -> Suite:
        """Read a suite that came as data; raises BadFile whose faults name `origin` and no line."""
        if too_deep(data):
            raise BadFile([Fault(origin, 0, "lists and mappings nest too deeply", f"keep it below {MAX_DEPTH} levels")])
        return cls.from_document(Document(origin, dict(data), {(): 0}))

    def as_data(self) -> dict[str, Any]:
        """Plain data, defaults left out, from which `from_data` makes an equal suite."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of `as_data`: the same for two files that mean the same suite."""
        return "sha256:" + hashlib.sha256(_canonical(self.as_data())).hexdigest()

    @property
    def passes_needed(self) -> int:
        """How many of a case's `repeat` outcomes must be passes."""
        return self.pass_k or self.repeat


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


class Place(NamedTuple):
    """Where a case was read; line 0 where it came as data."""

    path: str
    line: int


Row = tuple[Document, Keys]  # a case not yet read: its document, and the keys that lead to it


def inline_rows(document: Document) -> tuple[list[Row], list[Fault]]:
    """The rows below `tests`, whatever stands in them, and what is wrong with `tests` itself."""
    tests = document.data.get("tests") if isinstance(document.data, dict) else None
    if isinstance(tests, str) and tests.startswith(FILE):
        return [(document, ("tests",))], []
    if not isinstance(tests, list) or not tests:
        fix = "add `tests:` with a list of cases, or of file:// references"
        return [], [document.fault("a suite needs tests", "tests", fix=fix, rule="missing-key")]
    return [(document, ("tests", index)) for index in range(len(tests))], []


def reference_of(row: Row) -> str:
    """The `file://` reference that stands where a case could; "" where there is none."""
    document, keys = row
    value = document.data
    for key in keys:
        value = value[key]
    return value if isinstance(value, str) and value.startswith(FILE) else ""


def assemble(document: Document, rows: Iterable[Row], found: list[Fault]) -> tuple[Suite, tuple[Place, ...]]:
    """Make the suite of a head and its rows, and say where each case stands.

    Rows are taken one by one and not kept; `found` may grow while they are. Raises BadFile with `found` and all faults
    that are found here, never with the first of them alone.
    """
    head = _read(SuiteHead, document, (), found)
    default = head.default_test if head else _default_alone(document)
    shared: dict[str, tuple[AssertionSpec, ...]] = {}
    cases, places = [], []
    for source, keys in rows:
        case = _read(Case, source, keys, found)
        if case is not None:
            cases.append(_merged(default or DefaultTest(), case, shared))
            places.append(Place(source.path, source.line(*keys)))
    if default is not None:
        found += _case_faults(cases, places, any_answer=head is None or _is_measured(head.thresholds))
    if found or head is None:
        raise BadFile(found)
    fields = {**dict(head), "tests": tuple(cases), "default_test": DefaultTest()}
    return Suite(**fields), tuple(places)


def _read(model_class: type[ModelT], document: Document, keys: Keys, found: list[Fault]) -> ModelT | None:
    """One record of a document, or None and its faults added to `found`."""
    try:
        return parse_model(model_class, document, keys)
    except BadFile as error:
        found.extend(error.faults)
        return None


def _default_alone(document: Document) -> DefaultTest | None:
    """`defaultTest` of a document whose head has faults elsewhere; None where it cannot be read either."""
    if not isinstance(document.data, dict) or "defaultTest" not in document.data:
        return DefaultTest()
    return _read(DefaultTest, document, ("defaultTest",), [])


def _merged(default: DefaultTest, case: Case, shared: dict[str, tuple[AssertionSpec, ...]]) -> Case:
    """The case on top of the default. Equal assertions become one object: most cases of a data set have few of them."""
    asserts = default.asserts + case.asserts
    asserts = shared.setdefault(repr([tuple(vars(spec).values()) for spec in asserts]), asserts)
    return Case.model_construct(
        _CASE_FIELDS,
        vars={**default.vars, **case.vars} if default.vars else case.vars,
        placeholders=case.placeholders,
        asserts=asserts,
        threshold=default.threshold if case.threshold is None else case.threshold,
        must_pass=case.must_pass,
        description=case.description,
        tags=case.tags,
    )


_CASE_FIELDS = set(Case.model_fields)  # one set for all cases, where pydantic would keep one for each


def _is_measured(thresholds: Thresholds) -> bool:
    """Whether answers are worth having without any assertion: for their latency or their cost."""
    return thresholds.p95_latency_ms is not None or thresholds.cost_per_1k_usd is not None


def _case_faults(cases: Sequence[Case], places: Sequence[Place], any_answer: bool) -> Iterator[Fault]:
    """Faults of merged cases: the same twice, nothing to judge (unless `any_answer` will do), unknown variables."""
    seen: dict[str, Place] = {}
    for case, place in zip(cases, places, strict=True):
        first = seen.setdefault(case.id, place)
        if first is not place:
            message = f"the same variables and assertions as the case at {first.path}:{first.line}"
            yield Fault(*place, message, "remove one of the two", rule="duplicate-case")
        if not case.asserts and not any_answer:
            yield Fault(
                *place, "the case has no assertion: any answer would pass", "add `assert:`", rule="no-assertion"
            )
        for spec in case.asserts:
            yield from _filled_faults(case, spec, place)


def _filled_faults(case: Case, spec: AssertionSpec, place: Place) -> Iterator[Fault]:
    names = names_in(spec.value)
    for name in sorted(names - case.vars.keys()):
        message = f"`{spec.type}` refers to {{{{ {name} }}}}, which the case does not have"
        known = ", ".join(sorted(case.vars)) or "none"
        yield Fault(*place, message, f"known here: {known}", rule="undeclared-variable")
    if names and names <= case.vars.keys():
        try:
            assertions.check(spec.model_copy(update={"value": fill(spec.value, case.vars)}))
        except PydanticCustomError as error:
            yield Fault(*place, error.message(), str((error.context or {}).get("fix", "")))


def _file_faults(document: Document) -> Iterator[Fault]:
    if not isinstance(document.data, dict):
        return
    for top in ("tests", "defaultTest"):
        for keys, text in walk_texts(document.data.get(top), (top,)):
            if text.startswith(FILE):
                message = f"{'.'.join(map(str, keys))}: {FILE} is resolved by the command line alone"
                yield document.fault(message, *keys, fix="give the content inline, or by the digest of an upload")


def check_prices(
    suite: Suite, has_price: bool, *, document: Document | None = None, places: Sequence[Place] = ()
) -> None:
    """Refuse what cannot be measured on a model whose price is unknown: cost thresholds and cost assertions.

    Raises BadFile with every such place, of which `document` and `places` know the lines.
    """
    if has_price:
        return
    fix = "give the model a `price` in turnout.yaml, or remove this"
    where = document or Document("suite", {}, {(): 0})
    faults = []
    if suite.thresholds.cost_per_1k_usd is not None:
        message = "thresholds.cost_per_1k_usd: the price of the model is unknown"
        faults.append(where.fault(message, "thresholds", "cost_per_1k_usd", fix=fix, rule="unknown-price"))
    seen: set[int] = set()  # equal assertions are one object: a fault names the first case that has it
    for index, case in enumerate(suite.tests):
        for spec in case.asserts:
            if spec.type.endswith("cost") and id(spec) not in seen:
                seen.add(id(spec))
                place = places[index] if places else Place(where.path, where.line("tests", index))
                message = f"`{spec.type}`: the price of the model is unknown"
                faults.append(Fault(*place, message, fix, rule="unknown-price"))
    if faults:
        raise BadFile(faults)
