"""The examples of a fine-tune: where they come from, what is held out from them, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data import (
    CleanReport,
    DataReport,
    Dataset,
    Example,
    HeldOut,
    Source,
    Tokens,
    clean,
    make_dataset,
    make_report,
    shown_in,
)
from prompts.messages import Message
from service import datasets
from service.registry import stored_suite
from service.settings import Settings
from service.store import suites
from service.store.database import Database
from service.tokens import TokenCounter
from service.tuning.claim import Claim
from service.tuning.material import Material


@dataclass(frozen=True)
class Examples:
    """What a fine-tune is given, what of it may be trained on, and the report on both."""

    dataset: Dataset
    given: Sequence[Example]
    cleaned: CleanReport
    report: DataReport


def gather(claim: Claim, work: Material) -> Examples:
    """The job's examples, cleaned and reported on; the dataset is stored, so that its digest can be looked up.

    What the prompt itself shows as an example is left out: its answer stands in every message that is sent.
    """
    dataset, given = _given(claim, work)
    pinned = {**work.spec.held_out, work.spec.suite: work.spec.suite_version}
    heldout = list(heldout_cases(claim.database, pinned))
    cleaned = clean(given, heldout, shown_in(work.prompt), work.prompt.content.defaults)
    tokens = token_counts(claim.settings, work.spec.base)
    return Examples(dataset, given, cleaned, make_report(given, heldout, work.prompt, tokens, cleaned=cleaned))


def _given(claim: Claim, work: Material) -> tuple[Dataset, list[Example]]:
    if work.spec.dataset is not None:
        return datasets.load(claim.database, work.spec.dataset)
    rows: Sequence[Mapping[str, Any]] | None = work.spec.examples
    if rows is None:
        source = Source(kind="suite", name=work.spec.suite, version=str(work.spec.suite_version), examples=0)
        rows = [example.model_dump() for example in work.suite.training.examples]
    else:
        source = Source(kind="file", name="--examples", examples=0)
    given = [Example(row["vars"], row["expected"]) for row in rows]
    dataset, examples = make_dataset(work.spec.suite, [(source, given)])
    datasets.keep(claim.database, work.after.prompt, dataset, examples, claim.actor)
    return dataset, examples


def heldout_cases(database: Database, versions: Mapping[str, int]) -> Iterator[HeldOut]:
    """The cases of every suite: the version that its name means, a draft made after it, and that in `versions`."""
    with database.read() as session:
        names = sorted({row["name"] for row in suites.summaries(session)})
        records = [suites.newest(session, name) for name in names]
        records += [suites.newest_draft(session, name) for name in names]
        records += [suites.by_number(session, name, number) for name, number in versions.items()]
    seen = set()
    for record in records:
        if record is not None and record["digest"] not in seen:
            seen.add(record["digest"])
            for case in stored_suite(database, record).tests:
                yield HeldOut(case.vars, record["name"], case.id)


def token_counts(settings: Settings, alias: str) -> Tokens:
    """How the model behind `alias` counts tokens."""
    counter = TokenCounter(settings.model(alias))

    def of_messages(messages: Sequence[Message]) -> int:
        return counter.count([message.as_dict() for message in messages]).count

    return Tokens(
        of_messages=of_messages,
        of_answer=lambda answer: counter.count_answer(answer).count,
        exact=counter.count_answer("-").exact,
        context_tokens=counter.context,
    )
