"""What the processes of a real host cannot do, tried from within: systemd builds the sandbox.

A probe stands in for each unit's program and tries what is outside its domain; the kernel or the
bus must refuse. The same probe as root without a sandbox shows that each attempt is a real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import sandbox_lab as support
import sandbox_names

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

# How the kernel says that somebody may not; ENOENT is a process that is hidden from us.
REFUSED = {"EPERM", "EACCES", "EROFS", "EAFNOSUPPORT", "ENOENT", ""}
# What a kernel without modules or kexec says, and what it says of a step or a command that is
# none: it did not ask who wants it.
NOT_WHO = {
    "load_a_module": {"ENOSYS", "ENOEXEC", "EINVAL"},
    "load_a_kernel": {"ENOSYS", "EINVAL"},
    "set_the_clock": {"EINVAL"},
    "reboot": {"EINVAL"},
}
# Source: capabilities(7).
CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, KILL, NET_ADMIN = 0, 1, 2, 5, 12
FOWNER, FSETID, SETGID, SETUID, NET_BIND_SERVICE, SETFCAP = 3, 4, 6, 7, 10, 31
SYS_PTRACE, SYS_ADMIN, MKNOD, PERFMON, BPF = 19, 21, 27, 38, 39
NETNS, FIREWALL = {NET_ADMIN, SYS_ADMIN}, {NET_ADMIN}
TRACING = {DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF}
READER = {DAC_READ_SEARCH, SYS_PTRACE}
INSTALLER = {CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE}
STORAGE = {DAC_READ_SEARCH}
# Beside SYS_RESOURCE, which nobody has on a host that is a container.
WORKER = {DAC_OVERRIDE, FOWNER, SYS_ADMIN, SYS_PTRACE, MKNOD}
BACKUP, RESTORE = {DAC_READ_SEARCH}, {CHOWN, FOWNER, FSETID, DAC_OVERRIDE, SETFCAP, MKNOD}
LAUNCHER = {CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, KILL, SYS_PTRACE, SYS_ADMIN}

# One capability for links and rules, which the kernel does not tell apart: each of the two daemons
# could do the other's part, and only its program keeps it from that.
OF_NET_ADMIN = {"add_a_link", "add_a_table_of_rules"}
# netns has its handles mounted and its processes started there.
OF_NETNS = OF_NET_ADMIN | {"connect_to_launcher"}
# The scratch check of a ruleset runs in a user and a network namespace of its own.
OF_FIREWALL = OF_NET_ADMIN | {"new_user_namespace"}
# It reads any process, for that is what it is for, and it must not touch one; it loads programs
# that trace.
OF_TRACING = {"read_memory_of_another", "read_environment_of_another", "load_a_bpf_map"}
OF_READER = {
    *("read_memory_of_another", "read_environment_of_another", "list_home_of_root"),
}
# A hidden home would be a hidden mount: what it may read, it sees.
OF_STORAGE = {"list_home_of_root", "open_a_block_device"}
# systemd and the daemons' doors know root by its uid, whatever capabilities it has laid down.
OF_ROOT = {
    *("start_a_unit_by_bus", "start_a_unit_by_systemctl", "make_a_unit", "stop_another_domain"),
    *("connect_to_door_of_another_domain",),
}
# It reloads units, writes where hostler.toml says, and runs the servers' own checks, as root.
OF_INSTALLER = OF_ROOT | {
    *("internet_socket", "connect_to_launcher", "signal_another", "write_etc"),
    *("list_state_of_another_domain", "write_audit_log_of_another_domain"),
    *("connect_to_private_socket_of_another_domain", "read_passwords"),
    # What its servers load may compile as it runs: PCRE, Lua.
    "memory_that_is_written_and_run",
    # A /proc that somebody has mounted elsewhere: its own is read-only.
    "write_sysctl_outside_net",
}
# It mounts in PID 1's mount namespace, so no option may give it one of its own: files are open to
# it as to root. It reads and signals any process, for that is what it is for.
OF_LAUNCHER = OF_ROOT | {
    *("mount", "umount", "read_memory_of_another", "read_environment_of_another"),
    *("signal_another", "list_state_of_another_domain", "write_audit_log_of_another_domain"),
    *("connect_to_private_socket_of_another_domain", "connect_to_launcher", "write_etc"),
    *("write_own_code", "write_policies", "read_passwords", "list_home_of_root"),
    *("write_sysctl_outside_net", "make_a_control_group", "remount_etc_writable"),
}
# It has the host's own mounts, so that files are open to it as to root; it mounts nothing.
OF_WORKER = OF_ROOT | {
    # As mdadm does for an array that is new to the kernel.
    "make_a_device",
    *("open_a_block_device", "list_state_of_another_domain", "write_audit_log_of_another_domain"),
    *("connect_to_private_socket_of_another_domain", "connect_to_launcher", "write_etc"),
    *("write_own_code", "write_policies", "read_passwords", "list_home_of_root"),
    *("write_sysctl_outside_net", "make_a_control_group", "read_environment_of_another"),
    # It looks who holds what is to be unmounted.
    "read_memory_of_another",
}
# It reads any file, for that is what it is for, and sends it to where repositories are.
OF_BACKUP = {"internet_socket", "list_home_of_root", "read_passwords"} | {
    "list_state_of_another_domain",
}
# It restores as root, to anywhere but the system's own places and Hostler's.
OF_RESTORE = OF_ROOT | {
    *("internet_socket", "make_a_device", "list_home_of_root", "read_passwords"),
    *("list_state_of_another_domain", "connect_to_private_socket_of_another_domain"),
    "connect_to_launcher",
    # A program that is restored has its mode back; a /proc that somebody has mounted elsewhere.
    *("set_uid_file", "write_sysctl_outside_net"),
}
# As that one, but that it talks to no network.
OF_COPIER = OF_RESTORE - {"internet_socket"}
# uid 0 without those to pass over modes: files of root's are open to it for reading.
OF_EXPORTS = {"open_a_block_device", "list_home_of_root"}
# Each unit: its domain, its capabilities, and what of the probe's attempts it can do, and why.
UNITS: dict[str, tuple[str, set[int], set[str]]] = {
    "hostler-netns.service": ("netns", NETNS, OF_NETNS),
    "hostler-restore@netns.service": ("netns", NETNS, OF_NETNS),
    "hostler-revert@netns.service": ("netns", NETNS, OF_NETNS),
    "hostler-firewall.service": ("firewall", FIREWALL, OF_FIREWALL),
    "hostler-restore@firewall.service": ("firewall", FIREWALL, OF_FIREWALL),
    "hostler-revert@firewall.service": ("firewall", FIREWALL, OF_FIREWALL),
    "hostler-job@netns.service": ("netns", NETNS, OF_NETNS),
    "hostler-job@firewall.service": ("firewall", FIREWALL, OF_FIREWALL),
    "hostler-job@storage.service": ("storage", STORAGE, OF_STORAGE),
    "hostler-tracing.service": ("tracing", TRACING, OF_TRACING),
    "hostler-revert@tracing.service": ("tracing", set(), set()),
    # Handshakes with what the host serves.
    "hostler-ssl.service": ("ssl", set(), {"internet_socket"}),
    "hostler-revert@ssl.service": ("ssl", set(), set()),
    # It reads any block device, and follows any path.
    "hostler-storage.service": ("storage", STORAGE, OF_STORAGE),
    "hostler-revert@storage.service": ("storage", set(), set()),
    "hostler-storage-worker.service": ("storage", WORKER, OF_WORKER),
    "hostler-storage-backup.service": ("storage", BACKUP, OF_BACKUP),
    "hostler-storage-restore.service": ("storage", RESTORE, OF_RESTORE),
    "hostler-storage-copier.service": ("storage", RESTORE, OF_COPIER),
    # It makes configfs, which is root's, such as root's definitions say; it has no way to anybody.
    "hostler-storage-exports@x.service": ("storage", {SYS_ADMIN}, OF_EXPORTS),
    # It asks for a run, and can do nothing else.
    "hostler-storage-backup@x.service": ("storage", set(), set()),
    # It reads any key and any process.
    "hostler-ssl-reader.service": ("ssl", READER, OF_READER),
    # Neither has a way out, nor any other's files; the responder waits on a socket of systemd's.
    "hostler-ssl-signer.service": ("ssl", set(), set()),
    "hostler-ssl-publish.service": ("ssl", set(), set()),
    "hostler-ssl-responder.service": ("ssl", set(), set()),
    # Sends the audit log off the host.
    "hostler-ship@netns.service": ("netns", set(), {"internet_socket"}),
    "hostler-ship@firewall.service": ("firewall", set(), {"internet_socket"}),
    "hostler-ship@tracing.service": ("tracing", set(), {"internet_socket"}),
    "hostler-ship@ssl.service": ("ssl", set(), {"internet_socket"}),
    "hostler-ssl-installer.service": ("ssl", INSTALLER, OF_INSTALLER),
    "hostler-ssl-challenge.service": ("ssl", set(), set()),
    "hostler-ship@storage.service": ("storage", set(), {"internet_socket"}),
    "hostler-launcher.service": ("netns", LAUNCHER, OF_LAUNCHER),
    "hostler-pending.service": ("netns", set(), OF_ROOT),
}
CASES = [(unit, attempt) for unit in UNITS for attempt in sandbox_names.ATTEMPTS]


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A host of its own kind for the module: what the probe needs is there, and goes with it."""
    one = lab.hosts[0]
    if one.leader() is None:
        lab.boot(one.name)
    with support.prepared(one):
        yield one


