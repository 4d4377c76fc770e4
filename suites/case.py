"""Suites and their cases, as authors write them and as they are run.

A `Suite` that came from `from_document`, `from_data` or `suites.files` is resolved: `defaultTest` has been merged into
its cases, no `file://` is left in it, and each of its assertions has been checked down to patterns and schemas.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, cast

from pydantic import (
    AfterValidator,
    Field,
    SkipValidation,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from prompts.errors import BadFile, BadName, Fault
from prompts.names import check_name
from prompts.yaml_source import Document, ModelT, parse_model, suggest
from suites import assertions
from suites.assertions.folders import ScriptFolders
from suites.assertions.python import PYTHON, check_folders
from suites.assertions.spec import AssertionSpec, refuse, shorten
from suites.packs import Packed, Packer, expand
from suites.policy import Example, Fallback, GateSettings, JudgeSettings, Label, Record, Share, Thresholds, Training
from suites.schedule import check_schedule
from suites.values import FILE, MAX_DEPTH, Keys, fill, names_in, no_slot_in, too_deep, walk_texts

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
    "Thresholds",
    "Training",
    "check_prices",
    "check_scripts",
    "undecided",
]

MAX_SHARED = 1024  # sets of assertions that are looked for among those before
_LITERAL = frozenset({"javascript", PYTHON, "regex", "is-json", "contains-json"})  # whose values are code or patterns
ID_CHARACTERS = 16  # 64 bits of sha256: among a million cases two share an id with a chance of 3 in 100 million


def _known_name(name: str) -> str:
    try:
        return check_name(name)
    except BadName as error:
        raise ValueError(str(error)) from error


def _checked(spec: AssertionSpec) -> AssertionSpec:
    """Check a spec while it is read; one that refers to variables only once these are known."""
    for each in assertions.walk(spec):
        assertions.check_type(each)
        _check_slots(each)
        if not names_in(each.value):
            assertions.check(each)
    return spec


def _check_slots(spec: AssertionSpec) -> None:
    """Refuse what looks like a template and would be taken letter by letter; code, patterns and schemas may hold it."""
    piece = "" if spec.type.removeprefix(assertions.NOT) in _LITERAL else no_slot_in(spec.value)
    if piece:
        fix = "write `{{ name }}` of a variable alone, and give the case a variable that holds what is meant"
        refuse(f"`{spec.type}`: {shorten(piece, 60)} is not filled in: values are no templates", fix)


def _checked_transform(code: str) -> str:
    assertions.check_transform(AssertionSpec(type="equals", value="", transform=code))
    return code


def _possible(pass_k: int, info: ValidationInfo) -> int:
    repeat = info.data.get("repeat", pass_k)
    if pass_k > repeat:
        refuse(f"{pass_k} of {repeat} repeats can never pass", f"raise `repeat`, or write pass_k: {repeat}")
    return pass_k


PromptName = Annotated[StrictStr, AfterValidator(_known_name)]
CheckedSpec = Annotated[AssertionSpec, AfterValidator(_checked)]


class Asserts(tuple[AssertionSpec, ...]):
    """The assertions of a case. Most cases of a data set share one of these: what is the same for all is found once."""

    @cached_property
    def canonical(self) -> bytes:
        """Canonical JSON, as a case's id is made of it."""
        return _canonical([spec.model_dump(exclude_defaults=True) for spec in self])

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


class CaseOptions(Record):
    """How a case's answer is taken: `transform` is JavaScript that makes of it what all its assertions judge."""

    transform: Annotated[StrictStr, Field(min_length=1), AfterValidator(_checked_transform)] | None = None


NO_OPTIONS = CaseOptions()


class DefaultTest(Record):
    """What every case starts from: its own variables win, its own assertions come on top."""

    vars: dict[str, Any] = Field(default={})
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None
    options: CaseOptions = NO_OPTIONS


