"""The order of a queue in ZooKeeper is that of its sequence numbers."""

from locks.on_zookeeper.queue import queue_of


def _name(key: str, token: str, sequence: int) -> str:
    # As the server writes it: ten digits, and a sign when the counter has gone round.
    return f"{key}~{token}-{sequence:010d}"


def _tokens(key: str, names: list[str]) -> list[str]:
    return [place.token for place in queue_of(key, names)]


def test_a_queue_is_in_the_order_of_the_sequence_and_not_of_the_names() -> None:
    names = [_name("order", "a", 30), _name("order", "b", 4), _name("order", "c", 200)]
    assert _tokens("order", names) == ["b", "a", "c"]


def test_only_the_key_s_own_nodes_are_in_its_queue() -> None:
    names = [_name("order-1", "a", 1), _name("order", "b", 2), _name("rder", "c", 3), "stray"]
    assert _tokens("order", names) == ["b"]
    assert _tokens("order-1", names) == ["a"]


def test_the_order_holds_when_the_server_s_counter_is_full_and_starts_again_below_zero() -> None:
    before, after = 2**31 - 1, -(2**31)
    names = [
        _name("order", "third", after),
        _name("order", "fourth", after + 1),
        _name("order", "first", before - 1),
        _name("order", "second", before),
    ]
    assert _tokens("order", names) == ["first", "second", "third", "fourth"]
    assert _tokens("order", names[::-1]) == ["first", "second", "third", "fourth"]


def test_the_order_holds_when_the_counter_comes_from_below_zero_to_zero() -> None:
    names = [_name("order", "second", 0), _name("order", "first", -1)]
    assert _tokens("order", names) == ["first", "second"]


def test_what_the_server_did_not_number_for_us_is_in_no_queue() -> None:
    foreign = ["order~x", "order~x-12x", "order~-0000000001", "order~a-9999999999"]
    foreign += ["order~a-0000000001\n", "order~a-٠٠٠٠٠٠٠٠٠١", "order~a~b-0000000001"]
    assert _tokens("order", [*foreign, _name("order", "ours", 7)]) == ["ours"]
