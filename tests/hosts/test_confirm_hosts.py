"""A group of changes that shuts every door of a host: it comes back by itself, whatever happens.

Each time a namespace and a ruleset are put in place as one group; from then on no port of Hostler
answers, and nobody confirms. Before and after is what ip(8) and nft(8) say.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confirm_lab import (
    DOORS,
    TOML,
    Opened,
    back_after,
    confirm,
    confirm_options,
    each,
    ended,
    keep,
    managed_elsewhere,
    open_doors,
    pending,
    refused,
    reverts,
    settled,
    shut,
    shutting,
)
from hosts_client import (
    APPLY_RULESET,
    CREATE,
    DELETE,
    DELETE_RULESET,
    ask,
    create_request,
    delete_request,
)
from hosts_witness import Snapshot, differences, network, settle
from test_lab_life import install, repacked

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.lab.rootfs import packages_in

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

WITHIN_S = 10.0
# dpkg(1) takes its time, most of it to write 25 MB.
UPGRADE_S = 40.0
# What the watcher, a start of Python for each domain and the undoing itself may take on a busy
# machine.
SLACK_S = 8.0
STOP = ["systemctl", "stop", *(f"hostler-{domain}.service" for domain in DOORS)]


@pytest.fixture(scope="module")
def remote(lab: Lab) -> Iterator[tuple[Host, ...]]:
    """Hosts that think management is elsewhere, with a change that was confirmed before."""
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    tomls = {host.name: host.run(["cat", TOML]).stdout for host in lab.hosts}

    def prepare(host: Host) -> None:
        host.put(TOML, managed_elsewhere(tomls[host.name]))
        host.run(STOP)
        settle(host)
        keep(lab, host)

    def restore(host: Host) -> None:
        host.put(TOML, tomls[host.name])
        host.run(STOP)
        settled(host)
        ask(lab, DELETE, delete_request("earlier"), host=host.name)
        gone = ruleset_pb2.DeleteRulesetRequest(name="earlier")
        ask(lab, DELETE_RULESET, gone, host=host.name)

    try:
        each(lab.hosts, prepare)
        yield lab.hosts
    finally:
        each(lab.hosts, restore)


def unchanged(before: Snapshot, host: Host) -> None:
    """Nothing is left of the group, and what was confirmed earlier is there."""
    assert differences(before, settled(host)) == {}
    assert "earlier" in {ns["name"] for ns in before["ip netns"]}
    assert "dport 9999" in host.run(["nft", "list", "ruleset"]).stdout


def went_back(lab: Lab, host: Host, opened: Opened, reason: str = "deadline") -> None:
    """The host tells of it at each door, and its audit logs in which order."""
    for door in DOORS:
        first = ended(lab, host, door)[0]
        assert (first.group, first.reason) == (opened.group, reason)
        assert first.outcome == change_pb2.OUTCOME_ROLLED_BACK
    assert [domain for _, domain, _ in reverts(host, opened.group)] == ["firewall", "netns"]


def test_every_host_is_back_in_time_and_in_order(lab: Lab, remote: tuple[Host, ...]) -> None:
    before = [network(host) for host in remote]
    groups = each(remote, lambda host: shut(lab, host, WITHIN_S))
    assert each(remote, open_doors) == [set(), set(), set()]
    took = each(
        zip(remote, groups, strict=True),  # type: ignore[arg-type]
        lambda pair: back_after(*pair),  # type: ignore[misc]
    )
    print(f"all doors answered again after {', '.join(f'{t:.1f}' for t in took)} s")
    assert all(WITHIN_S - 1 < t < WITHIN_S + SLACK_S for t in took), took
    for was, host, opened in zip(before, remote, groups, strict=True):
        unchanged(was, host)
        went_back(lab, host, opened)


def test_killed_daemons_and_watcher_change_nothing(lab: Lab, remote: tuple[Host, ...]) -> None:
    host = remote[0]
    before = network(host)
    opened = shut(lab, host, WITHIN_S)
    for unit in (*DOORS, "launcher", "pending"):
        host.run(["systemctl", "kill", "-s", "KILL", f"hostler-{unit}.service"], check=False)
    assert open_doors(host) == set()
    took = back_after(host, opened)
    assert WITHIN_S - 1 < took < WITHIN_S + SLACK_S
    unchanged(before, host)
    went_back(lab, host, opened)


@pytest.fixture(scope="module")
def happenings(
    lab: Lab,
    remote: tuple[Host, ...],
    packages: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[None]]]:
    """What happens within the window, to three hosts at once; each has a test that asks for it."""
    newer = tmp_path_factory.mktemp("newer")
    with ThreadPoolExecutor(3) as pool:
        yield {
            "upgrade": pool.submit(upgraded_in_the_window, lab, remote[0], packages, newer),
            "power cut": pool.submit(cut_off_in_the_window, lab, remote[1]),
            "removal": pool.submit(removed_in_the_window, lab, remote[2], packages),
        }


def test_a_power_cut_takes_it_back_before_the_network(
    happenings: dict[str, Future[None]],
) -> None:
    happenings["power cut"].result()


def cut_off_in_the_window(lab: Lab, host: Host) -> None:
    opened = shut(lab, host, 300)
    # Killed at once: what counts is on the disk.
    lab.kill(host.name)
    lab.boot(host.name)
    assert open_doors(host) == set(DOORS)
    seen = settled(host)
    assert seen["ip netns"] == []
    rules = host.run(["nft", "list", "ruleset"]).stdout
    assert "policy drop" not in rules
    for door in DOORS:
        first = ended(lab, host, door)[0]
        assert (first.group, first.reason) == (opened.group, "boot")
    restored = ["journalctl", "-b", "-o", "cat", "-u", "hostler-restore@*"]
    assert "waits" not in host.run(restored).stdout
    # What the earlier group had made did not outlive the boot either; it is made again.
    keep(lab, host)


def test_an_upgrade_in_the_window_disarms_nothing(happenings: dict[str, Future[None]]) -> None:
    happenings["upgrade"].result()


def upgraded_in_the_window(lab: Lab, host: Host, packages: Path, newer: Path) -> None:
    before = network(host)
    made = [repacked(package, newer, "99.1") for package in packages_in(packages)]
    opened = shut(lab, host, UPGRADE_S)
    install(host, made)
    assert time.monotonic() - opened.asked_at < UPGRADE_S - 1, "the upgrade outlasted the window"
    assert open_doors(host) == set()
    took = back_after(host, opened)
    assert UPGRADE_S - 1 < took < UPGRADE_S + SLACK_S
    unchanged(before, host)
    went_back(lab, host, opened)
    unit = host.run(["systemctl", "cat", "hostler-revert@netns.service"]).stdout
    assert "/opt/hostler/99.1/" in unit
    install(host, packages_in(packages))


def test_a_removed_package_in_the_window_disarms_nothing(
    happenings: dict[str, Future[None]],
) -> None:
    happenings["removal"].result()


def removed_in_the_window(lab: Lab, host: Host, packages: Path) -> None:
    before = network(host)
    opened = shut(lab, host, WITHIN_S)
    host.run(["dpkg", "--remove", *(f"hostler-{domain}" for domain in DOORS)])
    assert host.run(["systemctl", "cat", "hostler-firewall.service"], check=False).returncode
    assert time.monotonic() - opened.asked_at < WITHIN_S, "the removal outlasted the window"
    settled(host)
    took = time.monotonic() - opened.asked_at
    assert WITHIN_S - 1 < took < WITHIN_S + SLACK_S
    unchanged(before, host)
    assert [d for _, d, _ in reverts(host, opened.group)] == ["firewall", "netns"]
    install(host, [p for p in packages_in(packages) if "common" not in p.name])
    went_back(lab, host, opened)


def test_removing_everything_takes_it_back_first(
    lab: Lab, remote: tuple[Host, ...], packages: Path
) -> None:
    host = remote[2]
    before = network(host)
    opened = shut(lab, host, 600)
    host.run(["dpkg", "--remove", *(f"hostler-{d}" for d in DOORS), "hostler-common"])
    assert differences(before, network(host)) == {}
    install(host, packages_in(packages))
    went_back(lab, host, opened, "asked for")


def test_requests_in_the_window_disarm_nothing(lab: Lab, remote: tuple[Host, ...]) -> None:
    """Invalid ones, dry runs, other people's and other changes; over channels opened before."""
    host = remote[0]
    before = network(host)
    group = shutless(lab, host, 8.0)
    tries: dict[str, Any] = {
        "other change": create_request("other"),
        "invalid": create_request("Bad Name"),
        "invalid window": create_request("other"),
        "another group": create_request("other"),
    }
    tries["invalid window"].change.CopyFrom(confirm_options(group.group, 7200))
    tries["another group"].change.CopyFrom(
        confirm_options("00000000-0000-4000-8000-000000000000", 60)
    )
    errors = {
        name: refused(lambda r=r: ask(lab, CREATE, r, host=host.name)) for name, r in tries.items()
    }
    assert errors["other change"].reason == "CONFIRM_PENDING"
    assert errors["another group"].reason == "CONFIRM_PENDING"
    assert errors["invalid"].code == errors["invalid window"].code == "INVALID_ARGUMENT"
    dry = create_request("other")
    dry.change.CopyFrom(confirm_options(group.group, 3000))
    dry.change.validate_only = True
    planned = ask(lab, CREATE, dry, host=host.name)
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED
    # What has nothing to do is no change.
    again = ask(lab, CREATE, create_request("waits"), host=host.name)
    assert not again.change.changed
    dry = shutting()
    dry.change.validate_only = True
    ask(lab, APPLY_RULESET, dry, host=host.name)
    seen = pending(lab, host, "firewall").pending
    assert seen.group == group.group and not seen.reverting
    assert [part.domain for part in seen.parts] == ["netns"]
    assert 0 < seen.remaining.seconds < 8
    # One door of several.
    assert confirm(lab, host, "netns", group.group).pending.group == group.group
    unchanged_after(host, before, group)


