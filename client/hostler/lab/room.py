"""Limits of the machine that all hosts of all labs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# Each booted host takes about a dozen, mostly its systemd's; the kernel's own limit of 128 for all
# of root's is used up by ten. A path unit that gets none fails, and nothing is watched then.
# Source: inotify(7), /proc/sys/fs/inotify/max_user_instances.
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH = 4096


def make_room(say: Callable[[str], None], limit: Path = INOTIFY_INSTANCES) -> None:
    """Raise the number of inotify instances that root may have, if it is below ENOUGH.

    It stays raised: nobody can tell who else has come to need it.
    """
    there = int(limit.read_text())
    if there >= ENOUGH:
        return
    limit.write_text(f"{ENOUGH}\n")
    say(f"fs.inotify.max_user_instances was {there} for all hosts together, and is {ENOUGH} now")
