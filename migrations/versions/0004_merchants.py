"""Accounts of further merchants, sealed; notices by merchant.

What came in before came for the one merchant there was.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

import shop.db

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BEFORE = ["channel", "notice_id"]
SINCE = ["channel", "merchant", "notice_id"]
# SQLite makes the table anew, and Alembic does not read checks off the old one.
CHECKS = (
    sa.CheckConstraint("channel IN ('wechatpay', 'alipay')", name="ck_notices_channel"),
    sa.CheckConstraint("state IN ('verified', 'applied', 'refused')", name="ck_notices_state"),
)


def upgrade() -> None:
    op.create_table(
        "merchant_accounts",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("version", shop.db.BigInt, nullable=False),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("updated_at", shop.db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_merchant_accounts")),
        **shop.db.mariadb_options(op.get_bind().dialect),
    )
    with op.batch_alter_table("notices", table_args=CHECKS) as batch:
        batch.add_column(
            sa.Column("merchant", sa.String(length=32), server_default="default", nullable=False)
        )
        batch.drop_constraint("uq_notices_channel_notice_id", type_="unique")
        batch.create_unique_constraint("uq_notices_channel_merchant_notice_id", SINCE)


def downgrade() -> None:
    with op.batch_alter_table("notices", table_args=CHECKS) as batch:
        batch.drop_constraint("uq_notices_channel_merchant_notice_id", type_="unique")
        batch.drop_column("merchant")
        batch.create_unique_constraint("uq_notices_channel_notice_id", BEFORE)
    op.drop_table("merchant_accounts")
