"""What a parsed statement of SQL touches: the tables and columns, each with what is done to them.

A statement within another counts for itself: a DELETE in a `WITH`, the table that `SELECT … INTO` makes, the rows that
`FOR UPDATE` locks. What touches no table at all (BEGIN, SET) is `null`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_READ = ("from_", "from", "using", "with_", "with")  # parts of a statement that writes from which it only reads
_KINDS = {"truncatetable": "truncate", "into": "create"}


def tables(statement: Any) -> Iterator[str]:
    """`{type}::{database}::{table}` of each table that is used; `null` for a database that is not named."""
    found = _used(statement)
    for kind, table in found:
        yield f"{kind}::{table.db or 'null'}::{table.name}" if table is not None else f"{kind}::null::null"


def columns(statement: Any) -> Iterator[str]:
    """`{type}::{table}::{column}` of each column that is used; `(.*)` for all of them.

    A column without a table is `null`'s. Where the statement has one table alone it is that one's too, which is then
    given as a second form after a space. `count(*)` uses none, as in node-sql-parser.
    """
    from sqlglot import exp

    names = {table.alias_or_name: table.name for table in statement.find_all(exp.Table)}
    only = next(iter(names.values())) if len(names) == 1 else ""
    written = _assigned(statement)
    for column in statement.find_all(exp.Column):
        kind = "update" if id(column) in written else "select"
        star = isinstance(column.this, exp.Star)
        yield _authority(kind, names.get(column.table, column.table), "(.*)" if star else column.name, only)
    for select in statement.find_all(exp.Select):
        if any(isinstance(item, exp.Star) for item in select.expressions):
            yield _authority("select", "", "(.*)", only)
    yield from _written_columns(statement)


def _authority(kind: str, table: str, column: str, only: str) -> str:
    first = f"{kind}::{table or 'null'}::{column}"
    return f"{first} {kind}::{only}::{column}" if only and not table else first


def _written_columns(statement: Any) -> Iterator[str]:
    """The columns that an INSERT names, and all of them for whatever else is not a query or an UPDATE."""
    from sqlglot import exp

    acts = _acts(statement)
    named = [act for act in acts if isinstance(act, exp.Insert) and isinstance(act.this, exp.Schema)]
    for insert in named:
        for column in insert.this.expressions:
            yield f"{_kind(insert)}::{insert.this.this.name}::{column.name}"
    listed = {_kind(act) for act in named} | {"select", "update"}
    for kind, table in _used(statement):
        if kind not in listed:
            yield f"{kind}::{table.name if table is not None else 'null'}::(.*)"
    for act in acts:  # an INSERT without columns beside one that names them
        if isinstance(act, exp.Insert) and act not in named and _kind(act) in listed:
            yield f"{_kind(act)}::{act.this.name}::(.*)"


def _assigned(statement: Any) -> set[int]:
    """The columns that an UPDATE, or the conflict of an INSERT, sets."""
    from sqlglot import exp

    owners = statement.find_all(exp.Update, exp.OnConflict)
    return {id(pair.this) for owner in owners for pair in owner.expressions if isinstance(pair, exp.EQ)}


def _used(statement: Any) -> list[tuple[str, Any]]:
    """Each table with what is done to it; None for the table of a statement that has none."""
    from sqlglot import exp

    acts = _acts(statement)
    aliased = {t.alias.lower(): t for t in statement.find_all(exp.Table) if t.alias}
    found = []
    touched: set[int] = set()
    for table in statement.find_all(exp.Table):
        if not table.name or table.find_ancestor(exp.Lock):
            continue
        act = _owner(table, acts)
        if act is not None:
            touched.add(id(act))
            table = aliased.get(table.name.lower(), table) if not table.db else table
            found += [(kind, table) for kind in _kinds(act)]
        elif not _is_defined(table):
            found.append(("select", table))
    idle = [(_kind(act), None) for act in acts if id(act) not in touched]
    return found + idle + [("lock", table) for table in _locked(statement)]


def _acts(statement: Any) -> list[Any]:
    """The statement, and those within it, that are no query; what a MERGE does to rows is the MERGE's."""
    from sqlglot import exp

    if isinstance(statement, exp.Describe):
        statement = statement.this
    own = [] if isinstance(statement, exp.Query) else [statement]
    inner = statement.find_all(exp.DML, exp.Into)
    return own + [node for node in inner if node is not statement and not isinstance(node.parent, exp.When)]


def _kinds(act: Any) -> tuple[str, ...]:
    conflict = act.args.get("conflict")
    updates = conflict is not None and conflict.expressions
    return (_kind(act), "update") if updates else (_kind(act),)


def _kind(act: Any) -> str:
    replaces = act.args.get("alternative") == "REPLACE" or act.args.get("overwrite")
    return "replace" if replaces else _KINDS.get(act.key, str(act.key))


def _owner(table: Any, acts: list[Any]) -> Any:
    """The statement that writes this table, or does to it what is no reading; None where it is read."""
    from sqlglot import exp

    known = {id(act) for act in acts}
    node = table
    while node.parent is not None:
        key, node = node.arg_key, node.parent
        if id(node) in known:
            return None if key in _READ else node
        if isinstance(node, exp.Query):
            return None
    return None


def _is_defined(table: Any) -> bool:
    """Whether this is the name of a `WITH` that can be seen from here: not one's own, not one that follows."""
    from sqlglot import exp

    if table.db:
        return False
    node, within = table, None
    while node is not None:
        definitions = node.args.get("with_") or node.args.get("with")
        if definitions is not None and table.name.lower() in _visible(definitions, within):
            return True
        within = node if isinstance(node, exp.CTE) else within
        node = node.parent
    return False


def _visible(definitions: Any, within: Any) -> set[str]:
    """The names of a `WITH` that the definition `within` may use; all for what is outside of them."""
    listed = list(definitions.expressions)
    place = next((index for index, cte in enumerate(listed) if cte is within), None)
    seen = listed if place is None or definitions.args.get("recursive") else listed[:place]
    return {cte.alias_or_name.lower() for cte in seen}


def _locked(statement: Any) -> Iterator[Any]:
    """The tables whose rows a `SELECT … FOR UPDATE` locks."""
    from sqlglot import exp

    for select in statement.find_all(exp.Query):
        for table in select.find_all(exp.Table) if select.args.get("locks") else ():
            if table.name and not table.find_ancestor(exp.Lock) and not _is_defined(table):
                yield table
