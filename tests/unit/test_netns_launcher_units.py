"""What the launcher composes for systemd, and what it reads of units and control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostlerd.netns.launcher import tasks, units
from hostlerd.netns.launcher.grammar import check_request


def composed(**more: Any) -> list[str]:
    base: dict[str, Any] = {"namespace": "web", "name": "http", "argv": ["true"]}
    return units.compose(check_request({"op": "start", "unit": {**base, **more}})["unit"])


def test_limits_become_the_properties_of_the_control_group() -> None:
    limits = {
        "memory_max_bytes": 1 << 26,
        "cpu_max_millicpus": 1505,
        "tasks_max": 9,
        "io_weight": 50,
        "devices": [{"device": "/dev/sda", "read_bytes_per_second": 7}],
    }
    options = composed(limits=limits)
    assert {
        "MemoryMax=67108864",
        "CPUQuota=150.5%",
        "TasksMax=9",
        "IOWeight=50",
        "IOReadBandwidthMax=/dev/sda 7",
    } <= set(options)
    assert not [o for o in options if o.startswith("IOWriteBandwidthMax")]
    bare = composed()
    assert not [o for o in bare if o.startswith(("MemoryMax", "CPUQuota", "TasksMax", "IO"))]


def test_private_tmp_is_mounted_without_devices_suid_and_execution() -> None:
    options = composed(private_tmp=True)
    for path in ("/tmp", "/var/tmp"):
        assert f"TemporaryFileSystem={path}:mode=1777,noexec,nosuid,nodev" in options
    assert not [o for o in composed() if o.startswith("TemporaryFileSystem")]


def test_resolvers_of_the_host_are_out_of_reach() -> None:
    options = composed()
    assert "InaccessiblePaths=-/run/systemd/resolve/io.systemd.Resolve" in options
    assert "InaccessiblePaths=-/run/nscd/socket" in options


def test_own_etc_files_are_bound_but_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "ETC", (tmp_path,))
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "resolv.conf").write_text("nameserver 10.0.0.1\n")
    (folder / "hostname").write_text("web\n")
    (folder / "hosts").symlink_to("/etc/shadow")
    binds = [o for o in composed() if o.startswith("BindReadOnlyPaths")]
    assert binds == [f"BindReadOnlyPaths={folder}/resolv.conf:/etc/resolv.conf"]
    binds = [o for o in composed(private_uts=True) if o.startswith("BindReadOnlyPaths")]
    assert f"BindReadOnlyPaths={folder}/hostname:/etc/hostname" in binds


@pytest.mark.parametrize(
    ("policy", "restart", "exit_type"),
    [("never", "no", "cgroup"), ("on-failure", "on-failure", "main"), ("always", "always", "main")],
)
def test_restart_policies(policy: str, restart: str, exit_type: str) -> None:
    options = composed(restart=policy, restart_delay_ms=1500, stop_timeout_ms=0)
    assert {f"Restart={restart}", f"ExitType={exit_type}"} <= set(options)
    assert {"RestartSec=1500ms", "TimeoutStopSec=0ms"} <= set(options)


@pytest.mark.parametrize(
    "unit", ["ssh.service", "hostler-run-a.service", "hostler-run-a.b.service.d", "hostler-run-A.b"]
)
def test_units_that_are_not_ours_have_no_names(unit: str) -> None:
    assert units.names_of(unit) is None


@pytest.mark.parametrize(
    ("path", "engine"),
    [
        ("/system.slice/docker-0123456789abcdef.scope", "docker"),
        ("/docker/0123456789abcdef", "docker"),
        ("/machine.slice/libpod-0123.scope/container", "podman"),
        ("/kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope", "containerd"),
        ("/lxc.payload.c1/init.scope", "lxc"),
        ("/machine.slice/systemd-nspawn@c.service/payload", "nspawn"),
        ("/system.slice/docker.service", ""),
        ("/user.slice/user-0.slice", ""),
    ],
)
def test_container_engines_by_control_group(path: str, engine: str) -> None:
    found = next((name for name, mark in tasks.ENGINES if mark.search(path)), "")
    assert found == engine


def test_limits_that_are_none_are_left_out(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1048576\n"),
        ("pids.max", "max\n"),
        ("cpu.weight", "100\n"),
        ("io.max", "8:0 rbps=1 wbps=max\n8:16 rbps=2\n"),
    ):
        (tmp_path / name).write_text(text)
    found = {n: tasks._limit(tmp_path / n, n) for n in tasks.LIMITS[""]}
    assert {k: v for k, v in found.items() if v} == {
        "memory.max": "1048576",
        "io.max": "8:0 rbps=1 wbps=max; 8:16 rbps=2",
    }


def test_cgroup_lines_of_both_versions() -> None:
    text = "5:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c:d\n"
    assert tasks._groups(text) == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b", "": "/c:d"}
