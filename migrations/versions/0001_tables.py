"""The shop's tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

import shop.db

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    options = shop.db.mariadb_options(op.get_bind().dialect)
    op.create_table(
        "ledger_accounts",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=8), nullable=False),
        sa.Column("balance", shop.db.BigInt, nullable=False),
        sa.Column("min_balance", shop.db.BigInt, nullable=True),
        sa.Column("version", shop.db.BigInt, nullable=False),
        sa.CheckConstraint(
            "currency IN ('POINTS', 'CNY')", name=op.f("ck_ledger_accounts_currency")
        ),
        sa.CheckConstraint(
            "min_balance IS NULL OR balance >= min_balance", name=op.f("ck_ledger_accounts_floor")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_accounts")),
        sa.UniqueConstraint("code", name=op.f("uq_ledger_accounts_code")),
        **options,
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("cause", sa.String(length=96), nullable=False),
        sa.Column("order_code", sa.String(length=32), nullable=True),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transactions")),
        sa.UniqueConstraint("cause", name=op.f("uq_ledger_transactions_cause")),
        **options,
    )
    with op.batch_alter_table("ledger_transactions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_ledger_transactions_order_code"), ["order_code"], unique=False
        )

    op.create_table(
        "members",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("login", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("login", name=op.f("uq_members_login")),
        **options,
    )
    op.create_table(
        "notices",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("notice_id", sa.String(length=128), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("out_trade_no", sa.String(length=64), nullable=True),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", shop.db.Blob, nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("received_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("received_count", sa.Integer(), nullable=False),
        sa.Column("due_at", shop.db.UtcDateTime(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("finished_at", shop.db.UtcDateTime(), nullable=True),
        sa.CheckConstraint("channel IN ('wechatpay', 'alipay')", name=op.f("ck_notices_channel")),
        sa.CheckConstraint(
            "state IN ('verified', 'applied', 'refused')", name=op.f("ck_notices_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint("channel", "notice_id", name=op.f("uq_notices_channel_notice_id")),
        **options,
    )
    with op.batch_alter_table("notices", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_notices_out_trade_no"), ["out_trade_no"], unique=False)
        batch_op.create_index("ix_notices_state_due_at", ["state", "due_at"], unique=False)

    op.create_table(
        "payment_requests",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("request_no", sa.String(length=128), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("claim_no", sa.String(length=32), nullable=False),
        sa.Column("answer_status", sa.Integer(), nullable=True),
        sa.Column("answer_body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("claimed_at", shop.db.UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(state = 'answered' AND answer_status IS NOT NULL"
            " AND answer_body IS NOT NULL) OR (state <> 'answered'"
            " AND answer_status IS NULL AND answer_body IS NULL)",
            name=op.f("ck_payment_requests_answer"),
        ),
        sa.CheckConstraint(
            "state IN ('in_progress', 'unanswered', 'unsure', 'answered')",
            name=op.f("ck_payment_requests_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_requests")),
        sa.UniqueConstraint(
            "client", "request_no", name=op.f("uq_payment_requests_client_request_no")
        ),
        **options,
    )
    with op.batch_alter_table("payment_requests", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_payment_requests_created_at"), ["created_at"], unique=False
        )

    op.create_table(
        "products",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("sku", sa.String(length=32), nullable=False),
        sa.Column("name_zh", sa.String(length=80), nullable=False),
        sa.Column("name_en", sa.String(length=80), nullable=False),
        sa.Column("description_zh", sa.Text(), nullable=False),
        sa.Column("description_en", sa.Text(), nullable=False),
        sa.Column("art", sa.String(length=32), nullable=False),
        sa.Column("price_mode", sa.String(length=8), nullable=False),
        sa.Column("price_points", shop.db.BigInt, nullable=False),
        sa.Column("price_fen", shop.db.BigInt, nullable=False),
        sa.Column("points_min", shop.db.BigInt, nullable=False),
        sa.Column("points_max", shop.db.BigInt, nullable=False),
        sa.Column("stock_on_hand", sa.Integer(), nullable=False),
        sa.Column("stock_reserved", sa.Integer(), nullable=False),
        sa.Column("stock_taken", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(price_mode = 'points' AND price_points > 0 AND price_fen = 0"
            " AND points_min = 0 AND points_max = 0) OR (price_mode = 'cash'"
            " AND price_points = 0 AND price_fen > 0 AND points_min = 0"
            " AND points_max = 0) OR (price_mode = 'mixed' AND price_points = 0"
            " AND price_fen > 0 AND points_min >= 0 AND points_max >= points_min"
            " AND points_max <= price_fen)",
            name=op.f("ck_products_price"),
        ),
        sa.CheckConstraint(
            "price_mode IN ('points', 'cash', 'mixed')", name=op.f("ck_products_price_mode")
        ),
        sa.CheckConstraint(
            "stock_on_hand >= 0 AND stock_reserved >= 0 AND stock_taken >= 0",
            name=op.f("ck_products_stock"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        sa.UniqueConstraint("sku", name=op.f("uq_products_sku")),
        **options,
    )
    op.create_table(
        "transitions",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("order_code", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=8), nullable=False),
        sa.Column("subject_no", sa.String(length=40), nullable=False),
        sa.Column("version", shop.db.BigInt, nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=16), nullable=False),
        sa.Column("fence", shop.db.BigInt, nullable=False),
        sa.Column("cause", sa.String(length=128), nullable=False),
        sa.Column("at", shop.db.UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "actor IN ('member', 'partner', 'gateway', 'sweeper', 'operator')",
            name=op.f("ck_transitions_actor"),
        ),
        sa.CheckConstraint("subject IN ('order', 'attempt')", name=op.f("ck_transitions_subject")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
        sa.UniqueConstraint(
            "subject",
            "subject_no",
            "version",
            name=op.f("uq_transitions_subject_subject_no_version"),
        ),
        **options,
    )
    with op.batch_alter_table("transitions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_transitions_order_code"), ["order_code"], unique=False)

    op.create_table(
        "cart_items",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("member_id", shop.db.BigInt, nullable=False),
        sa.Column("product_id", shop.db.BigInt, nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("added_at", shop.db.UtcDateTime(), nullable=False),
        sa.CheckConstraint("quantity BETWEEN 1 AND 99", name=op.f("ck_cart_items_quantity")),
        sa.ForeignKeyConstraint(
            ["member_id"], ["members.id"], name=op.f("fk_cart_items_member_id")
        ),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_cart_items_product_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cart_items")),
        sa.UniqueConstraint(
            "member_id", "product_id", name=op.f("uq_cart_items_member_id_product_id")
        ),
        **options,
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("transaction_id", shop.db.BigInt, nullable=False),
        sa.Column("account_id", shop.db.BigInt, nullable=False),
        sa.Column("amount", shop.db.BigInt, nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_ledger_entries_amount")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["ledger_accounts.id"], name=op.f("fk_ledger_entries_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
            name=op.f("fk_ledger_entries_transaction_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint(
            "transaction_id", "account_id", name=op.f("uq_ledger_entries_transaction_id_account_id")
        ),
        **options,
    )
    with op.batch_alter_table("ledger_entries", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_ledger_entries_account_id"), ["account_id"], unique=False
        )

    op.create_table(
        "orders",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("member_id", shop.db.BigInt, nullable=False),
        sa.Column("submit_token", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", shop.db.BigInt, nullable=False),
        sa.Column("lock_fence", shop.db.BigInt, nullable=False),
        sa.Column("points", shop.db.BigInt, nullable=False),
        sa.Column("amount_fen", shop.db.BigInt, nullable=False),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("expires_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("paid_at", shop.db.UtcDateTime(), nullable=True),
        sa.Column("closed_at", shop.db.UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('created', 'paying', 'paid', 'failed', 'refunding', 'refunded', 'closed')",
            name=op.f("ck_orders_state"),
        ),
        sa.CheckConstraint(
            "points >= 0 AND amount_fen >= 0 AND points + amount_fen > 0",
            name=op.f("ck_orders_amounts"),
        ),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_orders_member_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("code", name=op.f("uq_orders_code")),
        sa.UniqueConstraint(
            "member_id", "submit_token", name=op.f("uq_orders_member_id_submit_token")
        ),
        **options,
    )
    with op.batch_alter_table("orders", schema=None) as batch_op:
        batch_op.create_index(
            "ix_orders_member_id_created_at", ["member_id", "created_at"], unique=False
        )
        batch_op.create_index("ix_orders_state_expires_at", ["state", "expires_at"], unique=False)

    op.create_table(
        "stock_adjustments",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("product_id", shop.db.BigInt, nullable=False),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(length=96), nullable=False),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_stock_adjustments_product_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_adjustments")),
        sa.UniqueConstraint("cause", name=op.f("uq_stock_adjustments_cause")),
        **options,
    )
    with op.batch_alter_table("stock_adjustments", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_stock_adjustments_product_id"), ["product_id"], unique=False
        )

    op.create_table(
        "order_lines",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("order_id", shop.db.BigInt, nullable=False),
        sa.Column("product_id", shop.db.BigInt, nullable=False),
        sa.Column("name_zh", sa.String(length=80), nullable=False),
        sa.Column("name_en", sa.String(length=80), nullable=False),
        sa.Column("art", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("points", shop.db.BigInt, nullable=False),
        sa.Column("amount_fen", shop.db.BigInt, nullable=False),
        sa.CheckConstraint("points >= 0 AND amount_fen >= 0", name=op.f("ck_order_lines_amounts")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_lines_quantity")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_lines_order_id")),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name=op.f("fk_order_lines_product_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_lines")),
        **options,
    )
    with op.batch_alter_table("order_lines", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_order_lines_order_id"), ["order_id"], unique=False)

    op.create_table(
        "payment_attempts",
        sa.Column("id", shop.db.BigInt, nullable=False),
        sa.Column("order_id", shop.db.BigInt, nullable=False),
        sa.Column("order_code", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("out_trade_no", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", shop.db.BigInt, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("open_key", sa.String(length=32), nullable=True),
        sa.Column("settling_key", sa.String(length=32), nullable=True),
        sa.Column("amount_fen", shop.db.BigInt, nullable=False),
        sa.Column("points", shop.db.BigInt, nullable=False),
        sa.Column("transaction_id", sa.String(length=128), nullable=True),
        sa.Column("code_url", sa.Text(), nullable=True),
        sa.Column("fault_code", sa.String(length=64), nullable=True),
        sa.Column("due_at", shop.db.UtcDateTime(), nullable=True),
        sa.Column("asked_count", sa.Integer(), nullable=False),
        sa.Column("created_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("expires_at", shop.db.UtcDateTime(), nullable=False),
        sa.Column("paid_at", shop.db.UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "(role = 'settling' AND state = 'succeeded'"
            " AND settling_key IS NOT NULL AND settling_key = order_code)"
            " OR (role = 'surplus' AND state = 'succeeded'"
            " AND settling_key IS NULL) OR (role = 'none' AND state <> 'succeeded'"
            " AND settling_key IS NULL)",
            name=op.f("ck_payment_attempts_role"),
        ),
        sa.CheckConstraint(
            "(state IN ('opening', 'pending') AND open_key IS NOT NULL"
            " AND open_key = order_code) OR (state NOT IN ('opening', 'pending')"
            " AND open_key IS NULL)",
            name=op.f("ck_payment_attempts_open_key"),
        ),
        sa.CheckConstraint(
            "channel IN ('points', 'wechatpay', 'alipay')", name=op.f("ck_payment_attempts_channel")
        ),
        sa.CheckConstraint(
            "state IN ('opening', 'pending', 'failed', 'closed', 'succeeded')",
            name=op.f("ck_payment_attempts_state"),
        ),
        sa.CheckConstraint(
            "amount_fen >= 0 AND points >= 0", name=op.f("ck_payment_attempts_amounts")
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_payment_attempts_order_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_attempts")),
        sa.UniqueConstraint(
            "channel", "transaction_id", name=op.f("uq_payment_attempts_channel_transaction_id")
        ),
        sa.UniqueConstraint("open_key", name="uq_payment_attempts_open_key"),
        sa.UniqueConstraint("out_trade_no", name=op.f("uq_payment_attempts_out_trade_no")),
        sa.UniqueConstraint("settling_key", name="uq_payment_attempts_settling_key"),
        **options,
    )
    with op.batch_alter_table("payment_attempts", schema=None) as batch_op:
        batch_op.create_index("ix_payment_attempts_due_at", ["due_at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_payment_attempts_order_code"), ["order_code"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_payment_attempts_order_id"), ["order_id"], unique=False
        )


def downgrade() -> None:
    # Each table takes its indexes along: MariaDB drops no index that a foreign key stands on.
    for table in (
        "payment_attempts",
        "order_lines",
        "stock_adjustments",
        "orders",
        "ledger_entries",
        "cart_items",
        "transitions",
        "products",
        "payment_requests",
        "notices",
        "members",
        "ledger_transactions",
        "ledger_accounts",
    ):
        op.drop_table(table)
