"""How templates write amounts, moments and names."""

import hashlib
import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import segno
from flask import Flask, current_app, url_for
from flask_babel import format_datetime, format_decimal, get_locale, ngettext
from markupsafe import Markup

from shop.money import yuan_text

QR_BORDER = 2
_ART_NAME = re.compile(r"[a-z0-9-]{1,32}")


def yuan(amount_fen: int) -> str:
    """`¥1,234.50`"""
    whole, cents = yuan_text(amount_fen).split(".")
    return f"¥{int(whole):,}.{cents}"


def number(value: int) -> str:
    """`12,000`"""
    return str(format_decimal(value))


def points(value: int) -> str:
    """`12,000 points`, in the page's language."""
    return str(ngettext("%(number)s point", "%(number)s points", value, number=number(value)))


def moment(at: datetime) -> str:
    """Day and time in China."""
    return str(format_datetime(at, "medium"))


def name(thing: Any) -> str:
    """A product's or an order line's name in the page's language."""
    return str(thing.name_zh if _chinese() else thing.name_en)


def description(product: Any) -> str:
    """A product's description in the page's language."""
    return str(product.description_zh if _chinese() else product.description_en)


def asset(filename: str) -> str:
    """The address of a static file, new whenever its content is."""
    folder = Path(current_app.static_folder or "")
    file = folder / filename
    return url_for("static", filename=filename, v=_digest(file, file.stat().st_mtime_ns))


def art_asset(art: str) -> str:
    """The address of a picture of goods; a parcel where there is none of that name."""
    file = Path(current_app.static_folder or "") / "art" / f"{art}.svg"
    known = _ART_NAME.fullmatch(art) is not None and file.is_file()
    return asset(f"art/{art}.svg" if known else "art/parcel.svg")


def qr_svg(text: str) -> Markup:
    """A QR code as inline SVG, without a style attribute (the page's policy forbids them)."""
    code = segno.make(text, error="m", micro=False)
    # Safe to mark as such: segno draws `text` as modules, none of its characters is in the SVG.
    return Markup(  # noqa: S704
        code.svg_inline(
            border=QR_BORDER, omitsize=True, svgclass="qr-code", lineclass=None, dark="#14201b"
        )
    )


def fresh_uuid() -> str:
    """A key or token that nobody had before (RFC 9562, version 4)."""
    return str(uuid4())


def init_filters(app: Flask) -> None:
    """Give them to all templates."""
    for function in (yuan, number, points, moment, name, description, qr_svg):
        app.add_template_filter(function)
    app.add_template_global(asset)
    app.add_template_global(art_asset)
    app.add_template_global(fresh_uuid)


@lru_cache(maxsize=256)
def _digest(file: Path, _changed_ns: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _chinese() -> bool:
    return str(get_locale()).startswith("zh")
