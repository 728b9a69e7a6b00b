"""Where a sign-in may lead: back into the shop, and nowhere else."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.pages.local_urls import local_path


@pytest.mark.parametrize("target", ["/", "/orders", "/orders?page=2", "/goods/a%20b#top"])
def test_a_page_of_ours_is_kept(target: str) -> None:
    assert local_path(target, "/home") == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "orders",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "http:/evil.example",
    ],
)
def test_anything_else_leads_home(target: str | None) -> None:
    assert local_path(target, "/home") == "/home"


@given(st.text(alphabet="/\\:.@ \t\n?#[]evilhtps%", max_size=30))
def test_no_text_leads_to_another_host(target: str) -> None:
    # A browser drops tabs and line ends and reads a backslash as a slash.
    found = local_path(target, "/home")
    read = "".join(sign for sign in found if sign not in "\t\r\n").replace("\\", "/")
    assert urlsplit(urljoin("https://shop.example/sign-in", read)).netloc == "shop.example"
