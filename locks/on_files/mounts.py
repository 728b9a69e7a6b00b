"""Which file system a folder lies on, and whether locks on it can be right.

The files of this lock serve the processes of one kernel: they name processes by PID, count by this
kernel's clock and wake each other through its pipes. On a file system that several hosts share,
each host would take the others' holders for dead.
"""

import os
import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

# The types by which Linux mounts what several hosts, or a host and its virtual machines, may share
# (proc_pid_mountinfo(5); for FUSE the type after "fuse." is the program's).
SHARED_TYPES = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf"),
    *("virtiofs", "vmhgfs", "fuse.beegfs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.ceph"),
    *("fuse.ceph-fuse", "fuse.curlftpfs", "fuse.cvmfs2", "fuse.davfs", "fuse.gcsfuse"),
    *("fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs", "fuse.mfs"),
    *("fuse.mount-s3", "fuse.osxfs", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs"),
    *("fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse", "fuse.weed"),
}
# White space and backslashes in a path are written as three octal digits.
_ESCAPED = re.compile(r"\\([0-7]{3})")


def shared_type(folder: Path, mountinfo: Path = MOUNTINFO) -> str | None:
    """The type of the file system of `folder` if several hosts may share it; else None.

    None too where the kernel does not tell. The folder need not exist yet.
    """
    try:
        text = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    # Not Path.resolve, which raises RuntimeError for links that lead round.
    found = type_of(Path(os.path.realpath(folder)), text)
    return found if found in SHARED_TYPES else None


def type_of(folder: Path, mountinfo: str) -> str | None:
    """The type of the last mount on the longest path that `folder` lies under."""
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        if not separator or len(fields) < 6:
            continue
        point = Path(_unescaped(fields[4]))
        depth = len(point.parts)
        # A later mount on the same path hides the earlier one.
        if folder.is_relative_to(point) and (best is None or depth >= best[0]):
            best = depth, kind
    return best[1] if best else None


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)