@pytest.fixture(scope="module")
def control(host: Host) -> dict[str, support.Found]:
    """What root can do without a sandbox, by the domain whose attempts they are."""
    domains = ("netns", "storage", "firewall", "tracing", "ssl")
    return {domain: support.without(host, domain) for domain in domains}


class Probed:
    """What the probe found in each unit, found once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[str, support.Found] = {}

    def __getitem__(self, unit: str) -> support.Found:
        if unit not in self._found:
            self._found[unit] = support.within(self._host, unit, UNITS[unit][0])
        return self._found[unit]


@pytest.fixture(scope="module")
def probed(host: Host) -> Probed:
    return Probed(host)


def test_every_unit_has_a_row(host: Host) -> None:
    templates = {unit.split("@")[0] + "@.service" if "@" in unit else unit for unit in UNITS}
    assert support.units_of(host) == templates


@pytest.mark.parametrize("attempt", sandbox_names.ATTEMPTS)
def test_without_a_sandbox_root_can(control: dict[str, support.Found], attempt: str) -> None:
    """Shows that the tests below can fail: what they see refused is refused by the sandbox."""
    for domain, found in control.items():
        assert found.attempts[attempt] in NOT_WHO.get(attempt, {"done"}), domain


@pytest.mark.parametrize(("unit", "attempt"), CASES)
def test_what_is_outside_its_domain_is_refused(probed: Probed, unit: str, attempt: str) -> None:
    end, can = probed[unit].attempts[attempt], UNITS[unit][2]
    if attempt in can:
        assert end == "done", "it can no longer, or never could: take it off the list"
    else:
        assert end in REFUSED


@pytest.mark.parametrize("unit", UNITS)
def test_its_capabilities_are_the_designs(probed: Probed, unit: str) -> None:
    found = probed[unit]
    wanted = UNITS[unit][1]
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert found.capabilities[name] == wanted, name
    for name in ("CapAmb", "CapInh"):
        assert found.capabilities[name] <= wanted, name
    assert (found.status["NoNewPrivs"], found.status["Seccomp"]) == ("1", "2")


def test_no_unit_was_started_by_who_may_not(host: Host, probed: Probed) -> None:
    """systemd's own word, after every attempt of the daemons to have it start something."""
    host.run(["systemctl", "stop", support.TARGET])
    for unit, (domain, _, can) in UNITS.items():
        if not can & OF_ROOT:
            support.within(host, unit, domain)
            assert not support.target_was_started(host), unit
    told = {unit: sorted(probed[unit].capabilities["CapEff"]) for unit in UNITS}
    print(f"\ncapabilities: {json.dumps(told)}")
