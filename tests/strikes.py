"""Exceptions of a signal's handler, struck at every place in turn where Python lets one strike."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Struck(Exception):
    """What the handler raises."""


def strike(step: int, work: Callable[[], object], folder: str) -> bool:
    """Do the work, with an exception at the step of this number in code of `folder`.

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
                raise Struck

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    except Struck:
        pass
    finally:
        sys.setprofile(before)
    return left <= 0
