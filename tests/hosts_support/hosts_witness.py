"""What a host is like, asked of its own tools and never of Hostler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hostler.lab.host import Host

T = TypeVar("T")

_FIND = ["find", "/run/hostler-netns", "/run/hostler-launcher", "/var/lib/hostler"]
# Answers are kept for a day, whatever becomes of what was asked for; the lock and the bundle last
# in force are files for good.
_NOT_RECORDS = ["-not", "-path", "*/requests/*", "-not", "-name", "lock"]
_NOT_RECORDS += ["-not", "-name", "bundle.kept.json"]
_ASKED = {
    "ip netns": ["ip", "-json", "netns"],
    "ip link": ["ip", "-json", "-details", "link"],
    "ip addr": ["ip", "-json", "addr"],
    "ip route": ["ip", "-json", "route", "show", "table", "all"],
    "ip -6 route": ["ip", "-6", "-json", "route", "show", "table", "all"],
    "ip rule": ["ip", "-json", "rule"],
    "nft": ["nft", "-j", "list", "ruleset"],
    "units": ["systemctl", "list-units", "--plain", "--no-legend", "--full"],
    "runs": ["systemctl", "list-units", "--all", "--plain", "--no-legend", "hostler-run-*"],
    "/run/netns": ["find", "/run/netns"],
    "files": [*_FIND, "(", "-type", "f", "-o", "-type", "l", ")", *_NOT_RECORDS],
    "mounts": ["findmnt", "-rno", "TARGET,SOURCE,FSTYPE"],
    "sysctls": ["sysctl", "-a", "--pattern", r"^net\."],
}
_ASK = """
import json, subprocess, sys
told = {}
for name, argv in json.load(sys.stdin).items():
    told[name] = subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout
print(json.dumps(told))
"""
# The daemons come and go as they are called; the rest counts events or serves the boot alone.
_PASSING_UNITS = (
    *("hostler-netns.", "hostler-firewall.", "hostler-tracing.", "hostler-launcher."),
    *("hostler-ssl.", "hostler-ssl-signer.", "hostler-ssl-publish.", "hostler-ssl-installer."),
    *("hostler-ssl-reader.", "hostler-storage.", "hostler-storage-worker."),
    *("hostler-storage-backup.", "hostler-storage-restore.", "hostler-storage-copier."),
    *("systemd-", "apt-"),
)
_PASSING_SYSCTLS = ("net.netfilter.nf_conntrack_count", "net.ipv4.tcp_fastopen_key")

Snapshot = dict[str, Any]


def network(host: Host) -> Snapshot:
    """What ip, nft and the folder of handles tell of a host: a part of `snapshot`, and quick."""
    return _read(host, ("ip netns", "ip link", "ip addr", "ip route", "nft", "/run/netns", "runs"))


def snapshot(host: Host) -> Snapshot:
    """Everything that an isolation touches on a host, as ip, nft, systemctl and others tell it."""
    return _read(host, tuple(_ASKED))


def _read(host: Host, names: tuple[str, ...]) -> Snapshot:
    asked = json.dumps({name: _ASKED[name] for name in names})
    told = json.loads(host.run(["python3", "-c", _ASK], stdin=asked).stdout)
    return {name: _READ.get(name, _lines)(text) for name, text in told.items()}


def _nft(text: str) -> list[Any]:
    return [_lasting(e) for e in json.loads(text)["nftables"] if "metainfo" not in e]


def _units(text: str) -> dict[str, str]:
    units = (line.replace("●", " ").split() for line in text.splitlines())
    return {
        u[0]: u[2]
        for u in units
        if not u[0].startswith(_PASSING_UNITS) and not u[0].endswith((".device", ".scope"))
    }


def _sysctls(text: str) -> dict[str, str]:
    pairs = dict(line.partition(" = ")[::2] for line in text.splitlines())
    return {k: v for k, v in pairs.items() if k not in _PASSING_SYSCTLS}


def _lines(text: str) -> list[str]:
    return sorted(text.splitlines())


_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys((n for n in _ASKED if n.startswith("ip ")), lambda t: json.loads(t or "[]")),
    "nft": _nft,
    "units": _units,
    "sysctls": _sysctls,
}


def _lasting(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs between two equal tables of Hostler: handles and counts."""
    ((kind, thing),) = entry.items()
    if "hostler" not in (thing.get("table"), thing.get("name")):
        return entry
    kept = {key: value for key, value in thing.items() if key != "handle"}
    kept["expr"] = [part for part in kept.get("expr", ()) if "counter" not in part]
    return {kind: kept}


