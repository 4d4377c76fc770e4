"""What each case of a run came to, in a few bytes a case, and how that is stored."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from suites.judge import Status


class CaseOutcome(NamedTuple):
    """What a case came to over all its repeats: the unit of pass rates and of paired tests."""

    case_id: str
    status: Status
    must_pass: bool = False


STATUSES: tuple[Status, ...] = get_args(Status)
_LETTERS = "pfes"  # a letter for each of them


class Outcomes(Sequence[CaseOutcome]):
    """What each case of a run came to, in 9 bytes a case; one whose id is not what cases are known by takes more."""

    def __init__(self) -> None:
        self._ids = array("Q")  # as numbers
        self._other_ids: dict[int, str] = {}  # by place: those that are none
        self._statuses = bytearray()  # the place in `STATUSES`, and 8 more where the case must pass

    def add(self, outcome: CaseOutcome) -> None:
        number = _number_of(outcome.case_id)
        if number is None:
            self._other_ids[len(self._ids)] = outcome.case_id
        self._ids.append(number or 0)
        self._statuses.append(STATUSES.index(outcome.status) + (8 if outcome.must_pass else 0))

    def __len__(self) -> int:
        return len(self._statuses)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        case_id = self._other_ids.get(place) or _id_of(self._ids[place])
        return CaseOutcome(case_id, self._status(place), self._statuses[place] >= 8)

    def _status(self, place: int) -> Status:
        return STATUSES[self._statuses[place] & 7]

    def count(self, status: Any) -> int:
        """How many cases have this status."""
        place = STATUSES.index(status)
        return self._statuses.count(place) + self._statuses.count(place + 8)

    def in_order(self, positions: Sequence[int]) -> Outcomes:
        """The same, ordered by `positions`: one number for each, no two alike."""
        places = array("q", [-1]) * (max(positions, default=-1) + 1)
        for place, position in enumerate(positions):
            places[position] = place
        ordered = Outcomes()
        for place in places:
            if place >= 0:
                ordered._take(self, place)
        return ordered

    def _take(self, other: Outcomes, place: int) -> None:
        if place in other._other_ids:
            self._other_ids[len(self._ids)] = other._other_ids[place]
        self._ids.append(other._ids[place])
        self._statuses.append(other._statuses[place])


def _id_of(number: int) -> str:
    return f"{number:016x}"


def _number_of(case_id: str) -> int | None:
    """The number that an id is written from; None where it is another kind of text."""
    try:
        number = int(case_id, 16)
    except ValueError:
        return None
    return number if number >= 0 and _id_of(number) == case_id else None


def statuses_data(outcomes: Iterable[CaseOutcome]) -> dict[str, str]:
    """Ids and statuses as two texts: what is stored of a run."""
    ids, letters = bytearray(), bytearray()  # lists of as many texts would take ten times as much
    for outcome in outcomes:
        ids += f" {outcome.case_id}".encode() if letters else outcome.case_id.encode()
        letters += _LETTERS[STATUSES.index(outcome.status)].encode()
    return {"ids": ids.decode(), "statuses": letters.decode()}


def statuses_of(data: Mapping[str, str]) -> Mapping[str, str]:
    """The status of each case by its id, from what is stored of a run."""
    if data.keys() != {"ids", "statuses"}:
        return data  # as runs were stored before
    pairs: Iterator[tuple[str, str]] = zip(data["ids"].split(), data["statuses"], strict=True)
    return {case_id: STATUSES[_LETTERS.index(letter)] for case_id, letter in pairs}