class Case(Record):
    """One held-out case. With `threshold` its weighted score decides, without it every assertion must hold.

    Cases that name the same `cluster` are drawn together by the bootstrap of a gate on scores.
    """

    vars: dict[str, Any] = Field(default={})
    placeholders: dict[str, tuple[dict[str, Any], ...]] = Field(default={})
    asserts: tuple[CheckedSpec, ...] = Field(default=(), alias="assert")
    threshold: Share | None = None
    options: CaseOptions = NO_OPTIONS
    must_pass: StrictBool = False
    description: StrictStr = ""
    tags: tuple[StrictStr, ...] = ()
    cluster: StrictStr = ""

    @model_validator(mode="before")
    @classmethod
    def _metadata_as_tags(cls, data: Any) -> Any:
        """promptfoo's `metadata` is there to filter by: `{category: math}` is the tag `category=math`."""
        if not isinstance(data, dict) or "metadata" not in data:
            return data
        given = {name: value for name, value in data.items() if name != "metadata"}
        own = given.get("tags", [])
        return {**given, "tags": [*own, *tags_of(data["metadata"])]} if isinstance(own, list | tuple) else given

    @cached_property
    def id(self) -> str:
        """The same in every suite and run that asks and expects the same: by it are cases paired."""
        placeholders = b',"placeholders":' + _canonical(self.placeholders) if self.placeholders else b""
        transform = b',"transform":' + _canonical(self.options.transform) if self.options.transform else b""
        asked = (
            b'{"assert":',
            self.shared.canonical,
            placeholders,
            transform,
            b',"vars":',
            _canonical(self.vars),
            b"}",
        )
        return hashlib.sha256(b"".join(asked)).hexdigest()[:ID_CHARACTERS]

    @property
    def shared(self) -> Asserts:
        """The assertions with what is known of them."""
        return self.asserts if isinstance(self.asserts, Asserts) else Asserts(self.asserts)

    def filled_asserts(self) -> Iterable[AssertionSpec]:
        """The assertions with the case's variables put in."""
        return [_filled(spec, self.vars) for spec in self.asserts] if self.shared.names else self.asserts

    def as_data(self) -> dict[str, Any]:
        """Plain data, defaults left out, as a file would hold it."""
        data: dict[str, Any] = {"vars": self.vars, "assert": self.shared.data}
        data["placeholders"] = {name: list(messages) for name, messages in self.placeholders.items()}
        data |= {"threshold": self.threshold, "must_pass": self.must_pass, "description": self.description}
        data |= {"tags": list(self.tags), "cluster": self.cluster}
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
    repeat: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    pass_k: Annotated[StrictInt, Field(ge=1), AfterValidator(_possible)] | None = None
    schedule: Annotated[StrictStr, AfterValidator(check_schedule)] | None = None
    judge: JudgeSettings = JudgeSettings()
    default_test: DefaultTest = Field(default=DefaultTest(), alias="defaultTest")
    tests: Any = None
    training: Training = Training()
    fallback: Fallback | None = None


class Suite(SuiteHead):
    """A resolved suite. Its cases are read as they are needed: many of them take no more memory than a few."""

    tests: SkipValidation[Sequence[Case]]

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
        return {**self.head_data(), "tests": [case.as_data() for case in self.tests]}

    def head_data(self) -> dict[str, Any]:
        """The same without the cases."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"tests"})

    @classmethod
    def from_packed(cls, head: Mapping[str, Any], chunks: Sequence[bytes], count: int) -> Suite:
        """A suite that was stored: `head_data`, and the chunks of its packed cases, which are not checked again."""
        fields = dict(SuiteHead.model_validate(dict(head)))
        return cls(**{**fields, "tests": Packed(chunks, count, read_chunk)})

    @cached_property
    def packed(self) -> Packed[Case]:
        """The cases as they are stored."""
        if isinstance(self.tests, Packed):
            return self.tests
        packer = Packer(_write_chunk)
        for case in self.tests:
            packer.add(case)
        return packer.packed(read_chunk)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of `as_data`: the same for two files that mean the same suite."""
        before, after = _canonical({**self.head_data(), "tests": None}).split(b'"tests":null')
        found = hashlib.sha256(before + b'"tests":[')
        for index, data in enumerate(_stored_rows(self.packed)):
            found.update((b"," if index else b"") + _canonical(data))
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


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode("ascii")


