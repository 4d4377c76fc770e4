"""The command that shows what a verdict rests on, and whether that holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Json, Local

if TYPE_CHECKING:
    from service.cli.work import Work
    from suites.verdicts import GateEvidence, PromotionEvidence
    from suites.verification import Difference

Verify = Annotated[
    bool, typer.Option("--verify", help="Recompute every figure, also from the stored runs; exit 1 where one differs.")
]


def evidence(evidence_id: str, verify: Verify = False, as_json: Json = False, local: Local = False) -> int:
    """The stored record that a verdict or a promotion rests on, recomputed and compared."""
    from service.cli.output import err, print_json
    from service.cli.work import connect_work
    from service.settings import load_settings
    from suites.verification import verify_record

    work = connect_work(load_settings(), local=local)
    record = _record(work, evidence_id)
    found = verify_record(record)
    shown = {**record, "recomputed_equal": not found}
    if verify:
        further, checked = _against_the_rest(work, record)
        found += further
        shown |= {"verified": not found, "checked": checked, "differences": [each.as_dict() for each in found]}
        err().print(f"checked: {', '.join(checked)}", markup=False)
    for difference in found:
        err().print(f"{difference.path}: stored {difference.stored}, recomputed {difference.recomputed}", markup=False)
    same = "the same decision" if "decision" in record["content"] else "the same digest"
    err().print(f"recomputed: {'NOT the same; it was tampered with' if found else same}", markup=False)
    print_json(shown if as_json else record)
    return 1 if found else 0


def _record(work: Work, evidence_id: str) -> dict[str, Any]:
    """Raises NotFound, saying where ids of evidence come from."""
    from service.cli.selecting import IDS, id_in_path
    from service.errors import NotFound

    try:
        return work.evidence(id_in_path("evidence", evidence_id))
    except NotFound as error:
        raise NotFound("evidence", evidence_id, IDS["evidence"]) from error


def _against_the_rest(work: Work, record: dict[str, Any]) -> tuple[list[Difference], list[str]]:
    """What a record says of other suites and of runs, against these; and what was looked at, in words."""
    from prompts.errors import BadInput
    from suites.evidence_digest import DECIDED, ROLLOUT, unchecked_columns
    from suites.gate import read_evidence

    unchecked = unchecked_columns(record)
    digest = [f"digest (of the content alone: not {' and '.join(unchecked)})" if unchecked else "digest"]
    if record["kind"] == ROLLOUT:
        return [], [*digest, "decision"]
    if record["kind"] not in DECIDED:
        return [], digest
    try:
        found = read_evidence(record["content"])
    except BadInput:
        return [], digest  # that it cannot be read has been told
    differences, checked = _against_runs(work, found)
    if found.kind == "gate":
        more, siblings = _against_siblings(work, record["id"], found)
        return differences + more, [*digest, "decision", siblings, *checked]
    return differences, [*digest, "decision", *checked]


def _against_runs(work: Work, found: GateEvidence | PromotionEvidence) -> tuple[list[Difference], list[str]]:
    from service.errors import NotFound
    from suites.results import CaseResult
    from suites.verification import sides_with_runs, verify_rows, verify_run, verify_side

    differences, checked = [], []
    for role, run_id in sides_with_runs(found).items():
        try:
            rows = list(work.cases(run_id))
        except NotFound:
            rows = []
        results = [CaseResult.from_dict(row) for row in rows]
        if results:
            differences += [*verify_rows(run_id, rows), *verify_side(found.given, role, results)]
            differences += verify_run(found.given, role, work.run_of(run_id), results)
        checked.append(f"{role} {run_id}" if results else f"not the {role}'s run {run_id}, which is no longer there")
    return differences, checked


def _against_siblings(work: Work, evidence_id: str, found: GateEvidence) -> tuple[list[Difference], str]:
    """The other suites of the same gate, whose p-values this verdict is adjusted with."""
    from suites.verification import verify_family

    siblings = list(_siblings(work, evidence_id))
    return verify_family(found, siblings), f"{len(siblings)} other suites of the gate"


def _siblings(work: Work, evidence_id: str) -> Iterator[GateEvidence]:
    """The evidence of one gate is numbered from 0 at the end of its ids."""
    from itertools import count

    from service.errors import NotFound
    from suites.gate import read_evidence
    from suites.verdicts import GateEvidence

    stem = evidence_id.rpartition("_")[0]
    for number in count():
        if f"{stem}_{number}" == evidence_id:
            continue
        try:
            read = read_evidence(work.evidence(f"{stem}_{number}")["content"])
        except NotFound:
            return
        if isinstance(read, GateEvidence):
            yield read