def differences(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What is different, by what was asked."""
    found: dict[str, Any] = {}
    for name, was in before.items():
        now = after[name]
        if isinstance(was, dict):
            keys = {k for k in {*was, *now} if was.get(k) != now.get(k)}
            if keys:
                found[name] = {k: (was.get(k), now.get(k)) for k in sorted(keys)}
        elif was != now:
            gone = [x for x in was if x not in now]
            new = [x for x in now if x not in was]
            found[name] = {"gone": gone, "new": new}
    return found


def settle(host: Host) -> None:
    """Wait for what the kernel does by and by: detecting duplicate addresses, noticing carriers.

    The folder /run/netns, too, comes with the first namespace since boot, whoever makes that one,
    and stays: ip-netns(8) leaves it as Hostler does. So it is there before anything is compared.
    """
    if host.run(["mountpoint", "-q", "/run/netns"], check=False).returncode:
        host.run(["ip", "netns", "add", "first"])
        host.run(["ip", "netns", "delete", "first"])
    # After hundreds of handles systemd is behind for seconds.
    eventually(lambda: _mounts_are_known(host), 60)
    eventually(lambda: not host.run(["ip", "-6", "addr", "show", "tentative"]).stdout)
    eventually(
        lambda: (
            not any(
                link["operstate"] == "DOWN" and "LOWER_UP" in link["flags"]
                for link in ip_json(host, "link")
            )
        )
    )


def _mounts_are_known(host: Host) -> bool:
    """Whether systemd has heard of every handle that came or went."""
    listed = ["systemctl", "list-units", "--plain", "--no-legend", "run-netns-*.mount"]
    return len(host.run(listed).stdout.splitlines()) == len(names_of_netns(host))


@contextmanager
def untouched(*hosts: Host, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Fail if a host is not afterwards what it was before, leaving out what `but` names."""
    for host in hosts:
        settle(host)
    before = [snapshot(host) for host in hosts]
    yield
    for host, was in zip(hosts, before, strict=True):
        # A unit that has ended, or a link that goes with its namespace, is gone a moment later.
        end = time.monotonic() + 5
        while found := {k: v for k, v in differences(was, snapshot(host)).items() if k not in but}:
            assert time.monotonic() < end, f"{host.name}: {json.dumps(found, indent=1)}"
            time.sleep(0.2)


def eventually(look: Callable[[], T], timeout_s: float = 20.0) -> T:
    """Look again and again until what is seen is true; answer it."""
    end = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"not within {timeout_s} s: {seen!r}"
        time.sleep(0.1)


def ip_json(host: Host, *argv: str) -> Any:
    """Ask ip(8)."""
    return json.loads(host.run(["ip", "-json", *argv]).stdout or "[]")


def names_of_netns(host: Host) -> set[str]:
    """The namespaces as `ip netns` lists them."""
    return {entry["name"] for entry in ip_json(host, "netns")}


def links(host: Host) -> set[str]:
    """The host's links."""
    return {entry["ifname"] for entry in ip_json(host, "link")}


def code_tree(host: Host) -> str:
    """The folder of the code that is installed; others may be there of versions that ran once."""
    shown = host.run(["dpkg-query", "--show", "--showformat=${Version}", "hostler-common"])
    return f"/opt/hostler/{shown.stdout.strip()}/daemon"
