"""Assertions on SQL: the whole answer (`is-sql`) or a fenced block of it (`contains-sql`), with lists of what it may touch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from suites.assertions.extras import need
from suites.assertions.patterns import check_pattern, search
from suites.assertions.spec import (
    Assertion,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    outcome,
    refuse,
    shorten,
)
from suites.assertions.sql_uses import columns, tables
from suites.assertions.text import no_threshold

MAX_CHARACTERS = 100_000  # parsed within about a second
MAX_BLOCKS = 50  # fenced blocks tried in one answer
DIALECTS = {
    "athena": "athena",
    "bigquery": "bigquery",
    "clickhouse": "clickhouse",
    "databricks": "databricks",
    "db2": "",
    "duckdb": "duckdb",
    "flinksql": "",
    "hive": "hive",
    "mariadb": "mysql",
    "mysql": "mysql",
    "noql": "mysql",
    "oracle": "oracle",
    "postgres": "postgres",
    "postgresql": "postgres",
    "redshift": "redshift",
    "snowflake": "snowflake",
    "spark": "spark",
    "sqlite": "sqlite",
    "transactsql": "tsql",
    "trino": "trino",
    "tsql": "tsql",
}
_KEYS = ("databaseType", "allowedTables", "allowedColumns")
_FENCED = re.compile(r"```[ \t]*(?:sql)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_DELETE_WITHOUT_FROM = ("tsql", "oracle")


class _NotSql(Exception):
    """Why a text is no SQL that may be run."""


def _is_sql(output: Output, spec: AssertionSpec) -> Outcome:
    problem = _problem(output.text, spec)
    return outcome(not problem, _expected("SQL", spec, problem), output.text)


def _contains_sql(output: Output, spec: AssertionSpec) -> Outcome:
    problem = ""
    for _, text in zip(range(MAX_BLOCKS), _candidates(output.text), strict=False):
        problem = _problem(text, spec)
        if not problem:
            break
    return outcome(not problem, _expected("SQL within", spec, problem), output.text)


def _candidates(text: str) -> Iterator[str]:
    """What is fenced as SQL or as nothing in particular, and the whole answer."""
    for block in _FENCED.finditer(text):
        yield block[1]
    yield text


def _expected(kind: str, spec: AssertionSpec, problem: str) -> str:
    dialect = (spec.value or {}).get("databaseType", "MySQL")
    return f"{kind} of {dialect} ({problem})" if problem else f"{kind} of {dialect}"


def _problem(text: str, spec: AssertionSpec) -> str:
    """Why `text` is no SQL that `spec` allows; "" where it is."""
    value = spec.value or {}
    try:
        statements = _parsed(text, DIALECTS[str(value.get("databaseType", "mysql")).lower()])
        for statement in statements:
            _check_listed(tables(statement), value.get("allowedTables"), "allowedTables")
            _check_listed(columns(statement), value.get("allowedColumns"), "allowedColumns")
    except _NotSql as error:
        return str(error)
    return ""


def _parsed(text: str, dialect: str) -> list[Any]:
    """The statements of `text`, at least one; raises _NotSql, AssertionErrored for what is too long or too deep to say."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # what it warns of is no statement to us
    if len(text) > MAX_CHARACTERS:
        raise AssertionErrored(f"SQL of {len(text):,} characters is not parsed: the most are {MAX_CHARACTERS:,}")
    try:
        found = [statement for statement in sqlglot.parse(text, read=dialect or None) if statement is not None]
        for statement in found:
            _check_whole(statement, dialect, text)
    except SqlglotError as error:
        raise _NotSql(_plain(str(error))) from error
    except RecursionError as error:
        raise AssertionErrored("the SQL nests too deeply to be parsed") from error
    if not found:
        raise _NotSql("no statement in it")
    return found


def _plain(message: str) -> str:
    """sqlglot's message without the colours it marks the place with."""
    return shorten(re.sub(r"\x1b\[[0-9;]*m", "", message).partition("\n")[0])[1:-1]


def _check_whole(statement: Any, dialect: str, text: str) -> None:
    """Refuse what sqlglot takes for a statement and no database would: it also parses "Delete the file"."""
    from sqlglot import exp

    if isinstance(statement, exp.Describe) and isinstance(statement.this, exp.Query):
        statement = statement.this  # EXPLAIN SELECT …
    kinds = (exp.Query, exp.DML, exp.Create, exp.Drop, exp.Alter, exp.TruncateTable, exp.Grant, exp.Revoke, exp.Set,
             exp.Transaction, exp.Commit, exp.Rollback)  # fmt: skip
    if not isinstance(statement, kinds):
        raise _NotSql("it does not begin with a statement that can be checked")
    if isinstance(statement, exp.Select) and not statement.expressions:
        raise _NotSql("SELECT without anything selected")
    if isinstance(statement, exp.Update) and not statement.expressions:
        raise _NotSql("UPDATE without SET")
    if isinstance(statement, exp.Insert) and statement.expression is None:
        raise _NotSql("INSERT without VALUES or a query")
    needs_from = isinstance(statement, exp.Delete) and dialect not in _DELETE_WITHOUT_FROM
    if needs_from and not re.search(r"\bfrom\b", text, re.IGNORECASE):
        raise _NotSql("DELETE without FROM")


def _check_listed(used: Iterator[str], allowed: list[str] | None, key: str) -> None:
    if not allowed:
        return
    for authority in used:
        if not any(search(f"(?i)^(?:{pattern})$", each) for pattern in allowed for each in authority.split(" ")):
            raise _NotSql(f"{authority.split(' ')[0]} is not in {key}")


def _check(spec: AssertionSpec) -> None:
    need(spec, "metrics", "sqlglot")
    no_threshold(spec)
    if spec.value is None:
        return
    if not isinstance(spec.value, dict) or set(spec.value) - set(_KEYS):
        refuse(f"`{spec.type}` takes {', '.join(_KEYS)}", "write `value: {databaseType: PostgreSQL}`, or leave it out")
    kind = spec.value.get("databaseType", "mysql")
    if not isinstance(kind, str) or kind.lower() not in DIALECTS:
        refuse(f"`{spec.type}` knows no database {shorten(kind, 60)}", f"known here: {', '.join(DIALECTS)}")
    for key in _KEYS[1:]:
        _check_patterns(spec.type, key, spec.value.get(key))


def _check_patterns(kind: str, key: str, patterns: Any) -> None:
    if patterns is None:
        return
    fix = "write patterns such as 'select::null::customers'"
    if not isinstance(patterns, list) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        refuse(f"`{kind}`: {key} is a list of patterns", fix)
    for pattern in patterns:
        if pattern.count("::") != 2:
            refuse(f"`{kind}`: {shorten(pattern)} has not three parts", fix)
        check_pattern(pattern)


FAMILY: Family = {
    "is-sql": Assertion(_is_sql, _check, version=2),
    "contains-sql": Assertion(_contains_sql, _check, version=2),
}
