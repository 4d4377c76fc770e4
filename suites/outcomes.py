"""What each case of a run came to, in a byte a case, and how that is stored."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, get_args

from suites.judge import Status
from suites.spilled import Spilled


class CaseOutcome(NamedTuple):
    """What a case came to over all its repeats: the unit of pass rates and of paired tests."""

    case_id: str
    status: Status
    must_pass: bool = False


STATUSES: tuple[Status, ...] = get_args(Status)
_LETTERS = "pfes"  # a letter for each of them
_NOT_ASKED = "-"  # in place of one
_MUST_PASS = 8
_CODES = f"{_NOT_ASKED}{_LETTERS}".ljust(_MUST_PASS, "?")
_TO_LETTERS = bytes.maketrans(bytes(range(2 * _MUST_PASS)), (2 * _CODES).encode())


class Outcomes:
    """What each case of a run came to, by its place in the suite: a byte a case, their ids in a file once they are many."""

    def __init__(self) -> None:
        # By place: 0 where none was asked, else 1 and the place in `STATUSES`, and 8 more where it must pass.
        self._statuses = bytearray()
        self._places = Spilled("I")  # in the order in which they came
        self._ids = Spilled("Q")  # the same, as numbers
        self._other_ids: dict[int, str] = {}  # by place: those that are none

    def add(self, outcome: CaseOutcome, place: int) -> None:
        """Take what the case at `place` of the suite came to; no two have the same place."""
        number = _number_of(outcome.case_id)
        if number is None:
            self._other_ids[place] = outcome.case_id
        self._places.append(place)
        self._ids.append(number or 0)
        if place >= len(self._statuses):
            self._statuses.extend(bytes(place + 1 - len(self._statuses)))
        self._statuses[place] = 1 + STATUSES.index(outcome.status) + (_MUST_PASS if outcome.must_pass else 0)

    def __len__(self) -> int:
        return len(self._statuses) - self._statuses.count(0)

    def __iter__(self) -> Iterator[CaseOutcome]:
        """In the order of the suite."""
        ids = array("Q", bytes(8 * len(self._statuses)))
        for place, number in zip(self._places, self._ids, strict=True):
            ids[place] = number
        for place, code in enumerate(self._statuses):
            if code:
                case_id = self._other_ids.get(place) or _id_of(ids[place])
                yield CaseOutcome(case_id, STATUSES[code % _MUST_PASS - 1], code >= _MUST_PASS)

    def count(self, status: Status) -> int:
        """How many cases have this status."""
        code = 1 + STATUSES.index(status)
        return self._statuses.count(code) + self._statuses.count(code + _MUST_PASS)

    @property
    def letters(self) -> str:
        """A letter for each place of the suite."""
        return self._statuses.translate(_TO_LETTERS).decode()


def _id_of(number: int) -> str:
    return f"{number:016x}"


def _number_of(case_id: str) -> int | None:
    """The number that an id is written from; None where it is another kind of text."""
    try:
        number = int(case_id, 16)
    except ValueError:
        return None
    return number if number >= 0 and _id_of(number) == case_id else None


def statuses_data(outcomes: Outcomes) -> dict[str, str]:
    """What is stored of a run: the status of each case of its suite version, which says what their ids are."""
    return {"statuses": outcomes.letters}


def with_ids(data: Mapping[str, str], case_ids: Iterable[str]) -> Mapping[str, str]:
    """What is stored of a run with the ids of its cases, which are `case_ids` where it has none itself."""
    if data.keys() != {"statuses"}:
        return data  # as runs were stored before
    ids = tuple(case_ids)
    return {"ids": " ".join(ids), "statuses": data["statuses"].ljust(len(ids), _NOT_ASKED)}


def statuses_of(data: Mapping[str, str]) -> Mapping[str, str]:
    """The status of each case by its id, from what `with_ids` gives. Raises ValueError where these do not fit together."""
    if data.keys() != {"ids", "statuses"}:
        return data  # as runs were stored before either
    pairs: Iterator[tuple[str, str]] = zip(data["ids"].split(), data["statuses"], strict=True)
    return {case_id: STATUSES[_LETTERS.index(letter)] for case_id, letter in pairs if letter != _NOT_ASKED}


def status_at(data: Mapping[str, str], place: int, case_id: str) -> str | None:
    """What one case came to over all its repeats, from what is stored of its run; None where it was not asked."""
    if data.keys() != {"statuses"}:
        return statuses_of(data).get(case_id)
    letter = data["statuses"][place : place + 1] or _NOT_ASKED
    return None if letter == _NOT_ASKED else STATUSES[_LETTERS.index(letter)]


def paired_statuses(first: Mapping[str, str], other: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Both statuses of each case that two runs of one suite version have, from what is stored of these."""
    if first.keys() == other.keys() == {"statuses"}:
        for letters in zip(first["statuses"], other["statuses"], strict=False):
            if _NOT_ASKED not in letters:
                yield STATUSES[_LETTERS.index(letters[0])], STATUSES[_LETTERS.index(letters[1])]
    else:
        before, now = statuses_of(first), statuses_of(other)
        yield from ((status, now[case_id]) for case_id, status in before.items() if case_id in now)
