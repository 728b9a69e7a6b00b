"""The shop's state charts: orders and payment attempts, and nothing else (no I/O, no Flask).

The library python-statemachine imports under this very name. `extend_path` joins its folder to
ours, ours first, so that `statemachine.order` is ours and `statemachine.statemachine` is the
library's. None of our modules may bear the name of one of the library's; a test compares them.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from statemachine.state import State
from statemachine.statemachine import StateChart

__all__ = ["State", "StateChart"]
