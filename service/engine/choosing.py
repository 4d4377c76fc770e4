"""Which waiting requests are computed together: those that begin alike and are of about the same length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from service.engine.batch import Job
from service.engine.cache import Ids, common_length

RECENT = 8  # prompts remembered, to see what single ones share with those before
LOOK_AHEAD = 256  # waiting requests considered
GROUP_TOKENS = 4096  # own tokens computed at once, padding included


def longest_common(earlier: Iterable[Ids], ids: Ids) -> int:
    """How many leading `ids` any of `earlier` begins with."""
    return max((common_length(other, ids) for other in earlier), default=0)


def choose_group(waiting: Sequence[Job], room: int, reach: int) -> list[Job]:
    """Up to `room` jobs around the one that waited longest.

    `reach` is how much of its prompt is known from before: company must share half of what it can share at best, so
    that two templates never shrink each other's prefix to a few tokens.
    """
    head = waiting[0]
    shared = [(common_length(head.ids, job.ids), job) for job in islice(waiting, 1, LOOK_AHEAD)]
    best = max([reach, *(length for length, _ in shared)])
    alike = [head, *(job for length, job in shared if 2 * length >= best)]
    alike.sort(key=lambda job: len(job.ids))
    place = next(index for index, job in enumerate(alike) if job is head)
    start = max(0, min(place - room // 2, len(alike) - room))
    return _within_tokens(head, alike[start : start + room], min(best, len(head.ids)))


def _within_tokens(head: Job, group: list[Job], shared: int) -> list[Job]:
    while len(group) > 1 and len(group) * (len(group[-1].ids) - shared) > GROUP_TOKENS:
        group = group[:-1] if group[-1] is not head else group[1:]
    return group
