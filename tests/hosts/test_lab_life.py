"""A lab of its own: up, power cut, boot, down, and what is left on the machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler.lab.cgroup import unified_root
from hostler.lab.errors import LabError, ToolFailed
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.lab.rootfs import packages_in

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[Lab]:
    one = Lab(tmp_path_factory.mktemp("labs") / "lab", say=print)
    try:
        one.up(2, packages)
        yield one
    finally:
        one.down()


def links() -> set[str]:
    out = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
    return {link["ifname"] for link in json.loads(out.stdout)}


def test_up_again_changes_nothing_and_is_quick(small: Lab, packages: Path) -> None:
    before = [(s.name, s.leader) for s in small.status()]
    pki = {p: p.read_bytes() for p in small.pki.rglob("*.pem")}
    start = time.monotonic()
    small.up(2, packages)
    assert time.monotonic() - start < 10
    assert [(s.name, s.leader) for s in small.status()] == before
    assert {p: p.read_bytes() for p in small.pki.rglob("*.pem")} == pki


def test_hosts_differ_and_reach_each_other_and_the_machine(small: Lab) -> None:
    one, two = small.hosts
    assert len({h.run(["cat", "/etc/machine-id"]).stdout for h in (one, two)}) == 2
    assert [h.run(["hostname"]).stdout.strip() for h in (one, two)] == ["h1", "h2"]
    for address in ("h2", two.ipv4, two.ipv6, "lab", small.bridge.ipv4(1), small.bridge.ipv6(1)):
        one.run(["ping", "-c1", "-W2", address])
    for family, version in (("-4", two.ipv4), ("-6", two.ipv6)):
        assert version in one.run(["getent", f"ahostsv{family[1]}", "h2"]).stdout
        assert "default via" in one.run(["ip", family, "route"]).stdout


def test_a_host_runs_in_a_cgroup_of_its_own(small: Lab) -> None:
    one, two = small.hosts
    mine, other = set(one.processes()), set(two.processes())
    assert mine
    assert not mine & other
    assert one.leader() in mine


def test_power_cut_keeps_files_and_loses_the_rest(small: Lab) -> None:
    host = small.host("h2")
    host.run(["sh", "-c", "echo kept > /var/lib/kept; echo lost > /run/lost; sync"])
    before = small.host("h1").leader()
    small.kill("h2")
    assert host.state() == "off"
    assert f"vb-{host.machine}" not in links()
    assert small.host("h1").leader() == before
    with pytest.raises(LabError, match="h2 is off"):
        host.run(["true"])
    assert small.boot("h2") in {"running", "degraded"}
    assert host.run(["cat", "/var/lib/kept"]).stdout == "kept\n"
    assert host.run(["test", "-e", "/run/lost"], check=False).returncode == 1


def test_up_boots_what_is_off_and_takes_away_what_is_too_much(small: Lab, packages: Path) -> None:
    small.kill("h1")
    small.up(1, packages)
    assert [s.name for s in small.status()] == ["h1"]
    assert small.status()[0].leader is not None
    assert not (small.folder / "hosts" / "h2").exists()
    small.up(2, packages)
    small.host("h1").run(["ping", "-c1", "-W2", "h2"])


def test_commands_are_bounded_and_their_failure_is_told(small: Lab) -> None:
    host = small.host("h1")
    with pytest.raises(ToolFailed, match="No such file"):
        host.run(["ls", "/nowhere"])
    with pytest.raises(ToolFailed, match="did not end in time"):
        host.run(["sleep", "31.7"], timeout_s=0.5)
    time.sleep(0.1)
    assert host.run(["pgrep", "-f", "sleep 31.7"], check=False).stdout == ""
    assert host.run(["cat"], stdin="through\n").stdout == "through\n"


def test_bad_wishes_are_refused(small: Lab, packages: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="1 to 64 hosts"):
        small.up(0, packages)
    with pytest.raises(LabError, match="no host 'h9'"):
        small.kill("h9")
    with pytest.raises(LabError, match="no package hostler-common"):
        Lab(tmp_path / "other").up(1, packages=tmp_path)
    with pytest.raises(LabError, match="there is no lab"):
        Lab(tmp_path / "none").status()


def remaining(host: Host) -> set[str]:
    """What a host still has by the name of Hostler, whatever it is and wherever."""
    elsewhere = ["(", "-path", "/proc", "-o", "-path", "/sys", ")", "-prune", "-o"]
    found = host.run(["find", "/", *elsewhere, "-iname", "*hostler*", "-print"]).stdout
    return set(found.splitlines())


def test_purge_leaves_the_users_and_install_opens_no_door_without_a_certificate(
    small: Lab, packages: Path
) -> None:
    host = small.host("h2")
    # Each was at work, and a backup was made on its day: what they leave is found, too.
    for name in ("netns", "firewall", "tracing", "ssl", "storage"):
        host.run(["systemctl", "start", f"hostler-{name}.service"])
    stamp = "/var/lib/systemd/timers/stamp-hostler-storage-backup@daily.timer"
    host.put(stamp, b"")
    domains = (
        "hostler-netns",
        "hostler-firewall",
        "hostler-tracing",
        "hostler-ssl",
        "hostler-storage",
    )
    host.run(["systemctl", "stop", *(f"{domain}.service" for domain in domains)])
    host.run(["dpkg", "--purge", *domains, "hostler-common"])
    gone = ("/etc/hostler", "/opt/hostler", "/var/lib/hostler", "/var/log/hostler")
    assert [p for p in gone if host.run(["test", "-e", p], check=False).returncode == 0] == []
    left = host.run(["systemctl", "list-units", "--all", "--no-legend", "hostler-*"]).stdout
    assert left == ""
    assert "hostler" not in host.run(["find", "/etc/systemd", "-name", "hostler-[nfrt]*"]).stdout
    assert ":744" not in host.run(["ss", "-Hltn"]).stdout
    host.run(["getent", "passwd", "hostler-netns"])
    assert remaining(host) == set()
    install(host, packages_in(packages))
    enabled = host.run(["systemctl", "is-enabled", "hostler-netns.socket"], check=False)
    assert enabled.stdout == "disabled\n"
    assert ":744" not in host.run(["ss", "-Hltn"]).stdout
    host.put("/etc/hostler/pki/host.pem", (small.pki / "hosts" / "h2.pem").read_bytes())
    install(host, packages_in(packages))
    listening = host.run(["ss", "-Hltn"]).stdout
    assert all(port in listening for port in (":7441", ":7442", ":7443", ":7444", ":7445"))


def install(host: Host, packages: list[Path]) -> None:
    """Install the packages as an administrator would."""
    for package in packages:
        host.put(f"/root/{package.name}", package.read_bytes())
    host.run(["dpkg", "-i", *(f"/root/{p.name}" for p in packages)])


def repacked(package: Path, folder: Path, version: str) -> Path:
    """The package as it would be at a later version: same code, other paths."""
    tree = folder / package.name.split("_")[0]
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    (old,) = (tree / "opt" / "hostler").iterdir()
    for path in tree.rglob("*"):
        ours = {"DEBIAN", "system", "bin"} & {path.parent.name, path.parent.parent.name}
        if ours and path.is_file():
            path.write_text(path.read_text().replace(old.name, version))
    old.rename(old.with_name(version))
    target = folder / f"{tree.name}_{version}_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target],
        check=True,
        capture_output=True,
    )
    return target


def test_upgrade_keeps_old_code_for_as_long_as_something_needs_it(
    small: Lab, packages: Path, tmp_path: Path
) -> None:
    host = small.host("h1")
    old = host.run(["sh", "-c", "echo /opt/hostler/*/daemon"]).stdout.strip()
    unit = Path("/run/systemd/transient/hostler-run-a.b.service")
    host.run(
        [
            *("systemd-run", "--quiet", f"--unit={unit.name}"),
            *("-p", f"ExecStopPost=/usr/bin/test -d {old}/hostlerd", "/bin/sleep", "600"),
        ]
    )
    newer = [repacked(package, tmp_path, "99.1") for package in packages_in(packages)]
    install(host, newer)
    trees = ["sh", "-c", "echo /opt/hostler/*/daemon"]
    assert host.run(trees).stdout.split() == sorted([old, "/opt/hostler/99.1/daemon"])
    assert host.run(["test", "-e", "/opt/hostler/.kept"], check=False).returncode == 1
    assert "99.1" in host.run(["systemctl", "cat", "hostler-firewall.service"]).stdout
    host.run(["systemctl", "stop", unit.name])
    assert host.run(["systemctl", "is-failed", unit.name], check=False).stdout == "inactive\n"
    install(host, newer)
    assert host.run(trees).stdout.split() == ["/opt/hostler/99.1/daemon"]
    assert ":7443" in host.run(["ss", "-Hltn"]).stdout


def test_down_leaves_nothing(small: Lab) -> None:
    hosts, ifname, folder = small.hosts, small.bridge.ifname, small.folder
    pids = {pid for host in hosts for pid in host.processes()}
    small.kill("h2")
    small.down()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert ifname not in links()
    assert not [name for name in links() if name.startswith(f"vb-{hosts[0].machine[:-2]}")]
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    assert not list(unified_root().glob(f"{ifname}-*"))
    assert not folder.exists()
    assert not small.env_file.exists()
    small.down()
