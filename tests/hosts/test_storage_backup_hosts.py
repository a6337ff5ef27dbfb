"""A backup on a real host: its timer starts it, its sandboxes let it do its work and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
import security_lab as support
from hosts_witness import eventually

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]
TREE, REPOSITORY, PASSWORD = "/srv/backed-up", "/var/lib/repository", "/root/backup.password"
TIMER = "hostler-storage-backup@srv.timer"
MAKE = f"""
mkdir -p {TREE}/private && head -c 300000 /dev/urandom > {TREE}/private/noise
chmod 0700 {TREE}/private && chown -R nobody {TREE}/private
touch {TREE}/program && chmod 4755 {TREE}/program
install -d -m 0700 -o hostler-storage-backup {REPOSITORY}
umask 077 && echo 'a password' > {PASSWORD}
"""
CLEAN = f"rm -rf {TREE} {REPOSITORY} {PASSWORD} /var/lib/restored"


def backup(lab: Lab, host: Host) -> dict[str, Any]:
    words = ("-o", "json", "-H", host.name, "storage", "backup", "get", "srv")
    told = support.hostler(lab, *words)
    found: dict[str, Any] = json.loads(told)[0]["result"]["backup"]
    return found


def unwell(lab: Lab, host: Host) -> list[str]:
    """What the host's health says of backups."""
    told = support.hostler(lab, "-o", "json", "-H", host.name, "storage", "health")
    reasons = json.loads(told)[0]["result"].get("reasons", [])
    return [one["code"] for one in reasons if one["id"] == "backup-srv"]


def test_a_timer_runs_it_and_a_drill_proves_it(lab: Lab, h1: Host) -> None:
    h1.run(["sh", "-ec", MAKE])
    ask = ("-H", h1.name, "--yes", "storage", "backup")
    where = ("--to", REPOSITORY, "--password-file", PASSWORD)
    when = ("--at", "*-*-* *:*:00/5", "--zone", "Asia/Kathmandu", "--warn-after", "1h")
    try:
        support.hostler(lab, *ask, "apply", "srv", TREE, *where, *when)
        assert h1.run(["systemctl", "is-active", TIMER]).stdout.strip() == "active"
        assert h1.run(["systemctl", "is-enabled", TIMER]).stdout.strip() == "enabled"
        ran = eventually(lambda: (one := backup(lab, h1)).get("last_good_run") and one, 90)
        assert ran["last_good_run"]["files"] == 2, ran
        assert unwell(lab, h1) == ["NEVER_DRILLED"]
        # From now on only when it is asked for.
        support.hostler(lab, *ask, "apply", "srv", TREE, *where)
        assert h1.run(["systemctl", "list-unit-files", TIMER], check=False).returncode != 0
        eventually(lambda: not backup(lab, h1).get("busy"), 60)
        support.hostler(lab, *ask, "drill", "srv", "--full")
        drilled = eventually(lambda: not (one := backup(lab, h1)).get("busy") and one, 90)
        assert drilled.get("last_good_full_drill"), drilled
        assert unwell(lab, h1) == []
        support.hostler(lab, *ask, "restore", "srv", "/var/lib/restored")
        eventually(lambda: not backup(lab, h1).get("busy"), 60)
        both = f"cd / && diff -r {TREE} /var/lib/restored{TREE} && stat -c '%a %U' "
        names = f"/var/lib/restored{TREE}/private /var/lib/restored{TREE}/program"
        assert h1.run(["sh", "-ec", both + names]).stdout.split() == [
            "700",
            "nobody",
            "4755",
            "root",
        ]
        # To the system's own places nothing is restored.
        support.hostler(lab, *ask, "restore", "srv", "/etc/restored")
        eventually(lambda: not backup(lab, h1).get("busy"), 60)
        assert h1.run(["test", "-e", "/etc/restored"], check=False).returncode != 0
    finally:
        support.hostler(lab, *ask, "delete", "srv")
        h1.run(["sh", "-ec", CLEAN])
