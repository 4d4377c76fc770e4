"""Datasets: which examples exactly, by the digest of their content, with where each of them came from."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

from finetune.data import Dataset, Example, Source, digest, make_dataset
from prompts.errors import BadInput
from service.errors import NotFound, StorageFailed
from service.identity import Principal
from service.ids import now
from service.store import datasets
from service.store.database import Database
from service.store.session import Session

ALGORITHM = "sha256:"
SHORTEST_PREFIX = 6  # hexadecimal digits
MOST_EXAMPLES = 100_000
_PREFIX = re.compile(rf"(?:{ALGORITHM})?([0-9a-f]{{{SHORTEST_PREFIX},64}})")


def build(name: str, parts: Sequence[tuple[Source, Sequence[Example]]]) -> tuple[Dataset, list[Example]]:
    """The dataset that is all `parts` together. Raises BadInput for one without examples, or with too many."""
    dataset, examples = make_dataset(name, parts)
    if not examples:
        raise BadInput("there are no examples: name a suite with `training`, reviewed completions or a file")
    if len(examples) > MOST_EXAMPLES:
        raise BadInput(f"{len(examples):,} examples: a dataset has at most {MOST_EXAMPLES:,}; take fewer of them")
    return dataset, examples


def keep(
    database: Database,
    prompt: str,
    dataset: Dataset,
    examples: Sequence[Example],
    actor: Principal,
    message: str | None = None,
) -> bool:
    """Store a dataset, made for `prompt`; False where its content is there already, which then stays as it was."""
    lines = (json.dumps({"vars": dict(each.vars), "expected": each.expected}) + "\n" for each in examples)
    record = {
        "digest": dataset.digest,
        "prompt": prompt,
        "examples": dataset.examples,
        "lineage": dataset.model_dump(mode="json", include={"name", "sources"}),
        "content": zlib.compress("".join(lines).encode()),
        "message": message,
        "created_by": actor.id,
        "created_at": now(),
    }
    with database.write() as session:
        is_new = datasets.get(session, dataset.digest) is None
        datasets.add(session, record)
    return is_new


def load(database: Database, name: str) -> tuple[Dataset, list[Example]]:
    """A dataset by its digest or the beginning of it, with its examples. Raises NotFound or BadInput."""
    with database.read() as session:
        about = show(session, name)
        examples = examples_of(session, about["digest"])
    lineage = about["lineage"]
    return Dataset.model_validate({**lineage, "digest": about["digest"], "examples": about["examples"]}), examples


def show(session: Session, name: str) -> dict[str, Any]:
    """What is known of a dataset, by its digest or the beginning of it. Raises NotFound or BadInput."""
    about = datasets.get(session, resolve(session, name))
    assert about is not None  # noqa: S101 - for the type checker: datasets are never deleted
    return about


def resolve(session: Session, prefix: str) -> str:
    """The whole digest of the dataset that is meant: `sha256:` may be left out, and so may the end.

    Raises BadInput where it is no digest or means several datasets, NotFound where there is none.
    """
    found = _PREFIX.fullmatch(prefix)
    if found is None:
        fix = f"write its digest, or at least the first {SHORTEST_PREFIX} digits of it"
        raise BadInput(f"{prefix[:80]!r} is no dataset: {fix}", param="dataset")
    known = datasets.matching(session, ALGORITHM + found[1], limit=3)
    if not known:
        raise NotFound("dataset", prefix, "`turnout dataset list` shows those that exist")
    if len(known) > 1:
        raise BadInput(f"{prefix!r} is ambiguous: {', '.join(known)}; write more of it", param="dataset")
    return known[0]


def examples_of(session: Session, name: str) -> list[Example]:
    """A stored dataset's examples, in their order.

    Raises NotFound for a digest that is not there, StorageFailed where the content is no longer what it was.
    """
    whole = datasets.content(session, name)
    if whole is None:
        raise NotFound("dataset", name, "`turnout dataset list` shows those that exist")
    rows = [json.loads(line) for line in zlib.decompress(whole).splitlines()]
    examples = [Example(row["vars"], row["expected"]) for row in rows]
    if digest(examples) != name:
        raise StorageFailed(f"dataset {name}: its content has another digest; restore the database from a copy")
    return examples
