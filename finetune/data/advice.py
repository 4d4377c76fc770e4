"""What a data report says to do: what stops a launch, and what to look at before it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from finetune.data.balance import SHOWN_CHARACTERS, Balance
from finetune.data.examples import Example
from finetune.data.likeness import folded
from finetune.data.personal import quotable
from finetune.data.report import DataReport, Lengths
from prompts.wording import many

FEWEST_EXAMPLES = 10  # OpenAI's least, too
ENOUGH_EXAMPLES = 50  # OpenAI sees gains from 50 to 100 on
MOST_CONTRADICTING = 0.2  # of the examples given
LOPSIDED = 0.8  # share of one label
RARE_LABEL = 3  # examples of a label
NAMED = 5  # of a kind, in one sentence


def refusals(report: DataReport) -> tuple[str, ...]:
    """Why a fine-tune must not start; each says what to do."""
    return tuple(_refusals(report))


def warnings(report: DataReport, kept: Sequence[Example], schema_problem: str) -> tuple[str, ...]:
    """What to look at before a fine-tune starts."""
    found = [*_about_examples(report, kept), *_about_labels(report.answers, kept), *_about_people(report)]
    if schema_problem:
        found.append(f"answers were checked to be JSON, not against jsonSchema, which cannot be used: {schema_problem}")
    return tuple(found)


def _refusals(report: DataReport) -> Iterator[str]:
    if report.kept < FEWEST_EXAMPLES:
        yield (
            f"{report.kept} of {report.given} examples are usable, which is too few: "
            f"add examples until at least {FEWEST_EXAMPLES} remain"
        )
    if report.malformed.total:
        first = report.malformed.shown[0]
        yield (
            f"{many(report.malformed.total, 'fault')} in examples that the prompt itself would refuse, "
            f"the first in example {first.index}: {first.message}: mend these examples, or take them out"
        )
    if report.contradicting > MOST_CONTRADICTING * report.given:
        yield (
            f"{report.contradicting} of {report.given} examples give different answers to the same input, more than a "
            "fifth: decide which answer is right, or give the prompt the variable that tells these inputs apart"
        )
    lengths = report.lengths
    if lengths and lengths.exact and lengths.too_long.total:
        yield _too_long(report)
    if lengths and lengths.exact and lengths.cut_answers.total:
        yield _cut_answers(lengths)


def _cut_answers(lengths: Lengths) -> str:
    total = lengths.cut_answers.total
    first = lengths.cut_answers.shown[0]
    named = ", ".join(str(one.index) for one in lengths.cut_answers.shown[:NAMED])
    return (
        f"{many(total, 'answer')} with more tokens than the {lengths.max_tokens:,} after which serving stops, the first "
        f"with {first.tokens:,}, in {'example' if total == 1 else 'examples'} {_etc(named, total)}: raise max_tokens in the "
        "prompt, or shorten them"
    )


def _too_long(report: DataReport) -> str:
    lengths = report.lengths
    if lengths is None:
        raise ValueError("a report without lengths has no example that is too long")
    named = ", ".join(str(one.index) for one in lengths.too_long.shown[:NAMED])
    return (
        f"{many(lengths.too_long.total, 'example')} with more {'' if lengths.exact else '(estimated) '}tokens than the "
        f"{lengths.context_tokens:,} that the model takes, and none is cut: {_etc(named, lengths.too_long.total)}: "
        "shorten them, or take them out"
    )


def _about_examples(report: DataReport, kept: Sequence[Example]) -> Iterator[str]:
    if FEWEST_EXAMPLES <= report.kept < ENOUGH_EXAMPLES:
        yield f"{report.kept} examples are few: gains are usual from {ENOUGH_EXAMPLES} to 100 on"
    if report.kept >= FEWEST_EXAMPLES and report.answers.distinct == 1:
        yield "every example has the same answer, so that nothing but it can be learnt: add examples of other answers"
    if not report.heldout:
        yield "no held-out cases were given, so that no example was compared with one"
    if report.conflicts.total:
        yield (
            f"{report.contradicting} examples give different answers to the same input, and none of them is kept: "
            "decide which answer is right"
        )
    if report.near_conflicts.total:
        yield (
            f"{many(report.near_conflicts.total, 'group')} of inputs that are nearly the same with different answers: "
            "the first of each is kept; look whether it is the right one"
        )
    if report.lengths and not report.lengths.exact and report.lengths.too_long.total:
        yield _too_long(report)
    padded = sum(example.expected != example.expected.strip() for example in kept)
    if padded:
        yield f"{many(padded, 'answer')} with white space at an end, which the model would learn, too"


def _about_labels(answers: Balance, kept: Sequence[Example]) -> Iterator[str]:
    if answers.kind != "labels":
        return
    if answers.largest_share >= LOPSIDED and answers.distinct > 1:
        name = answers.counts[0][0]
        yield f"{answers.largest_share:.0%} of the answers are {name!r}: add examples of the others"
    spellings = [group for group in _spellings(kept) if len(group) > 1]
    if spellings:
        named = "; ".join(" and ".join(map(_quoted, group)) for group in spellings[:NAMED])
        yield f"labels that differ in case, accents or white space alone: {_etc(named, len(spellings))}: settle on one of each"
    rare = _rare(kept)
    if rare:
        named = ", ".join(map(_quoted, rare[:NAMED]))
        yield f"{many(len(rare), 'label')} with fewer than {RARE_LABEL} examples: {_etc(named, len(rare))}"


def _rare(kept: Sequence[Example]) -> list[str]:
    """The labels of too few examples, the most frequent first; a report lists frequent ones alone."""
    counts = Counter(example.expected.strip() for example in kept)
    return sorted((name for name in counts if counts[name] < RARE_LABEL), key=lambda name: (-counts[name], name))


def _quoted(label: str) -> str:
    return repr(quotable(label, SHOWN_CHARACTERS))


def _spellings(kept: Sequence[Example]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for answer in dict.fromkeys(example.expected.strip() for example in kept):
        groups[folded(answer)].append(answer)
    return list(groups.values())


def _about_people(report: DataReport) -> Iterator[str]:
    for group, fix in (
        ("secret", "take them out and make them invalid: a model may repeat what it was trained on"),
        ("personal", "a model may repeat what it was trained on: take out what it need not know"),
    ):
        total = report.flagged.get(group, 0)
        if total:
            what = many(total, "secret") if group == "secret" else f"{many(total, 'piece')} of personal data"
            yield f"{what} in the examples: {fix}"


def _etc(named: str, total: int) -> str:
    return named if total <= NAMED else f"{named} and {total - NAMED:,} more"