def _write_chunk(cases: Sequence[Case]) -> dict[str, Any]:
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


def _stored_rows(cases: Packed[Case]) -> Iterator[dict[str, Any]]:
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
    return _case_of(
        vars=row.get("vars", {}),
        placeholders={name: tuple(messages) for name, messages in placeholders.items()} if placeholders else {},
        asserts=asserts,
        threshold=row.get("threshold"),
        options=CaseOptions.model_construct(**row["options"]) if "options" in row else NO_OPTIONS,
        must_pass=row.get("must_pass", False),
        description=row.get("description", ""),
        tags=tuple(row.get("tags", ())),
        cluster=row.get("cluster", ""),
    )


def _case_of(**values: Any) -> Case:
    """A case of values that were checked: what `model_construct` makes of all fields, in a fifth of its time."""
    case = Case.__new__(Case)
    for name, value in (("__dict__", values), ("__pydantic_fields_set__", _CASE_FIELDS),
                        ("__pydantic_extra__", None), ("__pydantic_private__", None)):  # fmt: skip
        object.__setattr__(case, name, value)
    return case


class Place(NamedTuple):
    """Where a case was read; line 0 where it came as data."""

    path: str
    line: int


class Places(Sequence[Place]):
    """Where each of many cases was read, in eight bytes a case."""

    def __init__(self) -> None:
        self._paths: dict[str, int] = {}
        self._path_of = array("I")
        self._lines = array("I")

    def add(self, path: str, line: int) -> None:
        self._path_of.append(self._paths.setdefault(path, len(self._paths)))
        self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Place(list(self._paths)[self._path_of[index]], self._lines[index])


Row = tuple[Document, Keys]  # a case not yet read: its document, and the keys that lead to it


def inline_rows(document: Document) -> tuple[list[Row], list[Fault]]:
    """The rows below `tests`, whatever stands in them, and what is wrong with `tests` itself."""
    tests = document.data.get("tests") if isinstance(document.data, dict) else None
    if isinstance(tests, str) and tests.startswith(FILE):
        return [(document, ("tests",))], []
    if not isinstance(tests, list) or not tests:
        fix = "add `tests:` with a list of cases, or of file:// references"
        if isinstance(tests, str):
            return [], [_text_fault(document, tests, "tests")]
        return [], [document.fault("a suite needs tests", "tests", fix=fix, rule="missing-key")]
    faults = [_text_fault(document, row, "tests", index) for index, row in enumerate(tests) if _is_other_text(row)]
    return [(document, ("tests", index)) for index, row in enumerate(tests) if not _is_other_text(row)], faults


def _is_other_text(row: Any) -> bool:
    return isinstance(row, str) and not row.startswith(FILE)


def _text_fault(document: Document, text: str, *keys: str | int) -> Fault:
    """Why a text that is no `file://` reference holds no cases; promptfoo would fetch or run some."""
    if "://" in text:
        fix = "save the table as CSV or JSON lines in the project, and refer to it by file://"
        return document.fault(f"{text[:80]!r}: cases are not fetched from the network", *keys, fix=fix)
    return document.fault(
        f"{text[:80]!r} holds no cases", *keys, fix=f"write {FILE}{text[:80]}, or a case with `vars:`"
    )


def reference_of(row: Row) -> str:
    """The `file://` reference that stands where a case could; "" where there is none."""
    document, keys = row
    value = document.data
    for key in keys:
        value = value[key]
    return value if isinstance(value, str) and value.startswith(FILE) else ""


