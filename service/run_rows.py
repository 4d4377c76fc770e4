"""A stored run as others see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suites.outcomes import with_ids

if TYPE_CHECKING:
    from service.registry import Registry


def public_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the API shows it: its figures beside its state.

    Where its row names another variant or suite than its figures do, which nothing but a change by hand brings about,
    that stands beside them as `row_variant` and `row_suite`.
    """
    summary = {name: value for name, value in (record["summary"] or {}).items() if name != "case_status"}
    kept = {name: record[name] for name in ("status", "started_at", "finished_at")}
    row = {"variant": record["variant"], "suite": f"{record['suite']}@{record['suite_version']}"}
    others = {f"row_{name}": value for name, value in row.items() if summary.get(name, value) != value}
    return {"run_id": record["id"], "variant": record["variant"], **kept, **summary, **others}


def case_statuses(record: Mapping[str, Any], registry: Registry) -> Mapping[str, str]:
    """The statuses of a finished run's cases as `statuses_of` reads them; their ids are those of its suite version.

    Raises NotFound where that is not there.
    """
    stored: Mapping[str, str] = record["summary"]["case_status"]
    if stored.keys() != {"statuses"}:
        return stored  # with ids, as runs were stored before
    suite = registry.read_suite(registry.suite_head(f"{record['suite']}@{record['suite_version']}"))
    return with_ids(stored, (case.id for case in suite.tests))
