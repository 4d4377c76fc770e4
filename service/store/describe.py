"""`python -m service.store.describe`: makes `schema.sql` and `tables.py` from the models, so that nothing is said twice.

A local run reads these two in place of the models. A test fails where they are not what this makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, Table, UniqueConstraint
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine
from sqlmodel import SQLModel

from service.store import models

_FOLDER = Path(__file__).parent
_MOST_NAMES_CHARS = 120 - len("    columns=(),")
_MADE = "Made from models.py by `python -m service.store.describe`"
_TABLES_HEAD = f'''"""{_MADE}: the tables as statements need them."""

from __future__ import annotations

from service.store.records import Table
'''


def files() -> dict[Path, str]:
    """The files that are made, and what is in them."""
    return {_FOLDER / "schema.sql": schema(), _FOLDER / "tables.py": constants(defined())}


def defined() -> list[type[SQLModel]]:
    """The classes of models.py that are tables, in its order."""
    found = [model for model in vars(models).values() if isinstance(model, type) and issubclass(model, SQLModel)]
    return [model for model in found if model is not SQLModel]


def schema() -> str:
    """The tables and indexes in SQLite's words; a table stands behind those that it refers to, else they go by name."""
    dialect = sqlite.dialect()
    made: list[CreateTable | CreateIndex] = []
    for table in SQLModel.metadata.sorted_tables:
        made += [CreateTable(table), *(CreateIndex(i) for i in sorted(table.indexes, key=lambda i: str(i.name)))]
    statements = [_laid_out(str(statement.compile(dialect=dialect))) for statement in made]
    return f"-- {_MADE}.\n" + "".join(f"{statement};\n" for statement in statements)


def _laid_out(statement: str) -> str:
    lines = [line.strip() for line in statement.strip().splitlines()]
    return "\n".join(line if line == ")" or not number else f"  {line}" for number, line in enumerate(lines) if line)


def constants(tables: Iterable[type[SQLModel]]) -> str:
    """Python that gives each table's columns, key, JSON, flags and defaults, laid out as `ruff format` does."""
    return _TABLES_HEAD + "".join("\n" + _constant(model) for model in tables)


def _constant(model: type[SQLModel]) -> str:
    table = SQLModel.metadata.tables[str(model.__tablename__)]
    given = {
        "columns": _names("()", table.columns.keys()),
        "key": _names("()", _key(model, table)),
        "json": _set_of(table, JSON),
        "flags": _set_of(table, Boolean),
        "defaults": _defaults(model),
        "numbered": json.dumps(_numbered(model)) if _numbered(model) else "",
    }
    arguments = "".join(f"    {name}={value},\n" for name, value in given.items() if value)
    return f'{table.name.upper()} = Table(\n    name="{table.name}",\n{arguments})\n'


def _names(brackets: str, names: Iterable[str]) -> str:
    return _in(brackets, [json.dumps(name) for name in names])


def _in(brackets: str, items: Sequence[str]) -> str:
    """One line, or one line for each where that were too long."""
    line = ", ".join(items) + ("," if brackets == "()" and len(items) == 1 else "")
    if len(line) <= _MOST_NAMES_CHARS:
        return brackets[0] + line + brackets[1]
    return f"{brackets[0]}\n" + "".join(f"        {item},\n" for item in items) + f"    {brackets[1]}"


def _set_of(table: Table, kind: type[TypeEngine[Any]]) -> str:
    names = [column.name for column in table.columns if isinstance(column.type, kind)]
    return f"frozenset({_names('{}', names)})" if names else ""


def _defaults(model: type[SQLModel]) -> str:
    """What a record may leave out, beside what is None then."""
    found = {name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    pairs = [f"{json.dumps(name)}: {value!r}" for name, value in found.items() if value is not None]
    return _in("{}", pairs) if pairs else ""


def _key(model: type[SQLModel], table: Table) -> tuple[str, ...]:
    """What rows are got by: the primary key or, where that is a mere number, the first key that means something."""
    if _numbered(model):
        for argument in getattr(model, "__table_args__", ()):
            if isinstance(argument, UniqueConstraint):
                return tuple(argument.columns.keys())
    return tuple(table.primary_key.columns.keys())


def _numbered(model: type[SQLModel]) -> str:
    """The column by which the database numbers the rows; "" where it does not."""
    name, first = next(iter(model.model_fields.items()))
    return "" if first.is_required() else name


def main() -> None:
    """Write both files."""
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
