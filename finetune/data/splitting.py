"""Dev carved from the examples, near duplicates on one side."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from finetune.data.examples import Example, digest
from finetune.data.likeness import Index, input_key, read_all
from prompts.errors import BadInput

DEV_AT_LEAST = 8
DEV_AT_MOST = 100


def split(
    examples: Sequence[Example], dev_share: float = 0.15, *, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Carve a dev set off: `(train, dev)`, each in the order given.

    Dev has `dev_share` of the examples, at least 8 and at most 100, but never more than half; each answer has its
    share of it. Near duplicates stay on one side, so dev can miss its size by part of a cluster. The choice depends
    on the seed and on what the examples say, not on their order.

    Raises BadInput for a share outside 0 … 1 or fewer than two examples.
    """
    if not 0 < dev_share < 1:
        raise BadInput(f"dev_share is {dev_share}: it must lie between 0 and 1", param="dev_share")
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} examples cannot be split in two: give at least 2", param="examples")
    wanted = min(max(DEV_AT_LEAST, round(dev_share * len(examples))), DEV_AT_MOST, len(examples) // 2)
    clusters = sorted(clusters_of(examples), key=lambda cluster: _lot(examples, cluster, seed))
    dev = _choose(_strata(examples, clusters), wanted, len(examples))
    train = tuple(example for at, example in enumerate(examples) if at not in dev)
    return train, tuple(example for at, example in enumerate(examples) if at in dev)


def clusters_of(examples: Sequence[Example]) -> list[list[int]]:
    """Indexes of examples that resemble each other, directly or through others."""
    inputs = read_all([input_key(example.vars) for example in examples])
    index = Index(inputs)
    head = list(range(len(examples)))

    def root(at: int) -> int:
        while head[at] != at:
            head[at] = at = head[head[at]]
        return at

    for at in range(len(examples)):
        for other in index.matches(at):
            head[root(at)] = root(other)
        index.add(at)
    members: dict[int, list[int]] = defaultdict(list)
    for at in range(len(examples)):
        members[root(at)].append(at)
    return list(members.values())


def _lot(examples: Sequence[Example], cluster: Sequence[int], seed: int) -> str:
    return min(hashlib.sha256(f"{seed}:{digest([examples[at]])}".encode()).hexdigest() for at in cluster)


def _strata(examples: Sequence[Example], clusters: Sequence[list[int]]) -> list[list[list[int]]]:
    """Clusters by their answer; answers that occur once share a stratum."""
    times = Counter(example.expected.strip() for example in examples)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in clusters:
        answer = examples[min(cluster)].expected.strip()
        strata[f"={answer}" if times[answer] > 1 else ""].append(cluster)
    return [strata[answer] for answer in sorted(strata)]


def _choose(strata: Sequence[list[list[int]]], wanted: int, total: int) -> set[int]:
    quotas = _quotas([sum(map(len, clusters)) for clusters in strata], wanted, total)
    dev: set[int] = set()
    for clusters, quota in zip(strata, quotas, strict=True):
        room = quota
        for cluster in clusters:
            if len(cluster) <= room:
                dev.update(cluster)
                room -= len(cluster)
    for cluster in (cluster for clusters in strata for cluster in clusters):  # what clusters too large left open
        if len(cluster) <= wanted - len(dev) and cluster[0] not in dev:
            dev.update(cluster)
    return dev


def _quotas(sizes: Sequence[int], wanted: int, total: int) -> list[int]:
    """`wanted` in proportion to `sizes`, by largest remainder; ties go to the earlier."""
    quotas = [wanted * size // total for size in sizes]
    remainders = sorted(range(len(sizes)), key=lambda at: (-(wanted * sizes[at] % total), at))
    for at in remainders[: wanted - sum(quotas)]:
        quotas[at] += 1
    return quotas
