"""L1 and L2 (DESIGN section 3): with them a race ends well, without them the books break.

The lock says yes to everybody here. L1 is shown on databases where a reader does not keep writers
out; SQLite runs every writing transaction alone from its first read.
"""

import pytest

from shop.errors import Superseded
from tests.faults.conftest import KitMaker
from tests.faults.guard_support import GuardedShop, drop_unique, guarded_shop
from tests.faults.weak_moves import (
    MovesWithoutFenceGuard,
    MovesWithoutStateGuard,
    RacedMoves,
)
from tests.shopkit import ShopKit, order_state

pytestmark = pytest.mark.faults

VERSIONS = ("transitions", "uq_transitions_subject_subject_no_version")


@pytest.fixture(params=["postgresql-files", "mariadb-files"])
def kit(request: pytest.FixtureRequest, make_kit: KitMaker) -> ShopKit:
    return make_kit(request.param)


@pytest.fixture(params=["sqlite-files", "postgresql-files", "mariadb-files"])
def any_kit(request: pytest.FixtureRequest, make_kit: KitMaker) -> ShopKit:
    return make_kit(request.param)


def cancelled_while_being_paid(shop: GuardedShop) -> str:
    """Two hold one order. Both read `created`; the first closes it, then the second pays it."""
    code = shop.order(points=500, amount_fen=0)
    first = shop.claim(code)
    shop.rival.will(lambda: shop.close_by(first, code))
    shop.pay(code, "points")
    return code


def assert_second_racer_is_refused(kit: ShopKit, moves: type[RacedMoves]) -> None:
    with guarded_shop(kit, moves) as shop:
        with pytest.raises(Superseded) as refused:
            cancelled_while_being_paid(shop)
        assert order_state(refused.value.fields["order_code"]) == "closed"
        assert kit.broken() == []


def test_l1_refuses_the_second_of_two_racers_and_without_it_a_closed_order_is_paid(
    kit: ShopKit,
) -> None:
    assert_second_racer_is_refused(kit, RacedMoves)
    # L1 has a shadow in the database: of one version of an order only one move can be recorded.
    assert_second_racer_is_refused(kit, MovesWithoutStateGuard)
    drop_unique(kit.database_url, *VERSIONS)
    assert_second_racer_is_refused(kit, RacedMoves)
    with guarded_shop(kit, MovesWithoutStateGuard) as shop:
        code = cancelled_while_being_paid(shop)
        assert order_state(code) == "paid"
        assert any(line.startswith(f"I5 {code}") for line in kit.broken())


def closed_by_a_stale_holder(shop: GuardedShop) -> str:
    """One holder freezes before its first write; a later one begins to pay; the first wakes, reads
    what is there now, and closes the order."""
    code = shop.order()
    stale = shop.claim(code)
    shop.pay(code, "wechatpay")
    shop.close_by(stale, code)
    return code


def test_l2_refuses_a_holder_that_woke_too_late_and_without_it_the_fence_falls(
    any_kit: ShopKit,
) -> None:
    with guarded_shop(any_kit) as shop:
        with pytest.raises(Superseded) as refused:
            closed_by_a_stale_holder(shop)
        assert order_state(refused.value.fields["order_code"]) == "paying"
        assert any_kit.broken() == []
    with guarded_shop(any_kit, MovesWithoutFenceGuard) as shop:
        code = closed_by_a_stale_holder(shop)
        assert order_state(code) == "closed"
        assert any("fence fell" in line and code in line for line in any_kit.broken())
