"""A signal's handler, called at every place in turn where Python may call one."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Struck(Exception):
    """What the handler raises."""


def _raise() -> None:
    raise Struck


def strike(
    step: int, work: Callable[[], object], folder: str, handler: Callable[[], object] = _raise
) -> bool:
    """Do the work, and call the handler at the step of this number in code of `folder`.

    CPython calls a signal's handler when a function begins and when a call of C code is over: the
    two events of a profiler that are counted here. Gives False if there are fewer steps.
    """
    left = step

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and folder in frame.f_code.co_filename:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                handler()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    except Struck:
        pass
    finally:
        sys.setprofile(before)
    return left <= 0
