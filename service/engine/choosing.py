"""Which waiting requests are computed together: those that begin alike and are of about the same length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from service.engine.cache import Ids, common_length
from service.engine.jobs import Job

RECENT = 8  # prompts remembered, to see what single ones share with those before
LOOK_AHEAD = 256  # waiting requests considered
GROUP_TOKENS = 4096  # own tokens computed at once, padding included


def longest_common(earlier: Iterable[Ids], ids: Ids) -> int:
    """How many leading `ids` any of `earlier` begins with."""
    return max((common_length(other, ids) for other in earlier), default=0)


def choose_group(waiting: Sequence[Job], room: int, reach: int, most_tokens: int = GROUP_TOKENS) -> list[Job]:
    """Up to `room` jobs around the first of those that wait, with at most `most_tokens` of their own together.

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
    return _within_tokens(head, alike[start : start + room], min(best, len(head.ids)), most_tokens)


def own_tokens(group: Sequence[Job], held: int) -> int:
    """Tokens that are computed for `group`: what all begin with once, without the first `held`, which are there already."""
    first = group[0].ids
    shared = min((common_length(first, job.ids) for job in group[1:]), default=min(held, len(first) - 1))
    return sum(len(job.ids) - shared for job in group) + max(0, shared - held)


def _within_tokens(head: Job, group: list[Job], shared: int, most_tokens: int) -> list[Job]:
    while len(group) > 1 and len(group) * (len(group[-1].ids) - shared) > most_tokens:
        group = group[:-1] if group[-1] is not head else group[1:]
    return group
