"""Every sentence of the shop is there in Chinese, with the same places in it."""

import gettext
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po

from shop.pages.translations import FOLDER, compile_translations

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = FOLDER / "zh" / "LC_MESSAGES" / "messages.po"
KEYWORDS = {
    "_": None,
    "_l": None,
    "gettext": None,
    "lazy_gettext": None,
    "ngettext": (1, 2),
}
_PLACES = re.compile(r"%\(\w+\)s|\{\w+\}")


def sentences() -> set[str]:
    """All that the code, the templates and the error family say."""
    parse: Callable[[IO[str]], tuple[Any, Any]] = parse_mapping_cfg
    with (ROOT / "babel.cfg").open() as file:
        methods, options = parse(file)
    found = extract_from_dir(
        ROOT / "shop", method_map=methods, options_map=options, keywords=KEYWORDS
    )
    return {message if isinstance(message, str) else message[0] for _, _, message, _, _ in found}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="zh", abort_invalid=True)


def test_every_sentence_has_its_chinese(catalogue: Catalog) -> None:
    said = sentences()
    assert {"Paid. Thank you!", "You are not signed in.", "Sign in first."} <= said
    untranslated = [one for one in sorted(said) if not _chinese(catalogue, one)]
    assert untranslated == []


def test_nothing_is_translated_that_nobody_says(catalogue: Catalog) -> None:
    known = {one.id if isinstance(one.id, str) else one.id[0] for one in catalogue if one.id}
    assert sorted(known - sentences()) == []


def test_no_translation_loses_or_invents_a_place(catalogue: Catalog) -> None:
    for message in catalogue:
        if not message.id:
            continue
        english = message.id if isinstance(message.id, str) else message.id[-1]
        places = set(_PLACES.findall(english))
        for chinese in _strings(message):
            assert set(_PLACES.findall(chinese)) == places, english


def test_a_catalogue_is_compiled_when_it_is_missing_or_older_and_only_then(tmp_path: Path) -> None:
    folder = tmp_path / "zh" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "messages.po").write_bytes(CATALOGUE.read_bytes())
    compiled = folder / "messages.mo"
    assert compile_translations(tmp_path) == [compiled]
    assert compile_translations(tmp_path) == []
    with compiled.open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("Cart") == "购物车"
    compiled.unlink()
    assert compile_translations(tmp_path) == [compiled]


def _chinese(catalogue: Catalog, sentence: str) -> bool:
    message = catalogue.get(sentence)
    return message is not None and all(_strings(message)) and bool(_strings(message))


def _strings(message: Message) -> list[str]:
    """The translation, or its plural forms."""
    if isinstance(message.string, str):
        return [message.string]
    return list(message.string or ())
