"""What the tests of L1, L2 and L3 share: a shop whose lock says yes to everybody."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine

from shop.clock import SystemClock
from shop.locking.service import begin_first
from shop.locking.store import current_epoch
from shop.orders.moves import Claim, Moves
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.service import close_order
from shop.wiring import Parts, build_parts
from tests.faults.weak_moves import RacedMoves, Rival
from tests.faults.yes_lock_wsgi import YesLock
from tests.shopkit import ShopKit, make_member, make_order, make_product


@dataclass(frozen=True, kw_only=True)
class GuardedShop:
    """One shop inside the test, its rival, and a lock that excludes nobody."""

    kit: ShopKit
    parts: Parts
    rival: Rival
    member_id: int
    product_id: int

    def order(self, *, points: int = 100, amount_fen: int = 900) -> str:
        """A new order of the member."""
        return make_order(
            self.parts, self.member_id, self.product_id, points=points, amount_fen=amount_fen
        )

    def claim(self, code: str) -> Claim:
        """A lease on the order, with a fence above all given before."""
        begin_first(self.parts.lock, self.parts.clock)
        epoch = current_epoch()
        assert epoch is not None
        lease = self.parts.lock.acquire(code, lease_ms=15_000, wait_ms=0)
        return Claim(lease=lease, epoch=epoch.number, fence=lease.fence, actor="member")

    def pay(self, code: str, channel: str) -> PaymentView:
        """Pay as the member."""
        return self.parts.payments.pay(
            PayCommand(member_id=self.member_id, order_code=code, channel=channel)
        )

    def close_by(self, claim: Claim, code: str) -> None:
        """What a cancellation does once it has the lease."""
        close_order(self.parts.desk, claim, code, cause="cancelled by the member")


@contextmanager
def guarded_shop(
    kit: ShopKit, moves: type[RacedMoves] = RacedMoves, lock: YesLock | None = None
) -> Iterator[GuardedShop]:
    """The shop with these moves."""
    rival = Rival()
    wired: Moves = moves(SystemClock(), rival)
    parts = build_parts(kit.settings, lock=lock or YesLock(), moves=wired)
    with kit.app(parts):
        yield GuardedShop(
            kit=kit,
            parts=parts,
            rival=rival,
            member_id=make_member(parts),
            product_id=make_product(parts),
        )


def drop_unique(database_url: str, table: str, constraint: str) -> None:
    """Take a unique constraint out of this one database, by the means of migrations."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table(table) as batch:
            batch.drop_constraint(constraint, type_="unique")
        connection.commit()
    engine.dispose()
