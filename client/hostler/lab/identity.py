"""Who is who in a lab: its CA, certificates, bundle, and the client's configuration for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import tomlkit

from hostler.core import files
from hostler.core.units import UNITS
from hostler.issued import read_file
from hostler.lab.errors import LabError
from hostler.lab.host import Host
from hostler.pki import Authority, PkiNotFound

TRUST_DOMAIN = "lab.hostler"
CONTEXT = "lab"
# Each user of a lab and its group, which is how the default policies know what they may do.
USERS = {"admin": "admins", "operator": "operators", "viewer": "viewers"}
_UNITS = tuple(unit for units in UNITS.values() for unit in units)
SOCKETS = tuple(unit for unit in _UNITS if unit.endswith(".socket"))
RESTORES = tuple(unit for unit in _UNITS if unit.startswith("hostler-restore@"))


def authority(folder: Path) -> Authority:
    """The lab's CA in `folder`, made with its users and bundle unless it is there."""
    try:
        return Authority.open(folder)
    except PkiNotFound:
        pass
    made = Authority.create(folder, TRUST_DOMAIN)
    for user, group in USERS.items():
        made.issue_user(user)
        made.grant(f"user/{user}", group)
    made.write_bundle()
    return made


def renew_users(ca: Authority, now: datetime) -> list[str]:
    """Renew the certificates of the lab's users that are in their last third; answers whose.

    A user's certificate lives for 7 days, and a lab for longer: without it the lab's own users
    could not get in again.
    """
    renewed = []
    for user in USERS:
        path = ca.certificate_path("user", user)
        if not path.exists():
            continue
        if now > read_file(path).renew_time:
            ca.issue_user(user, renew=True)
            renewed.append(user)
    return renewed


def issue(ca: Authority, host: Host) -> None:
    """Issue the host's certificate, unless it has one."""
    if not ca.certificate_path("host", host.name).exists():
        ca.issue_host(host.name, dns_names=[host.name], ip_addresses=[host.ipv4, host.ipv6])


def labels(host: Host) -> dict[str, str]:
    """Labels to select by: every third host is a `db`, the others are `web`."""
    return {"role": "db" if host.index % 3 == 2 else "web"}


def write_client_files(folder: Path, hosts: Sequence[Host]) -> Path:
    """Write the client's configuration and fleet; answers the path of the former.

    A configuration that is there stays as it is: the user may have added contexts to it.
    """
    fleet = tomlkit.document()
    table = tomlkit.table(is_super_table=True)
    for host in hosts:
        entry = tomlkit.table()
        entry["address"] = host.ipv4
        entry["labels"] = tomlkit.inline_table().append("role", labels(host)["role"])
        table[host.name] = entry
    fleet["hosts"] = table
    files.replace(folder / "fleet.toml", tomlkit.dumps(fleet).encode(), mode=0o644)
    path = folder / "config.toml"
    if not path.exists():
        context = {
            "trust_domain": TRUST_DOMAIN,
            "ca": "pki/ca.pem",
            "certificate": "pki/users/admin.pem",
            "key": "pki/users/admin.key",
            "fleet": "fleet.toml",
            "pki": "pki",
        }
        document = {"current": CONTEXT, "contexts": {CONTEXT: context}}
        files.replace(path, tomlkit.dumps(document).encode(), mode=0o600)
    return path


def group_id(root: Path, group: str) -> int:
    """The number of a group in the root's own /etc/group. Raises LabError."""
    for line in (root / "etc" / "group").read_text().splitlines():
        name, _, number, _ = line.split(":")
        if name == group:
            return int(number)
    raise LabError(f"{root} has no group {group}: are the packages installed?")


def enrol(ca: Authority, host: Host) -> None:
    """Put certificate, key, bundle and configuration into the mounted root of a host."""
    etc = host.root / "etc" / "hostler"
    pki = etc / "pki"
    pki.mkdir(mode=0o750, exist_ok=True)
    certificate = ca.certificate_path("host", host.name)
    shutil.copyfile(ca.ca_path, pki / "ca.pem")
    shutil.copyfile(certificate, pki / "host.pem")
    shutil.copyfile(ca.bundle_path, etc / "bundle.json")
    for public in (pki / "ca.pem", pki / "host.pem", etc / "bundle.json"):
        public.chmod(0o644)
    key = pki / "host.key"
    key.touch(mode=0o640)
    shutil.copyfile(certificate.with_suffix(".key"), key)
    for path in (pki, key):
        shutil.chown(path, 0, group_id(host.root, "hostler-tls"))
