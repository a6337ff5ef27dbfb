"""What else manages networks and rules on a host, read from files as systemd lays them."""

from __future__ import annotations

import pytest

from hostlerd.firewall.kernel import neighbours as of_rules
from hostlerd.netns.kernel import neighbours as of_networks
from hostlerd.runtime.neighbourhood import runs, settings, starts_at_boot, values


def put(root, path, text=""):
    where = root / path
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(text)


def running(root, unit, populated=1):
    events = f"sys/fs/cgroup/system.slice/{unit}/cgroup.events"
    put(root, events, f"populated {populated}\nfrozen 0\n")


def codes(found):
    return {one.code: one.conflict for one in found}


def test_an_empty_host_has_no_neighbours(tmp_path):
    assert codes(of_rules.neighbours(tmp_path)) == {}
    assert codes(of_networks.neighbours(tmp_path)) == {}


def test_a_unit_runs_while_its_cgroup_has_processes(tmp_path):
    assert not runs("a.service", tmp_path)
    running(tmp_path, "a.service", 0)
    assert not runs("a.service", tmp_path)
    running(tmp_path, "a.service")
    assert runs("a.service", tmp_path)


def test_a_unit_that_is_enabled_is_a_link_to_it(tmp_path):
    put(tmp_path, "etc/systemd/system/a.service")
    assert not starts_at_boot("a.service", tmp_path)
    put(tmp_path, "etc/systemd/system/sysinit.target.wants/a.service")
    assert starts_at_boot("a.service", tmp_path)


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (None, False),
        ("table inet x {}\n", False),
        ("# flush ruleset\n", False),
        ("#!/usr/sbin/nft -f\n\n  flush  ruleset\n", True),
    ],
)
def test_nftables_flushes_what_is_not_its_own(tmp_path, conf, said):
    if conf is not None:
        put(tmp_path, "etc/nftables.conf", conf)
    assert codes(of_rules.neighbours(tmp_path)) == {}
    put(tmp_path, "etc/systemd/system/sysinit.target.wants/nftables.service")
    (found,) = of_rules.neighbours(tmp_path)
    assert (found.code, found.conflict) == ("NFTABLES_FLUSHES", True)
    assert ("flush ruleset" in found.message) is said


def test_each_that_writes_rules_is_told(tmp_path):
    running(tmp_path, "firewalld.service")
    running(tmp_path, "docker.service")
    put(tmp_path, "etc/systemd/system/multi-user.target.wants/ufw.service")
    expected = {"FIREWALLD_RUNS": False, "DOCKER_RUNS": False, "UFW_STARTS": False}
    assert codes(of_rules.neighbours(tmp_path)) == expected


@pytest.mark.parametrize(
    ("match", "takes"),
    [
        ("Name=*", True),
        ("Name=eth* *", True),
        ("Type=ether", True),
        ("Kind=veth", True),
        ("Name=*\nDriver=veth", True),
        ("Name=eth0", False),
        ("Name=v-*", True),
        ("Name=v-web", True),
        ("Name=!v-* *", False),
        ("Name=*\nDriver=virtio_net", False),
        ("Type=wlan", False),
        ("", False),
    ],
)
def test_networkd_takes_the_links_that_a_file_of_its_matches(tmp_path, match, takes):
    text = f"[Network]\nName=*\n[Match]\n{match}\n"
    put(tmp_path, "etc/systemd/network/10-all.network", text)
    assert codes(of_networks.neighbours(tmp_path)) == {}
    running(tmp_path, "systemd-networkd.service")
    expected = {"NETWORKD_TAKES_LINKS": True} if takes else {"NETWORKD_RUNS": False}
    assert codes(of_networks.neighbours(tmp_path)) == expected


def test_a_file_of_an_administrator_hides_one_of_a_package(tmp_path):
    put(tmp_path, "usr/lib/systemd/network/a.network", "[Match]\nName=*\n")
    put(tmp_path, "etc/systemd/network/a.network", "[Match]\nName=eth0\n")
    running(tmp_path, "systemd-networkd.service")
    assert codes(of_networks.neighbours(tmp_path)) == {"NETWORKD_RUNS": False}
    found = dict(settings(("/etc/systemd/network", "/usr/lib/systemd/network"), "*", tmp_path))
    assert found == {"/etc/systemd/network/a.network": "[Match]\nName=eth0\n"}


def test_network_manager_is_told_to_leave_links_alone(tmp_path):
    running(tmp_path, "NetworkManager.service")
    assert codes(of_networks.neighbours(tmp_path)) == {"NETWORK_MANAGER_TAKES_LINKS": True}
    put(
        tmp_path,
        "etc/NetworkManager/conf.d/h.conf",
        "[keyfile]\nunmanaged-devices=mac:00:11;driver:veth\n",
    )
    assert codes(of_networks.neighbours(tmp_path)) == {"NETWORK_MANAGER_RUNS": False}


def test_values_are_those_of_their_section_and_what_is_odd_is_passed_over(tmp_path):
    text = "x=0\n[A]\n x = 1 \n#x=2\n[B]\nx=3\n[A]\nx=4=5\nx\n"
    assert list(values(text, "A", "x")) == ["1", "4=5", ""]
    put(tmp_path, "etc/a/b.conf", "")
    (tmp_path / "etc/a/c.conf").mkdir()
    (tmp_path / "etc/a/d.conf").write_bytes(b"\xff\0")
    assert len(dict(settings(("/etc/a",), "*.conf", tmp_path))) == 3
