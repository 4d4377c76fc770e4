"""From rows to cases: on top of the default, with its options, expanded where they are a matrix, with every fault."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from prompts.errors import Fault
from prompts.yaml_source import Document, suggest
from suites import assertions
from suites.assertions.spec import AssertionSpec
from suites.case_record import Asserts, Case, DefaultTest, SuiteHead, case_of, read_chunk, write_chunk
from suites.matrix import MOST_COMBINATIONS, Matrix, combinations, described, size_of
from suites.options import NO_OPTIONS, CaseOptions, judged_by, rubric_fault
from suites.packs import Packed, Packer
from suites.policy import Thresholds
from suites.rows import Declared, Place, Places, Row
from suites.salvage import raw_of, read_record
from suites.values import fill, names_in, walk_texts

MAX_SHARED = 1024  # sets of assertions that are looked for among those before


class Collected(NamedTuple):
    """What was read of a head and its rows, and every fault of them.

    `prompt` is "" where its name is faulty. With faults it is what is left without them; no head where nothing sensible is.
    """

    head: SuiteHead | None
    prompt: str
    tests: Packed[Case] | None
    places: Places
    faults: list[Fault]


def collected(
    document: Document, rows: Iterable[Row], found: list[Fault], declared: Declared | None, *, is_complete: bool
) -> Collected:
    """The head of a suite and its cases, merged, expanded and packed; see `suites.case.assembled`."""
    head, is_whole = read_record(SuiteHead, document, (), found, instead={"prompt": _NO_NAME})
    if head is None or _is_default_lost(document):
        found += [fault for row in rows for fault in _faults_alone(row)]
        return Collected(None, "", None, Places(), found)
    prompt = "" if head.prompt == _NO_NAME != document.data.get("prompt") else head.prompt
    schemas = declared(prompt) if declared and prompt else None
    reader = _CaseReader(head.default_test, Matrix(schemas or {}), is_measured=_is_measured_at_all(document))
    if not is_whole:
        reader.spare_default(document)
    before = len(found)
    for row in rows:
        reader.read(row, found)
    is_complete = is_complete and reader.unread == 0 and len(found) - before == reader.told
    found += reader.repeated()
    if is_complete:
        found += _threshold_faults(head.thresholds, reader, document)
    return Collected(head, prompt, reader.packer.packed(read_chunk), reader.places, found)


_NO_NAME = "none"  # in place of a prompt's name that is faulty


def _faults_alone(row: Row) -> list[Fault]:
    """What is wrong with a case whatever the default gives it."""
    found: list[Fault] = []
    read_record(Case, *row, found)
    return found


def _is_default_lost(document: Document) -> bool:
    """Whether it is not known which variables `defaultTest` gives."""
    default = document.data.get("defaultTest", {})
    return not isinstance(default, dict) or not isinstance(default.get("vars", {}), dict)


def _is_measured_at_all(document: Document) -> bool:
    """Whether answers are worth having without any assertion: for their latency or their cost, well written or not."""
    thresholds = document.data.get("thresholds")
    return isinstance(thresholds, dict) and not thresholds.keys().isdisjoint(_MEASURED)


class _CaseReader:
    """Cases on top of the default, packed as they come: of each only its id and its place stay in memory.

    `told` counts the faults that were found, `unread` the rows of which too little is left to know what they have.
    """

    def __init__(self, default: DefaultTest, matrix: Matrix, *, is_measured: bool) -> None:
        self._default = default
        self._matrix = matrix
        self._spares_empty = is_measured
        self._shared: dict[str, Asserts] = {}
        self._plain: Asserts | None = None  # those of a case without assertions and options of its own
        self._ids = array("Q")
        self._broken: set[int] = set()
        self.told = self.unread = 0
        self.metrics: set[str] = set()
        self.tags: set[str] = set()
        self.places = Places()
        self.packer: Packer[Case] = Packer(write_chunk)

    def spare_default(self, document: Document) -> None:
        """Say nothing of cases without assertion where the default may have had one with a fault."""
        if "defaultTest" in document.data and not read_record(DefaultTest, document, ("defaultTest",), [])[1]:
            self._spares_empty = True
            self._note_names(document.data["defaultTest"])

    def read(self, row: Row, found: list[Fault]) -> None:
        """Take the cases of one row; what is wrong with them is added to `found`, each fault once."""
        document, keys = row
        place, faults = Place(document.path, document.line(*keys)), list[Fault]()
        case, is_whole = read_record(Case, document, keys, faults, needed=("vars", "placeholders"))
        if not is_whole:
            self._note_names(raw_of(document, keys))
        self.unread += case is None
        for merged in self._cases(case, place, faults) if case is not None else ():
            if not is_whole:
                self._broken.add(len(self._ids))
            self._take(merged, place)
            faults += _case_faults(merged, place, self._spares_empty or not is_whole)
        faults = list(dict.fromkeys(faults))
        self.told += len(faults)
        found += faults

    def _cases(self, case: Case, place: Place, faults: list[Fault]) -> Iterator[Case]:
        """The case as it will be run, or those that its matrix stands for."""
        options = case.options.over(self._default.options)
        merged = _merged(self._default, case, options, self._asserts(case, options, place, faults))
        axes = {} if options.disable_var_expansion else self._matrix.axes(merged.vars)
        if not axes:
            yield merged
        elif (total := size_of(axes)) > MOST_COMBINATIONS:
            message = (
                f"vars: the lists of {', '.join(axes)} stand for {total:,} cases; the most are {MOST_COMBINATIONS:,}"
            )
            faults.append(Fault(*place, message, "shorten the lists, or write several cases", rule="matrix"))
        else:
            for number, chosen in enumerate(combinations(axes), 1):
                description = described(merged.description, number, total, chosen)
                yield case_of(**{**vars(merged), "vars": {**merged.vars, **chosen}, "description": description})

    def _take(self, merged: Case, place: Place) -> None:
        self._ids.append(int(merged.id, 16))
        self.metrics |= merged.shared.metrics
        self.tags.update(merged.tags)
        self.places.add(*place)
        self.packer.add(merged)

    def _note_names(self, raw: Any) -> None:
        """Metrics and tags that a row with faults names: it may be the one that has what a threshold bounds."""
        for keys, text in walk_texts(raw):
            if keys and keys[-1] == "metric":
                self.metrics.add(text)
            elif keys[:1] in (("tags",), ("metadata",)):
                self.tags |= {text, f"{keys[1] if len(keys) > 1 else ''}={text}"}

    def _asserts(self, case: Case, options: CaseOptions, place: Place, faults: list[Fault]) -> Asserts:
        """Equal assertions become one object: most cases of a data set have few of them."""
        if len(self._shared) > MAX_SHARED:
            self._shared.clear()
        if options is NO_OPTIONS and not case.asserts and self._plain is not None:
            return self._plain
        asserts = case.asserts if options.disable_default_asserts else self._default.asserts + case.asserts
        judged = _NOT_NAMED if options is NO_OPTIONS else (repr(options.provider), repr(options.rubric_prompt))
        key = repr([judged, *(tuple(vars(spec).values()) for spec in asserts)])
        known = self._shared.get(key)
        if known is None:
            if judged != _NOT_NAMED:
                asserts = tuple(judged_by(spec, options) for spec in asserts)
                faults += [Fault(*place, *told) for told in map(rubric_fault, asserts) if told]
            known = self._shared[key] = Asserts(asserts)
        if options is NO_OPTIONS and not case.asserts:
            self._plain = known
        return known

    def repeated(self) -> Iterator[Fault]:
        """A fault for each case that asks and expects the same as one before it."""
        many = set(_twice(self._ids))
        if not many:
            return
        seen: dict[int, Place] = {}
        for index, number in enumerate(self._ids):
            if number in many and index not in self._broken:
                place = cast(Place, self.places[index])
                first = seen.setdefault(number, place)
                if first is not place:
                    yield _repeated_fault(first, place)


def _twice(numbers: Sequence[int]) -> Iterator[int]:
    """The numbers that are there more than once; a few thousand are sorted at a time, which are spread evenly."""
    parts = len(numbers) // _SORTED_AT_ONCE + 1
    for part in range(parts):
        some = sorted(numbers if parts == 1 else [number for number in numbers if number % parts == part])
        yield from (number for number, following in pairwise(some) if number == following)


_SORTED_AT_ONCE = 8192
_NOT_NAMED = ("None", "None")


def _repeated_fault(first: Place, place: Place) -> Fault:
    if first == place and place.line:
        return Fault(*place, "two cases of its matrix are the same", "remove the item that stands twice in a list")
    message = f"the same variables and assertions as the case at {first.path}:{first.line}"
    return Fault(*place, message, "remove one of the two")


def _merged(default: DefaultTest, case: Case, options: CaseOptions, asserts: Asserts) -> Case:
    return case_of(
        vars={**default.vars, **case.vars} if default.vars else case.vars,
        placeholders=case.placeholders,
        asserts=asserts,
        threshold=default.threshold if case.threshold is None else case.threshold,
        options=CaseOptions(transform=options.transform) if options.transform else NO_OPTIONS,
        must_pass=case.must_pass,
        description=case.description,
        tags=case.tags,
        cluster=case.cluster,
        skip=case.skip,
        facts=case.facts,
    )


_MEASURED = ("p95_latency_ms", "cost_per_1k_usd")


def is_measured(thresholds: Thresholds) -> bool:
    """Whether answers are worth having without any assertion: for their latency or their cost."""
    return any(getattr(thresholds, name) is not None for name in _MEASURED)


def _case_faults(case: Case, place: Place, any_answer: bool) -> Iterator[Fault]:
    """Faults of a merged case: nothing to judge (unless `any_answer` will do), unknown variables."""
    if not case.asserts and not any_answer and not case.skip:
        yield Fault(*place, "the case has no assertion: any answer would pass", "add `assert:`", rule="no-assertion")
    if case.shared.names:
        for each in case.shared.all:
            yield from _filled_faults(case, each, place)


def _filled_faults(case: Case, spec: AssertionSpec, place: Place) -> Iterator[Fault]:
    names = names_in(spec.value)
    for name in sorted(names - case.known.keys()):
        message = f"`{spec.type}` refers to {{{{ {name} }}}}, which the case does not have"
        known = ", ".join(sorted(case.known)) or "none"
        yield Fault(*place, message, f"known here: {known}", rule="undeclared-variable")
    if names and names <= case.known.keys():
        for error in assertions.problems(spec.model_copy(update={"value": fill(spec.value, case.known)})):
            yield Fault(*place, error.message(), str((error.context or {}).get("fix", "")))


def _threshold_faults(thresholds: Thresholds, read: _CaseReader, document: Document) -> Iterator[Fault]:
    """Thresholds of metrics and tags that no case has: nothing would ever be measured against them."""
    for kind, bounds, known in (("metric", thresholds.metrics, read.metrics), ("tag", thresholds.tags, read.tags)):
        for name in sorted(bounds.keys() - known):
            keys = ("thresholds", f"{kind}s", name)
            fix = suggest(name, known) if known else f"no case has a {kind}: remove this"
            yield document.fault(f"{'.'.join(keys)}: no case has this {kind}", *keys, fix=fix)
