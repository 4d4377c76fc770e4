"""what lists and searches see of each prompt; which move of a label another one took back"""

import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    summary = op.create_table(
        "prompt_summary",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["prompt.name"]),
        sa.PrimaryKeyConstraint("name"),
    )
    with op.batch_alter_table("prompt_summary", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_summary_model"), ["model"], unique=False)

    tag = op.create_table(
        "prompt_tag",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["prompt.name"]),
        sa.PrimaryKeyConstraint("name", "tag"),
    )
    with op.batch_alter_table("prompt_tag", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_tag_tag"), ["tag"], unique=False)

    op.add_column("label_move", sa.Column("undoes", sa.Integer(), nullable=True))
    for name, number, content, about in _newest():
        op.bulk_insert(summary, [_summary(name, number, content, about)])
        op.bulk_insert(tag, [{"name": name, "tag": word} for word in dict.fromkeys(about.get("tags") or [])])


def _newest() -> list[Any]:
    """Name, number, content and about of each prompt's newest pushed version."""
    query = sa.text(
        "SELECT v.name, v.number, v.content, v.about FROM prompt_version v WHERE NOT v.draft AND v.number ="
        " (SELECT max(w.number) FROM prompt_version w WHERE w.name = v.name AND NOT w.draft)"
    )
    return list(op.get_bind().execute(query.columns(sa.column("name", sa.String()), sa.column("number", sa.Integer()),
                                                    sa.column("content", sa.JSON()), sa.column("about", sa.JSON()))))  # fmt: skip


def _summary(name: str, number: int, content: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Versions of 0001 hold messages of plain text, and no notes."""
    texts = [name, about.get("title"), about.get("description"), *(m["content"] for m in content["messages"])]
    folded = unicodedata.normalize("NFC", "\n".join(text for text in texts if text)).casefold()
    known = {key: about.get(key) for key in ("title", "description")} | {"tags": about.get("tags") or []}
    return {"name": name, "number": number, **known, "model": content["model"], "search_text": folded}
