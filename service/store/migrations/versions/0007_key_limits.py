"""what a key may take of requests and tokens"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day"):
        op.add_column("api_key", sa.Column(name, LARGE, nullable=True))
