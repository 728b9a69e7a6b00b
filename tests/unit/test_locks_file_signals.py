"""An exception from a signal's handler, wherever it strikes, leaves no key of the files locked."""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from locks.on_files.key_file import OpenedKey


class Struck(Exception):
    """What the handler raises."""


def strike(step: int, work: Callable[[], None]) -> bool:
    """Do the work, with an exception before its line number `step`; False if it has fewer."""
    left = step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "on_files" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Struck
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Struck:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_guard_ends_wherever_an_exception_strikes(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def look() -> None:
        with OpenedKey(path, tmp_path, create=True, patience_s=0):
            pass

    for step in count(1):
        struck = strike(step, look)
        with OpenedKey(path, tmp_path, create=True, patience_s=0) as key:
            assert key is not None, f"locked for ever by an exception before line {step}"
        if not struck:
            break
    assert step > 10
