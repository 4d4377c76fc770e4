"""Cases from Parquet, with the columns of CSV; needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompts.errors import BadFile, Fault
from suites.csv_cases import header_faults, row_of
from suites.rows import Row

PARQUET = (".parquet", ".pq")
ROWS_AT_ONCE = 1_000


def parquet_rows(path: Path, shown: str, faults: list[Fault]) -> Iterator[Row]:
    """A row for each of the table, its number in place of a line; what is wrong with one is a fault.

    Raises BadFile where pyarrow is not installed, or the file is no Parquet.
    """
    arrow, parquet = _arrow(shown)
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            header = list(table.schema_arrow.names)
            faults.extend(header_faults(header, shown))
            for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    number += 1
                    yield from row_of({name: _cell(values[name]) for name in header}, shown, number, faults)
    except (OSError, arrow.ArrowException) as error:
        raise BadFile(
            [Fault(shown, number, f"not a Parquet file that can be read: {error}", "write it again")]
        ) from error


def _arrow(shown: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        fix = "pip install 'turnout[parquet]', or save the table as JSON lines"
        raise BadFile([Fault(shown, 0, "Parquet needs the extra `parquet`, which is not installed", fix)]) from error
    return pyarrow, parquet


def _cell(value: Any) -> Any:
    """What a cell of CSV would hold, and lists and structures as they are; an empty cell is an empty text."""
    if value is None:
        return ""
    return value if isinstance(value, str | int | float | bool | list | dict) else str(value)
