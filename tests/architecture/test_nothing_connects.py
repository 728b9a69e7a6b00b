"""Importing makes no connection, starts no thread and needs no configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, modules
from tests.processes import remove_folder
from tests.shopkit import Sandbox

# These make an application; the shop's is looked at below.
MAKE_AN_APPLICATION = {"wsgi", "sandbox.wsgi"}
# Read by gunicorn, not imported.
NOT_IMPORTED = {"config.gunicorn.conf"}

# Refuses every use of a socket that reaches beyond this process, and says what it was.
WATCH = """
import importlib, json, os, sys, threading

def watch(event, arguments):
    if event in {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}:
        raise RuntimeError(f"{event} {arguments[1:]}")

sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps({"threads": threading.active_count(), "modules": len(sys.modules)}))
"""


def run(names: list[str], env: dict[str, str], folder: Path) -> dict[str, int]:
    """Import these in a process of its own; what it says at the end."""
    found = subprocess.run(
        [sys.executable, "-c", WATCH, json.dumps(names)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    answer: dict[str, int] = json.loads(found.stdout.splitlines()[-1])
    return answer


def test_every_module_can_be_imported_with_nothing_configured_and_nothing_running(
    tmp_path: Path,
) -> None:
    names = sorted({module.name for module in modules()} - MAKE_AN_APPLICATION - NOT_IMPORTED)
    assert len(names) > 100
    assert run(names, {}, tmp_path)["threads"] == 1
    assert list(tmp_path.iterdir()) == []


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    (tmp_path / "connects.py").write_text(
        "import socket\nsocket.socket().connect(('127.0.0.1', 9))\n"
    )
    with pytest.raises(AssertionError, match=r"socket\.connect"):
        run(["connects"], {"PYTHONPATH": str(tmp_path)}, tmp_path)


@pytest.mark.parametrize(
    ("database_url", "lock_url"),
    [
        ("postgresql+psycopg://nobody@127.0.0.1:9/nothing", "redis://127.0.0.1:9/0"),
        ("mysql+pymysql://nobody@127.0.0.1:9/nothing", "zookeeper://127.0.0.1:9/shop"),
        ("sqlite:////nowhere/shop.db", "file:///nowhere/locks"),
    ],
)
def test_the_application_is_made_with_none_of_its_services_there(
    database_url: str, lock_url: str, tmp_path: Path
) -> None:
    sandbox = Sandbox()
    env = {
        **sandbox.merchant_env,
        "DATABASE_URL": database_url,
        "LOCK_URL": lock_url,
        "SECRET_KEY": "test-secret-key-of-32-characters-or-more",
        "PUBLIC_URL": "http://127.0.0.1:9",
    }
    assert run(["wsgi"], env, tmp_path)["threads"] == 1
    remove_folder(sandbox.folder)
