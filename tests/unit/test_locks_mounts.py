"""Which folders the file lock refuses: those that several hosts may share."""

from pathlib import Path

import pytest

from locks.on_files.mounts import MOUNTINFO, shared_type, type_of

# Lines as kernels write them, of a host with every kind of mount.
LINES = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue
41 27 0:38 / /home rw,relatime shared:21 - nfs4 filer:/home rw,vers=4.2,proto=tcp,addr=10.0.0.7
42 27 0:39 / /srv/old rw,relatime shared:22 - nfs filer:/old rw,vers=3,hard,addr=10.0.0.7
43 27 0:40 / /srv/win rw,relatime shared:23 - cifs //nas/share rw,vers=3.1.1,username=shop
44 27 0:41 / /srv/azure rw,relatime - smb3 //x.file.core/share rw
45 27 0:42 / /mnt/ssh rw,nosuid,nodev,relatime shared:24 - fuse.sshfs me@host:/ rw,user_id=0
46 27 0:43 / /mnt/host rw,relatime - 9p drvfs rw,dirsync,aname=drvfs;path=C:\,trans=virtio
47 27 0:44 / /mnt/vm rw,relatime - virtiofs shared rw
48 27 0:45 / /mnt/ceph rw,relatime - ceph 10.0.0.8:6789:/ rw,name=admin
49 27 0:46 / /mnt/gluster rw,relatime shared:25 - fuse.glusterfs gfs:/vol rw,user_id=0
50 27 0:47 / /mnt/with\040space rw,relatime shared:26 - nfs4 filer:/a\040b rw
51 41 0:48 / /home/local rw,relatime shared:27 master:3 propagate_from:2 - xfs /dev/vdb1 rw
52 27 0:49 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/c
53 27 0:50 /sub /data rw,relatime - btrfs /dev/vdc rw,subvol=/sub
54 27 0:51 / /run rw,nosuid - tmpfs tmpfs rw
55 27 8:1 / /mnt/usb rw - fuseblk /dev/sda1 rw
56 27 0:52 / /twice rw - ext4 /dev/vdd rw
57 56 0:53 / /twice rw - nfs4 filer:/twice rw
58 27 0:54 / /mnt/rootless rw - fuse.fuse-overlayfs fuse-overlayfs rw
""".strip()


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/shop/locks", "ext4"),
        ("/", "ext4"),
        ("/homework/locks", "ext4"),
        ("/home", "nfs4"),
        ("/home/shop/locks", "nfs4"),
        ("/home/local/locks", "xfs"),
        ("/home/localhost/locks", "nfs4"),
        ("/srv/old/locks", "nfs"),
        ("/srv/win/locks", "cifs"),
        ("/srv/azure/locks", "smb3"),
        ("/mnt/ssh/locks", "fuse.sshfs"),
        ("/mnt/host/c/locks", "9p"),
        ("/mnt/vm/locks", "virtiofs"),
        ("/mnt/ceph/locks", "ceph"),
        ("/mnt/gluster/locks", "fuse.glusterfs"),
        ("/mnt/with space/locks", "nfs4"),
        ("/var/lib/docker/overlay2/x/merged/locks", "overlay"),
        ("/data/locks", "btrfs"),
        ("/run/shop/locks", "tmpfs"),
        ("/mnt/usb/locks", "fuseblk"),
        ("/twice/locks", "nfs4"),
        ("/mnt/rootless/locks", "fuse.fuse-overlayfs"),
    ],
)
def test_a_folder_lies_on_the_mount_nearest_to_it(folder: str, kind: str) -> None:
    assert type_of(Path(folder), LINES) == kind


def test_what_several_hosts_may_share_is_named_and_the_rest_passes(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(LINES)
    refused = {
        point: kind
        for point in (
            *("/", "/home", "/srv/old", "/srv/win", "/srv/azure", "/mnt/ssh", "/mnt/host"),
            *("/mnt/vm", "/mnt/ceph", "/mnt/gluster", "/mnt/with space", "/home/local", "/data"),
            *("/run", "/mnt/usb", "/twice", "/mnt/rootless", "/mnt/parent"),
        )
        if (kind := shared_type(Path(point) / "no" / "such" / "folder", mountinfo))
    }
    assert refused == {
        "/home": "nfs4",
        "/srv/old": "nfs",
        "/srv/win": "cifs",
        "/srv/azure": "smb3",
        "/mnt/ssh": "fuse.sshfs",
        "/mnt/host": "9p",
        "/mnt/vm": "virtiofs",
        "/mnt/ceph": "ceph",
        "/mnt/gluster": "fuse.glusterfs",
        "/mnt/with space": "nfs4",
        "/twice": "nfs4",
    }


def test_a_link_into_a_shared_folder_is_seen_through(tmp_path: Path) -> None:
    mountinfo, there = tmp_path / "mountinfo", tmp_path / "there"
    there.mkdir()
    (tmp_path / "link").symlink_to(there)
    mountinfo.write_text(f"41 27 0:38 / {there} rw - nfs4 filer:/ rw\n")
    assert shared_type(tmp_path / "link" / "locks", mountinfo) == "nfs4"


def test_where_the_kernel_does_not_tell_nothing_is_refused(tmp_path: Path) -> None:
    assert shared_type(tmp_path, tmp_path / "no-such-file") is None
    assert type_of(tmp_path, "") is None
    assert type_of(tmp_path, "a line without sense\n1 2 3 - nfs\n") is None


def test_this_host_s_own_mounts_can_be_read(tmp_path: Path) -> None:
    assert type_of(Path("/proc/self"), MOUNTINFO.read_text()) == "proc"
    assert type_of(tmp_path.resolve(), MOUNTINFO.read_text()) is not None