def shutless(lab: Lab, host: Host, within_s: float) -> Opened:
    """A group whose host can be reached all the time."""
    opened = Opened(str(uuid.uuid4()), time.monotonic())
    made = create_request("waits")
    made.change.CopyFrom(confirm_options(opened.group, within_s))
    ask(lab, CREATE, made, host=host.name)
    return opened


def unchanged_after(host: Host, before: Snapshot, opened: Opened) -> None:
    unchanged(before, host)
    assert 7 < time.monotonic() - opened.asked_at < 8 + SLACK_S


def test_nobody_on_the_host_can_hold_it_up(lab: Lab, remote: tuple[Host, ...]) -> None:
    """The files are the daemons' alone, and there is nothing that a local user could hold."""
    host = remote[0]
    opened = shutless(lab, host, 5)
    as_user = [
        *("setpriv", "--reuid=www-data", "--regid=www-data", "--init-groups", "--reset-env"),
        *("sh", "-c", "ls /var/lib/hostler/pending /run/hostler/pending"),
    ]
    assert host.run(as_user, check=False).returncode != 0
    neighbour = [
        *("setpriv", "--reuid=hostler-firewall", "--regid=hostler-firewall", "--init-groups"),
        *("--reset-env", "sh", "-c"),
    ]
    for what in (
        "rm /var/lib/hostler/pending/netns/part.json",
        "touch /var/lib/hostler/pending/netns/x",
        "mv /var/lib/hostler/pending/group.json /var/lib/hostler/pending/kept.json",
        "touch /run/hostler/pending/revert",
        "systemctl start hostler-revert@netns.service",
    ):
        assert host.run([*neighbour, what], check=False).returncode != 0, what
    # Started by hand it is nobody's turn: it disarms nothing and takes back nothing.
    host.run(["systemctl", "start", "hostler-revert@netns.service"])
    assert pending(lab, host).pending.group == opened.group
    host.run(["systemctl", "start", "hostler-restore@netns.service"])
    assert pending(lab, host).pending.group == opened.group
    settled(host)


def test_the_watcher_has_no_power_but_to_start_two_units(remote: tuple[Host, ...]) -> None:
    host = remote[0]
    show = ["systemctl", "show", "--value", "-p", "CapabilityBoundingSet"]
    assert host.run([*show, "hostler-pending.service"]).stdout.strip() == ""
    argv = ["systemd-analyze", "security", "--no-pager", "hostler-pending.service"]
    last = host.run(argv).stdout.splitlines()[-1]
    print(last)
    assert float(last.split(":")[1].split()[0]) <= 1.0