def assemble(document: Document, rows: Iterable[Row], found: list[Fault]) -> tuple[Suite, Places]:
    """Make the suite of a head and its rows, and say where each case stands.

    Rows are taken one by one and not kept; `found` may grow while they are. Raises BadFile with `found` and all faults
    that are found here, never with the first of them alone.
    """
    head = _read(SuiteHead, document, (), found)
    default = head.default_test if head else _default_alone(document)
    any_answer = head is None or _is_measured(head.thresholds)
    reader = _CaseReader(default or DefaultTest())
    before = len(found)
    for source, keys in rows:
        case = _read(Case, source, keys, found)
        if case is not None:
            place = Place(source.path, source.line(*keys))
            merged = reader.take(case, place)
            found += _case_faults(merged, place, any_answer) if default is not None else ()
    found += reader.repeated() if default is not None else ()
    if head is not None and len(found) == before:  # a case with a fault may be the one that has it
        found += _threshold_faults(head.thresholds, reader, document)
    if found or head is None:
        raise BadFile(found)
    fields = {**dict(head), "tests": reader.packer.packed(read_chunk), "default_test": DefaultTest()}
    return Suite(**fields), reader.places


class _CaseReader:
    """Cases on top of the default, packed as they come: of each only its id and its place stay in memory."""

    def __init__(self, default: DefaultTest) -> None:
        self._default = default
        self._shared: dict[str, Asserts] = {}
        self._ids = array("Q")
        self.metrics: set[str] = set()
        self.tags: set[str] = set()
        self.places = Places()
        self.packer: Packer[Case] = Packer(_write_chunk)

    def take(self, case: Case, place: Place) -> Case:
        """The case as it will be run."""
        merged = _merged(self._default, case, self._asserts(case))
        self._ids.append(int(merged.id, 16))
        self.metrics |= merged.shared.metrics
        self.tags.update(merged.tags)
        self.places.add(*place)
        self.packer.add(merged)
        return merged

    def _asserts(self, case: Case) -> Asserts:
        """Equal assertions become one object: most cases of a data set have few of them."""
        if len(self._shared) > MAX_SHARED:
            self._shared.clear()
        asserts = self._default.asserts + case.asserts
        return self._shared.setdefault(repr([tuple(vars(spec).values()) for spec in asserts]), Asserts(asserts))

    def repeated(self) -> Iterator[Fault]:
        """A fault for each case that asks and expects the same as one before it."""
        many = {number for number, following in pairwise(sorted(self._ids)) if number == following}
        if not many:
            return
        seen: dict[int, Place] = {}
        for index, number in enumerate(self._ids):
            if number in many:
                place = cast(Place, self.places[index])
                first = seen.setdefault(number, place)
                if first is not place:
                    message = f"the same variables and assertions as the case at {first.path}:{first.line}"
                    yield Fault(*place, message, "remove one of the two")


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


def _merged(default: DefaultTest, case: Case, asserts: Asserts) -> Case:
    return _case_of(
        vars={**default.vars, **case.vars} if default.vars else case.vars,
        placeholders=case.placeholders,
        asserts=asserts,
        threshold=default.threshold if case.threshold is None else case.threshold,
        options=case.options if case.options.transform else default.options,
        must_pass=case.must_pass,
        description=case.description,
        tags=case.tags,
        cluster=case.cluster,
    )


_CASE_FIELDS = set(Case.model_fields)  # one set for all cases, where pydantic would keep one for each


def _is_measured(thresholds: Thresholds) -> bool:
    """Whether answers are worth having without any assertion: for their latency or their cost."""
    return thresholds.p95_latency_ms is not None or thresholds.cost_per_1k_usd is not None


def _case_faults(case: Case, place: Place, any_answer: bool) -> Iterator[Fault]:
    """Faults of a merged case: nothing to judge (unless `any_answer` will do), unknown variables."""
    if not case.asserts and not any_answer:
        yield Fault(*place, "the case has no assertion: any answer would pass", "add `assert:`", rule="no-assertion")
    if case.shared.names:
        for each in case.shared.all:
            yield from _filled_faults(case, each, place)


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


