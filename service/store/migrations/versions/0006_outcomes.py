"""the request log keeps all of an outcome and numbers its rows; feedback has a score that can be compared"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

KEPT = (
    "id, at, key_id, prompt, variant, route_revision, status, latency_ms, upstream_ms, prompt_tokens,"
    " completion_tokens, cost_usd, error"
)


def upgrade() -> None:
    _make_request_anew()
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.add_column(sa.Column("score", sa.Float(), nullable=True))
        batch_op.create_index("feedback_by_score", ["metric", "score"], unique=False)
        batch_op.create_index("feedback_by_time", ["at"], unique=False)
        batch_op.create_index("feedback_on", ["completion_id", "metric", "key_id"], unique=False)
        batch_op.drop_index(batch_op.f("ix_feedback_completion_id"))
    _score_feedback()


def _make_request_anew() -> None:
    """A table's key cannot be changed on SQLite: the rows are copied, in the order of their times."""
    op.drop_index("ix_request_at", "request")
    op.drop_index("ix_request_prompt", "request")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE request DROP CONSTRAINT request_pkey")  # the new table's is called so
    op.rename_table("request", "request_before")
    op.create_table(
        "request",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=True),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("route_revision", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("upstream_ms", sa.Float(), nullable=True),
        sa.Column("first_token_ms", sa.Float(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("unit", sa.String(), nullable=True),
        sa.Column("is_valid", sa.Boolean(), nullable=True),
        sa.Column("is_stream", sa.Boolean(), nullable=False),
        sa.Column("is_cached", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("shadow_of", sa.String(), nullable=True),
        sa.Column("trace_id", sa.String(), nullable=True),
        sa.Column("chosen", sa.String(), nullable=True),
        sa.Column("parent_span_id", sa.String(), nullable=True),
        sa.Column("is_sampled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.execute(
        f"INSERT INTO request ({KEPT}, cached_tokens, is_stream, is_cached, attempts, is_sampled)"
        f" SELECT {KEPT}, 0, false, false, 1, false FROM request_before ORDER BY at"
    )
    op.drop_table("request_before")
    op.create_index("request_by_time", "request", ["at", "seq"])
    op.create_index("request_by_prompt", "request", ["prompt", "at", "seq"])
    _index_where("route_revision IS NOT NULL", "request_by_route", "prompt", "route_revision", "seq")
    _index_where("trace_id IS NOT NULL", "request_by_trace", "trace_id")
    _index_where("shadow_of IS NOT NULL", "request_by_shadowed", "shadow_of")


def _index_where(condition: str, name: str, *columns: str) -> None:
    only = sa.text(condition)
    op.create_index(name, "request", list(columns), sqlite_where=only, postgresql_where=only)


def _score_feedback() -> None:
    """As `service.store.requests.score_of` does for what is said from now on."""
    bind = op.get_bind()
    change = sa.text("UPDATE feedback SET score = :score WHERE id = :id")
    said = sa.text("SELECT id, CAST(value AS TEXT) FROM feedback WHERE value IS NOT NULL")
    for feedback_id, text in bind.execute(said).all():
        value = json.loads(text)
        if isinstance(value, bool | int | float):
            bind.execute(change, {"score": float(value), "id": feedback_id})
