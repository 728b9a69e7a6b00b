"""An exception from a signal's handler, wherever it strikes, leaves no key of the files locked."""

import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from locks.on_files.bell import Bells
from locks.on_files.key_file import OpenedKey
from tests import strikes

PATIENCE_S = 30.0


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


def test_a_handler_may_close_what_it_has_interrupted(tmp_path: Path) -> None:
    def close_at_every_step() -> None:
        for step in count(1):
            bells = Bells(tmp_path)

            def use(bells: Bells = bells) -> None:
                bells.put_back(bells.fresh())

            was_struck = strikes.strike(step, use, "on_files", bells.close)
            bells.close()
            if not was_struck:
                done.append(step)
                break

    done: list[int] = []
    thread = threading.Thread(target=close_at_every_step, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert done, "it waits for itself"
    assert done[0] > 10
    assert not list(tmp_path.iterdir())
