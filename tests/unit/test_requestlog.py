"""What the logs must not say, and that all of them are JSON."""

import json
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


_LOG_BY_LIBRARIES = """
import logging
from shop.requestlog import configure_logging

configure_logging("INFO")
configure_logging("INFO")
logging.getLogger("kazoo.client").warning("Connection dropped: %s", "socket\\nclosed")
logging.getLogger("kazoo.client").info("said too often")
logging.getLogger("redis").warning("a cluster without %r", {"slots": 3})
try:
    password = "correct horse"
    raise RuntimeError("the pool is empty")
except RuntimeError:
    logging.getLogger("sqlalchemy.pool").exception("not returned")
"""


def test_what_libraries_log_is_json_too_once_each_and_without_variables() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _LOG_BY_LIBRARIES], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [(one["logger"], one["level"], one["event"]) for one in lines] == [
        ("kazoo.client", "warning", "Connection dropped: socket\nclosed"),
        ("redis", "warning", "a cluster without {'slots': 3}"),
        ("sqlalchemy.pool", "error", "not returned"),
    ]
    assert "the pool is empty" in run.stderr
    assert "correct horse" not in run.stderr
    assert all("timestamp" in one for one in lines)
