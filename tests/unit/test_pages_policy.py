"""The pages keep the policy that their headers announce: all style and script in our own files."""

import re
from pathlib import Path

import pytest

from shop.pages.filters import qr_svg
from shop.pages.security import CONTENT_SECURITY_POLICY

SHOP = Path(__file__).resolve().parents[2] / "shop"
TEMPLATES = sorted((SHOP / "templates").rglob("*.html"))
PICTURES = sorted((SHOP / "static").rglob("*.svg"))
STYLES = sorted((SHOP / "static").rglob("*.css")) + sorted((SHOP / "static").rglob("*.js"))
_OUTSIDE = re.compile(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE)


def test_there_is_something_to_look_at() -> None:
    assert len(TEMPLATES) > 8
    assert len(PICTURES) > 8
    assert len(STYLES) > 3


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_inline_style_or_script(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:", text, re.IGNORECASE)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not _OUTSIDE.search(text)


@pytest.mark.parametrize("file", [*PICTURES, *STYLES], ids=lambda path: path.name)
def test_no_picture_style_or_script_reaches_outside(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not _OUTSIDE.search(text)
    assert "@import" not in text


def test_the_qr_code_obeys_the_policy_too() -> None:
    svg = str(qr_svg("weixin://wxpay/bizpayurl?pr=<&\"'>"))
    assert "<svg" in svg
    assert "style" not in svg
    assert "wxpay" not in svg


def test_the_policy_allows_nothing_inline_and_nothing_foreign() -> None:
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_changes_something_carries_the_token(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", text, re.DOTALL):
        assert "csrf" in form
