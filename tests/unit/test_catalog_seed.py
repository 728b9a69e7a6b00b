"""The demo shop's goods are complete: each with its picture, in both languages, at every price."""

from pathlib import Path

import pytest

from shop.catalog.models import PriceMode
from shop.commands.seed_data import DEMO_PRODUCTS

ART = Path(__file__).resolve().parents[2] / "shop" / "static" / "art"


@pytest.mark.parametrize("values", DEMO_PRODUCTS, ids=lambda values: str(values["sku"]))
def test_each_has_its_picture_and_both_languages(values: dict[str, str | int]) -> None:
    assert (ART / f"{values['art']}.svg").is_file()
    for text in ("name", "description"):
        assert any("\u4e00" <= sign <= "\u9fff" for sign in str(values[f"{text}_zh"]))
        assert str(values[f"{text}_en"]).strip()


def test_no_two_share_a_number_or_a_picture() -> None:
    for field in ("sku", "art", "name_zh", "name_en"):
        assert len({values[field] for values in DEMO_PRODUCTS}) == len(DEMO_PRODUCTS)


def test_every_kind_of_price_is_there_and_some_goods_can_be_had_for_points_alone() -> None:
    assert {values["price_mode"] for values in DEMO_PRODUCTS} == {mode.value for mode in PriceMode}
    assert any(values.get("points_max") == values.get("price_fen", -1) for values in DEMO_PRODUCTS)
