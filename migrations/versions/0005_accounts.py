"""At which account of its merchant a payment was begun.

Of what was begun before, that is not known.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "payment_attempts",
        sa.Column("account", sa.String(length=128), server_default="", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("payment_attempts", "account")
