"""Who asks: the header counts from the proxies that are named, and from nobody else."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.proxies import ForwardedFor

PROXIES = "10.0.0.0/8, 2001:db8:1::/48"
addresses = st.ip_addresses()


def client(peer: str, forwarded: str, proxies: str = PROXIES) -> str:
    def never(_environ: object, _start: object) -> list[bytes]:
        raise AssertionError

    return ForwardedFor(never, proxies).client(peer, forwarded)


@given(forwarded=st.text(max_size=60), peer=addresses)
def test_without_a_named_proxy_the_header_changes_nothing(
    forwarded: str, peer: IPv4Address | IPv6Address
) -> None:
    assert client(str(peer), forwarded, proxies="") == client(str(peer), "", proxies="")
    assert client("192.0.2.9", forwarded) == "192.0.2.9"


@given(
    invented=st.lists(addresses, max_size=3),
    payer=addresses.filter(lambda one: one.version == 6 or not str(one).startswith("10.")),
    hops=st.lists(st.sampled_from(["10.0.0.5", "2001:db8:1::5", "::ffff:10.0.0.6"]), max_size=3),
)
def test_behind_named_proxies_it_is_who_asked_the_first_of_them(
    invented: list[IPv4Address | IPv6Address],
    payer: IPv4Address | IPv6Address,
    hops: list[str],
) -> None:
    shown = client(str(payer), "", proxies="")
    forwarded = ", ".join([*map(str, invented), str(payer), *hops])
    if not shown.startswith(("2001:db8:1:", "10.")):
        assert client("10.0.0.1", forwarded) == shown


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "found"),
    [
        ("10.0.0.1", "203.0.113.7", PROXIES, "203.0.113.7"),
        ("10.0.0.1", "192.0.2.66, 203.0.113.7", PROXIES, "203.0.113.7"),
        ("10.0.0.1", "2001:db8::7, 10.0.0.2", PROXIES, "2001:db8::7"),
        ("10.0.0.1", "", PROXIES, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, nobody", PROXIES, "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth0", PROXIES, "10.0.0.1"),
        ("198.51.100.1", "192.0.2.66, 203.0.113.7", "*", "203.0.113.7"),
        ("::ffff:198.51.100.1", "", PROXIES, "198.51.100.1"),
        ("", "203.0.113.7", PROXIES, ""),
    ],
)
def test_each_entry_is_believed_from_who_added_it(
    peer: str, forwarded: str, proxies: str, found: str
) -> None:
    assert client(peer, forwarded, proxies) == found
