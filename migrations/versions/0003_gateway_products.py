"""The gateways' products, several merchants, product lines.

What was paid before was paid by QR code, at the one merchant there was.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

import shop.db

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = (
    ("orders", "merchant", 32, "default"),
    ("products", "line", 32, ""),
    ("payment_attempts", "merchant", 32, "default"),
    ("payment_attempts", "product", 16, ""),
    ("payment_attempts", "payer_openid", 128, ""),
    ("payment_attempts", "client_ip", 45, ""),
)


def upgrade() -> None:
    for table, column, length, value in COLUMNS:
        op.add_column(
            table, sa.Column(column, sa.String(length), server_default=value, nullable=False)
        )
    op.add_column("payment_attempts", sa.Column("ticket_at", shop.db.UtcDateTime(), nullable=True))
    # Not by batch: SQLite would make the whole table anew.
    op.execute("ALTER TABLE payment_attempts RENAME COLUMN code_url TO ticket")
    op.execute(
        "UPDATE payment_attempts SET product = CASE channel WHEN 'wechatpay' THEN 'native'"
        " WHEN 'alipay' THEN 'precreate' ELSE '' END"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE payment_attempts RENAME COLUMN ticket TO code_url")
    op.drop_column("payment_attempts", "ticket_at")
    for table, column, _, _ in reversed(COLUMNS):
        op.drop_column(table, column)
