"""A real mount of a file system that several hosts may share is refused, in words that say why."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.foreign_mount import NO_MOUNT
from tests.integration.locks_support import ROOT
from tests.processes import find_program


def _said(kind: str, folder: Path) -> list[str]:
    """What the lock said of a mount of this type, in a mount namespace of its own."""
    program = [sys.executable, "-m", "tests.integration.foreign_mount", kind, str(folder)]
    child = subprocess.run(
        [find_program("unshare"), "--mount", *program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if child.returncode == NO_MOUNT or "unshare failed" in child.stderr:
        pytest.skip(f"This host lets us mount nothing: {child.stdout}{child.stderr}")
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_every_way_into_a_shared_folder_is_refused_by_its_name_and_type(tmp_path: Path) -> None:
    said = _said("fuse.sshfs", tmp_path)
    assert [line.partition(":")[0] for line in said] == ["URL", "ping", "acquire", "held"]
    assert all(f"{tmp_path}/locks" in line and "fuse.sshfs" in line for line in said)


def test_a_local_file_system_of_the_same_kind_passes_this_test(tmp_path: Path) -> None:
    said = _said("fuse.fuse-overlayfs", tmp_path)
    # This one serves nothing, so the folder cannot be made; but that is another complaint.
    assert [line.partition(":")[0] for line in said] == ["ping", "acquire", "held"]
    assert not any("several hosts" in line for line in said)
