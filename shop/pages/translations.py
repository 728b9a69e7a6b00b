"""Compiling the message catalogues: `.po` is in the repository, `.mo` is made from it at start."""

import os
import tempfile
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

FOLDER = Path(__file__).resolve().parents[1] / "translations"


def compile_translations(folder: Path = FOLDER) -> list[Path]:
    """Compile each catalogue that has no `.mo` newer than it; gives those it made.

    Safe to run in several processes at once: each file appears whole or not at all. Raises OSError
    where the folder cannot be written.
    """
    made = []
    for source in sorted(folder.glob("*/LC_MESSAGES/messages.po")):
        target = source.with_suffix(".mo")
        if target.exists() and target.stat().st_mtime_ns > source.stat().st_mtime_ns:
            continue
        with source.open("rb") as file:
            catalogue = read_po(file, locale=source.parents[1].name, abort_invalid=True)
        handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".messages-")
        with os.fdopen(handle, "wb") as file:
            write_mo(file, catalogue)
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
        made.append(target)
    return made