def _threshold_faults(thresholds: Thresholds, read: _CaseReader, document: Document) -> Iterator[Fault]:
    """Thresholds of metrics and tags that no case has: nothing would ever be measured against them."""
    for kind, bounds, known in (("metric", thresholds.metrics, read.metrics), ("tag", thresholds.tags, read.tags)):
        for name in sorted(bounds.keys() - known):
            keys = ("thresholds", f"{kind}s", name)
            fix = suggest(name, known) if known else f"no case has a {kind}: remove this"
            yield document.fault(f"{'.'.join(keys)}: no case has this {kind}", *keys, fix=fix)


def _file_faults(document: Document) -> Iterator[Fault]:
    if not isinstance(document.data, dict):
        return
    for top in ("tests", "defaultTest"):
        for keys, text in walk_texts(document.data.get(top), (top,)):
            if text.startswith(FILE):
                message = f"{'.'.join(map(str, keys))}: {FILE} is resolved by the command line alone"
                yield document.fault(message, *keys, fix="give the content inline, or by the digest of an upload")


def check_scripts(
    suite: Suite, folders: ScriptFolders, *, document: Document | None = None, places: Sequence[Place] = ()
) -> None:
    """Refuse Python files that are not there, or lie outside of the folders whose files may be run.

    Raises BadFile with every such file and the first case that has it, of which `document` and `places` know the lines.
    """
    where = document or Document("suite", {}, {(): 0})
    faults: dict[str, Fault] = {}
    for index, case in enumerate(suite.tests):
        if PYTHON not in case.shared.types:
            continue
        for spec in (each for whole in case.filled_asserts() for each in assertions.walk(whole)):
            try:
                check_folders(spec, folders)
            except PydanticCustomError as error:
                place = places[index] if places else Place(where.path, where.line("tests", index))
                fix = str((error.context or {}).get("fix", ""))
                faults.setdefault(str(spec.value), Fault(*place, error.message(), fix))
    if faults:
        raise BadFile(list(faults.values()))


def undecided(suite: Suite, places: Sequence[Place]) -> Iterator[Fault]:
    """A warning for each case that passes whatever is answered, though it has assertions.

    Not where answers are measured besides: by their latency or cost, or by a metric that the case adds to.
    """
    if _is_measured(suite.thresholds):
        return
    for case, place in zip(suite.tests, places, strict=True):
        shared = case.shared
        if not shared or shared.metrics & suite.thresholds.metrics.keys():
            continue
        if case.threshold == 0 or not any(map(_decides, shared)):
            why = "its `threshold` is 0" if case.threshold == 0 else "its assertions decide nothing"
            fix = "raise the threshold, or give an assertion a `weight` above 0"
            yield Fault(*place, f"{why}: any answer passes", fix, level="warning", rule="no-assertion")


def _decides(spec: AssertionSpec) -> bool:
    """Whether some answer fails by this assertion."""
    if spec.type != assertions.ASSERT_SET or spec.weight == 0:
        return spec.weight > 0
    return spec.threshold != 0 and any(map(_decides, spec.asserts))


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
    seen: set[bytes] = set()  # a fault names the first case that has it
    has_costly = any(kind.endswith("cost") for kind in suite.kinds)
    for index, case in enumerate(suite.tests if has_costly else ()):
        costly = next((each for each in case.shared.all if each.type.endswith("cost")), None)
        if costly is not None and case.shared.canonical not in seen:
            seen.add(case.shared.canonical)
            place = places[index] if places else Place(where.path, where.line("tests", index))
            message = f"`{costly.type}`: the price of the model is unknown"
            faults.append(Fault(*place, message, fix, rule="unknown-price"))
    if faults:
        raise BadFile(faults)
