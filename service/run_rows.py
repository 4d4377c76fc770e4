"""A stored run as others see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
