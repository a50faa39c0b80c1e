"""Tell network file systems from local ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = {
    "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs",
    "fuse.goofys", "fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb2",
    "smb3", "smbfs", "wekafs",
}  # fmt: skip
"""Types of mounts that several machines may share."""
_MOUNTS = Path("/proc/mounts")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_type(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that a path is on; None for a local one, and where the
    system does not say.

    Args:
        path: absolute; it need not exist.
        mounts: the text of `/proc/mounts`; None to read it.

    Example:
        >>> network_type(Path("/data/cats"), "server:/x /data nfs4 rw 0 0")
        'nfs4'
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text("utf-8", errors="surrogateescape")
        except OSError:
            return None
    real = Path(os.path.realpath(path))
    found, depth = None, -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1]))
        # a later mount covers an earlier one at the same place
        if real.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = fields[2], len(point.parts)
    return found if found in NETWORK else None
