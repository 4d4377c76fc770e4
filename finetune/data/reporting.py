"""Makes the report on a dataset: everything is looked at once, and nothing of what is found is repeated in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from finetune.data.advice import refusals, warnings
from finetune.data.balance import balance_of
from finetune.data.cleaning import CleanReport, Conflict, Drop, NearConflict, clean
from finetune.data.examples import Example, digest
from finetune.data.likeness import HeldOut
from finetune.data.malformed import malformed, schema_problem
from finetune.data.personal import flags_of, quotable
from finetune.data.report import (
    LISTED,
    Contradiction,
    DataReport,
    Length,
    Lengths,
    Listed,
    Repeat,
    Tokens,
    TooLong,
)
from finetune.data.shown import shown_in
from prompts.parameters import DEFAULT_ANSWER_TOKENS, answer_tokens
from prompts.prompt import CompiledPrompt

SHOWN_OF_A_CONFLICT = 20
SHOWN_CHARACTERS = 80

T = TypeVar("T")


def make_report(
    examples: Sequence[Example],
    heldout: Sequence[Mapping[str, Any] | HeldOut],
    prompt: CompiledPrompt,
    tokens: Tokens | None,
    *,
    cleaned: CleanReport | None = None,
) -> DataReport:
    """The report on `examples` for `prompt`; `cleaned` is what `clean` says of them beside the prompt's own examples,
    made here where it is not given.

    Lengths (left out without `tokens`) and answers are those of the examples kept; what is malformed, secret or
    personal is looked for among all that are given.
    """
    cleaned = cleaned or clean(examples, heldout, shown_in(prompt), prompt.content.defaults)
    faults = malformed(examples, prompt)
    broken = {fault.index for fault in faults if fault.kind == "variables"}
    flags = flags_of(examples)
    leaks = [drop for drop in cleaned.drops if _is_leak(drop)]
    report = DataReport(
        digest=digest(cleaned.kept),
        given=len(examples),
        kept=len(cleaned.kept),
        heldout=len(heldout),
        dropped=dict(Counter(drop.reason for drop in cleaned.drops)),
        contradicting=sum(len(one.indexes) for one in cleaned.conflicts),
        lengths=_lengths(examples, _kept(cleaned, len(examples)) - broken, prompt, tokens),
        answers=balance_of(cleaned.kept),
        duplicates=_listed([_repeat(drop) for drop in cleaned.drops if not _is_leak(drop)]),
        overlaps=_listed([_repeat(drop) for drop in leaks]),
        conflicts=_listed([_contradiction(one) for one in cleaned.conflicts]),
        near_conflicts=_listed([_contradiction(one) for one in cleaned.near_conflicts]),
        malformed=_listed(faults),
        flags=_listed(flags),
        flagged=dict(Counter(flag.group for flag in flags)),
        refusals=(),
        warnings=(),
    )
    found = {"refusals": refusals(report), "warnings": warnings(report, cleaned.kept, schema_problem(prompt))}
    return report.model_copy(update=found)


def _is_leak(drop: Drop) -> bool:
    return drop.reason.startswith("held-out")


def _kept(cleaned: CleanReport, given: int) -> set[int]:
    """Indexes of the examples kept, among those given."""
    contradicting = {index for conflict in cleaned.conflicts for index in conflict.indexes}
    return set(range(given)) - contradicting - {drop.index for drop in cleaned.drops}


def _listed(found: Sequence[T]) -> Listed[T]:
    return Listed(total=len(found), shown=tuple(found[:LISTED]))


def _repeat(drop: Drop) -> Repeat:
    return Repeat(index=drop.index, reason=drop.reason, repeats=drop.repeats)


def _contradiction(found: Conflict | NearConflict) -> Contradiction:
    outputs = tuple(quotable(output, SHOWN_CHARACTERS) for output in found.outputs[:SHOWN_OF_A_CONFLICT])
    return Contradiction(total=len(found.indexes), indexes=found.indexes[:SHOWN_OF_A_CONFLICT], outputs=outputs)


def _lengths(
    examples: Sequence[Example], indexes: set[int], prompt: CompiledPrompt, tokens: Tokens | None
) -> Lengths | None:
    if tokens is None or not indexes:
        return None
    order = sorted(indexes)
    asked = [tokens.of_messages(prompt.render(examples[at].vars)) for at in order]
    answered = [tokens.of_answer(examples[at].expected) for at in order]
    most = tokens.context_tokens
    both = zip(order, asked, answered, strict=True)
    too_long = [TooLong(index=at, tokens=one + two) for at, one, two in both if most is not None and one + two > most]
    limit = answer_limit(prompt)
    cut = [TooLong(index=at, tokens=two - 1) for at, two in zip(order, answered, strict=True) if two - 1 > limit]
    return Lengths(
        input=_length(asked),
        answer=_length(answered),
        exact=tokens.exact,
        context_tokens=most,
        too_long=_listed(too_long),
        max_tokens=limit,
        cut_answers=_listed(cut),
    )


def answer_limit(prompt: CompiledPrompt) -> int:
    """How many tokens an answer may have where the tuned model serves this prompt: as the embedded engine reads it."""
    return answer_tokens(prompt.content.parameters) or DEFAULT_ANSWER_TOKENS


def _length(counts: Sequence[int]) -> Length:
    rising = sorted(counts)

    def percentile(share_percent: int) -> int:
        return rising[max(0, -(-share_percent * len(rising) // 100) - 1)]

    return Length(min=rising[0], median=percentile(50), p95=percentile(95), max=rising[-1], total=sum(rising))
