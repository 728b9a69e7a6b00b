"""Run as a program: mounts a file system of a given type, and says what the file lock thinks of it.

    unshare --mount python -m tests.integration.foreign_mount fuse.sshfs FOLDER

The type is real to the kernel, which shows it in /proc/self/mountinfo; what serves it is this
process, by the few answers that a look at the mount's root needs (the kernel's fuse.h; Linux
Documentation/filesystems/fuse). Ends with status 77 where the host does not let us mount.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from pathlib import Path

from locks import LockConfigError, LockUnavailable, from_url
from locks.on_files.lock import FileLock

NO_MOUNT = 77
# mount(2), umount2(2)
MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2
# Requests of fuse.h that we know.
LOOKUP, GETATTR, INIT = 1, 3, 26
REQUEST = struct.Struct("<IIQQ")
REPLY = struct.Struct("<IiQ")
REQUEST_BYTES = 1 << 20
# struct fuse_init_out of protocol 7.31, struct fuse_attr_out of a folder.
INIT_REPLY = struct.pack("<IIIIHHIIHHI28x", 7, 31, 65_536, 0, 0, 0, 65_536, 0, 0, 0, 0)
VALIDITY = struct.pack("<QII", 1, 0, 0)
NUMBER_SIZE_AND_TIMES = struct.pack("<6Q3I", 1, 0, 0, 0, 0, 0, 0, 0, 0)
MODE_AND_OWNER = struct.pack("<7I", 0o40755, 2, 0, 0, 0, 4_096, 0)
ROOT_ATTRIBUTES = VALIDITY + NUMBER_SIZE_AND_TIMES + MODE_AND_OWNER


def mount(kind: str, folder: Path) -> int:
    """Mount it; gives the descriptor by which the kernel asks. Raises OSError."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    words = [word.encode() for word in ("host:/share", str(folder), kind, options)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*words[:3], MS_NOSUID | MS_NODEV, words[3]):
        raise OSError(ctypes.get_errno(), "mount")
    return device


def serve(device: int) -> None:
    """Answer the kernel until the mount ends."""
    while True:
        try:
            _, operation, number, _ = REQUEST.unpack_from(os.read(device, REQUEST_BYTES))
        except OSError:
            return
        error, body = errno.ENOSYS, b""
        if operation == INIT:
            error, body = 0, INIT_REPLY
        elif operation == GETATTR:
            error, body = 0, ROOT_ATTRIBUTES
        elif operation == LOOKUP:
            error = errno.ENOENT
        os.write(device, REPLY.pack(REPLY.size + len(body), -error, number) + body)


def say_what_is_refused(folder: Path) -> None:
    """One line for each way in."""
    try:
        from_url(f"file://{folder}")
    except LockConfigError as error:
        print(f"URL: {error}")
    lock = FileLock(folder)
    for name, use in (
        ("ping", lock.ping),
        ("acquire", lambda: lock.acquire("key", lease_ms=1_000, wait_ms=0)),
        ("held", lock.held),
    ):
        try:
            use()
        except LockUnavailable as error:
            print(f"{name}: {error}")


def main(kind: str, folder: str) -> None:
    """Mount, look, unmount."""
    try:
        device = mount(kind, Path(folder))
    except OSError as error:
        print(error)
        sys.exit(NO_MOUNT)
    threading.Thread(target=serve, args=(device,), daemon=True).start()
    try:
        say_what_is_refused(Path(folder) / "locks")
    finally:
        ctypes.CDLL(None).umount2(folder.encode(), MNT_DETACH)


if __name__ == "__main__":
    main(*sys.argv[1:])
