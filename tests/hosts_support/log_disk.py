"""A disk of its own for the log of a daemon on a host, and nothing left of it in the log before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hostler.lab.host import Host


@contextmanager
def log_on_a_disk(host: Host, domain: str, size: str) -> Iterator[str]:
    """Mount an empty tmpfs of a size, as mount(8) writes it, over the folder of a log; answer it.

    The daemon ends before and after. What the log remembers beside its disk, of records that only
    the journal took, goes with the disk: the log that lay below knows nothing of them.
    """
    folder, user = f"/var/log/hostler/{domain}", f"hostler-{domain}"
    stop = ["systemctl", "stop", f"{user}.service"]
    host.run(stop)
    host.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0750", "tmpfs", folder])
    host.run(["chown", f"{user}:{user}", folder])
    try:
        yield folder
    finally:
        host.run(stop)
        host.run(["umount", "--lazy", folder])
        host.run(["rm", "-f", f"/run/{user}/audit.overflow"])
        # One that a caller has woken since then has the other log open.
        host.run(stop)
