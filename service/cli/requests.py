"""`turnout requests`: the request log, shown or written to a file as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Protocol

import typer

from service.cli.options import Json, Local

if TYPE_CHECKING:
    from service.store.request_query import Question

PAGE = 1_000
_SHOWN = ("at (UTC)", "id", "variant", "status", "ms", "tokens", "usd", "error")
_MOST_ERROR = 60  # characters of an error that the table shows; `--json` has all of it


def requests(
    prompt: Annotated[str | None, typer.Option("--prompt", help="Only of this prompt.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Only what this variant answered.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="ok, cancelled, an error's class, or failed for any of these.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="An age (7d, 12h, 30m), or a time (2026-01-31).")] = None,
    until: Annotated[str | None, typer.Option("--until", help="The same; what came then is left out.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Only what somebody gave a score of it.")] = None,
    below: Annotated[float | None, typer.Option("--below", help="With --metric: a score below this.")] = None,
    above: Annotated[float | None, typer.Option("--above", help="With --metric: a score above this.")] = None,
    trace_id: Annotated[str | None, typer.Option("--trace-id", help="Only of this trace.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="By default 50, and with --export all of them.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write them to FILE.jsonl or FILE.parquet, as they come.")
    ] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """The requests that were answered, newest first: by whom, what they took, and what came of them."""
    from service.cli.output import err, print_json, table

    given = {"prompt": prompt, "variant": variant, "status": status, "since": since, "until": until, "metric": metric,
             "below": below, "above": above, "trace_id": trace_id}  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    if export is not None:
        count = _export(_rows(asked, limit, local=local), export)
        _tell(count, export, as_json=as_json)
        return 0
    found = list(_rows(asked, limit or 50, local=local))
    if as_json:
        print_json(found)
    elif found:
        table([_shown(row) for row in found], _SHOWN)
    else:
        err().print("no request fits", style="dim")
    return 0


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the table has it: seconds, `prompt+completion` tokens, and the beginning of the error."""
    from service.times import shown_time

    error = row["error"] or ""
    return {
        **{name: row[name] for name in ("id", "variant", "status")},
        "at (UTC)": shown_time(row["at"]),
        "ms": f"{row['latency_ms']:.1f}",
        "tokens": f"{row['prompt_tokens']}+{row['completion_tokens']}",
        "usd": None if row["cost_usd"] is None else f"{row['cost_usd']:.2g}",
        "error": error if len(error) <= _MOST_ERROR else error[:_MOST_ERROR] + "…",
    }


def _tell(count: int, path: Path, *, as_json: bool) -> None:
    from prompts.wording import many
    from service.cli.output import out, print_json

    if as_json:
        print_json({"requests": count, "file": str(path)})
    else:
        out().print(f"{many(count, 'request')} written to {path}", markup=False, soft_wrap=True)


# ---------------------------------------------------------------------------- reading


def _rows(asked: dict[str, Any], limit: int | None, *, local: bool) -> Iterator[dict[str, Any]]:
    """The rows, a page at a time in memory."""
    pages = _pages_here(asked) if local else _pages_of_service(asked)
    count = 0
    for page in pages:
        for row in page:
            yield row
            count += 1
            if count == limit:
                return


def _pages_of_service(asked: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Authors may read the log of a prompt, admins all of it."""
    from service.cli.calling import client

    service = client(local=False)
    more = dict(asked)
    path = f"/api/prompts/{more.pop('prompt')}/requests" if "prompt" in more else "/api/requests"
    while True:
        page = service.call("GET", path, params={**more, "limit": PAGE})
        yield page
        if len(page) < PAGE:
            return
        more["after"] = f"{page[-1]['at']},{page[-1]['seq']}"


def _pages_here(asked: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """From the database of TURNOUT_HOME itself: a page through the service's handlers would start them anew each time."""
    from dataclasses import replace

    from service.opening import prepare
    from service.settings import load_settings
    from service.store.database import Database
    from service.store.request_query import newest

    question = _question(asked)
    settings = load_settings()
    database = Database(settings.database_url)
    try:
        prepare(database, settings)
        while True:
            with database.read() as session:
                page = newest(session, question, PAGE)
            yield page
            if len(page) < PAGE:
                return
            question = replace(question, after=(page[-1]["at"], page[-1]["seq"]))
    finally:
        database.close()


def _question(asked: dict[str, Any]) -> Question:
    from dataclasses import replace

    from prompts.errors import BadInput
    from service.store.request_query import Question
    from service.times import stored_time

    if "metric" not in asked and ("below" in asked or "above" in asked):
        raise BadInput("--below and --above are bounds of a score: name its --metric", param="metric")
    since, until = (stored_time(asked.get(name), name) for name in ("since", "until"))
    return replace(Question(**asked), since=since, until=until)


# ---------------------------------------------------------------------------- writing


class _Writer(Protocol):
    def write(self, rows: list[dict[str, Any]]) -> None: ...


def _export(rows: Iterator[dict[str, Any]], path: Path) -> int:
    """Write rows to a file, which is there only once it is whole; returns how many."""
    from prompts.errors import BadInput

    kinds = {".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in kinds:
        raise BadInput(f"{path}: --export writes FILE.jsonl or FILE.parquet", param="--export")
    unfinished = path.with_name(f".{path.name}.unfinished")
    count = 0
    try:
        with kinds[path.suffix](unfinished) as writer:
            while batch := list(islice(rows, PAGE)):
                writer.write(batch)
                count += len(batch)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


class _Lines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _jsonl(path: Path) -> Iterator[_Writer]:
    with path.open("w", encoding="utf-8") as file:
        yield _Lines(file)


class _Columns:
    def __init__(self, arrow: Any, schema: Any, writer: Any) -> None:
        self._arrow, self._schema, self._parquet = arrow, schema, writer
        self._rows: list[dict[str, Any]] = []

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        if len(self._rows) >= 50 * PAGE:
            self.flush()

    def flush(self) -> None:
        """One row group: small ones would make a large file that is slow to read."""
        if self._rows:
            self._parquet.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


@contextmanager
def _parquet(path: Path) -> Iterator[_Writer]:
    """The columns of the log with their types. Raises BadInput where pyarrow is not installed."""
    from prompts.errors import BadInput

    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        fix = "pip install 'turnout[parquet]', or write FILE.jsonl"
        raise BadInput(f"Parquet needs the extra `parquet`, which is not installed: {fix}", param="--export") from error
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _types().items()])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        columns = _Columns(pyarrow, schema, writer)
        yield columns
        columns.flush()


def _types() -> dict[str, str]:
    """Arrow's type of each column, by those of an outcome's fields."""
    from typing import get_type_hints

    from service.outcome import Outcome

    kinds = {str: "string", int: "int64", float: "float64", bool: "bool_"}
    found = {name: next(kinds[kind] for kind in kinds if kind in (hint, *getattr(hint, "__args__", ())))
             for name, hint in get_type_hints(Outcome).items()}  # fmt: skip
    return {"seq": "int64", **found}
