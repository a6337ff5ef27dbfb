"""Which units open the doors of a host, by domain: enrolment enables them, and so does the lab.

The packages' postinst scripts enable the very same when they are upgraded on a host that has a
certificate; a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping

UNITS: Mapping[str, tuple[str, ...]] = {
    "netns": (
        *("hostler-netns.socket", "hostler-launcher.socket"),
        "hostler-restore@netns.service",
    ),
    "storage": (
        *("hostler-storage.socket", "hostler-storage-worker.socket"),
        *("hostler-storage-backup.socket", "hostler-storage-restore.socket"),
        "hostler-storage-copier.socket",
    ),
    "firewall": ("hostler-firewall.socket", "hostler-restore@firewall.service"),
    "tracing": ("hostler-tracing.socket",),
    "ssl": (
        *("hostler-ssl.socket", "hostler-ssl-reader.socket", "hostler-ssl-installer.socket"),
        *("hostler-ssl-signer.socket", "hostler-ssl-renew.timer"),
    ),
}


def is_started(unit: str) -> bool:
    """Whether a unit is to be started as soon as it is enabled; the others wait for a boot."""
    return unit.endswith((".socket", ".timer"))
