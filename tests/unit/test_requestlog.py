"""What the logs must not say."""

import subprocess
import sys

_LOG_A_FAULT = """
import structlog
from shop.requestlog import configure_logging

configure_logging("INFO")

def fail(password):
    key = password.upper()
    raise RuntimeError("the books are away")

try:
    fail("correct horse")
except RuntimeError:
    structlog.get_logger().exception("database_unavailable")
"""


def test_a_logged_traceback_names_its_frames_and_none_of_their_variables() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _LOG_A_FAULT], capture_output=True, text=True, check=True
    )
    assert "the books are away" in run.stderr
    assert '"name": "fail"' in run.stderr
    assert "correct horse" not in run.stderr
    assert "CORRECT HORSE" not in run.stderr
