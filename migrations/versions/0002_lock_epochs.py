"""Epochs of the lock service: fences of two services are never compared with each other.

Orders that were written before keep epoch 0, below the first one.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

import shop.db

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    options = shop.db.mariadb_options(op.get_bind().dialect)
    op.create_table(
        "lock_epochs",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("realm", sa.String(length=128), nullable=False),
        sa.Column("since", shop.db.UtcDateTime(), nullable=False),
        sa.Column("reason", sa.String(length=128), nullable=False),
        sa.CheckConstraint("epoch > 0", name=op.f("ck_lock_epochs_epoch")),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_lock_epochs")),
        **options,
    )
    for table, column in (("orders", "lock_epoch"), ("transitions", "epoch")):
        op.add_column(table, sa.Column(column, sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    # Not by batch: SQLite would make the whole table anew, and drops a bare column by itself.
    op.drop_column("transitions", "epoch")
    op.drop_column("orders", "lock_epoch")
    op.drop_table("lock_epochs")
