"""Units of systemd: what the launcher lets it do, and what it says about them.

Names are `hostler-run-NAMESPACE.NAME.service`: a dot is in neither name, so no two processes share
a unit.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostlerd.privileged.refused import Refused

from . import handles
from .grammar import NAME
from .store import RUNS

SYSTEMCTL = "/usr/bin/systemctl"
SYSTEMD_RUN = "/usr/bin/systemd-run"
PYTHON = "/usr/bin/python3"
SELF = Path(__file__).parent / "__main__.py"
SERVICE = "hostler-launcher.service"
UNIT_NAME = re.compile(r"hostler-run-([a-z][a-z0-9-]{0,31})\.([a-z][a-z0-9-]{0,31})\.service")
# Tools say nothing of their own on the standard error that a process may be given.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_TARGET": "null"}
TIMEOUT_S = 30
START_TIMEOUT_S = 20
MAX_OUTPUT = 16 << 20

# Where the files stand that make name resolution the namespace's own: the daemon's, else those of
# ip-netns(8). A unit is bound to the first that is there.
ETC = (Path("/run/hostler-netns/etc"), Path("/etc/netns"))
ETC_FILES = ("resolv.conf", "nsswitch.conf", "hosts", "hostname")
# Who would resolve names in the host's namespace for a process in another; and our own door.
UNREACHABLE = (
    *("/run/systemd/resolve/io.systemd.Resolve", "/run/systemd/resolve/io.systemd.Resolve.Monitor"),
    *("/run/nscd/socket", "/run/avahi-daemon/socket", "/run/hostler/launcher.sock"),
)
SHOWN = (
    *("Id", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "ControlGroup", "Job"),
    *("ExecMainCode", "ExecMainStatus", "ExecMainStartTimestamp", "NRestarts"),
    *("MemoryCurrent", "CPUUsageNSec", "TasksCurrent", "InvocationID"),
)


def unit_name(namespace: str, name: str) -> str:
    """The unit of a process."""
    return f"hostler-run-{namespace}.{name}.service"


def names_of(unit: str) -> tuple[str, str] | None:
    """The namespace and name of a unit, or None if it is not one of ours."""
    found = UNIT_NAME.fullmatch(unit)
    return (found[1], found[2]) if found else None


def compose(unit: dict[str, Any]) -> list[str]:
    """The options of systemd-run(1) and the command, composed from nothing but checked values."""
    namespace, name = unit["namespace"], unit["name"]
    me = f"{PYTHON} -I -S {SELF}"
    properties = [
        f"Description=Hostler process {name} in namespace {namespace}",
        f"SyslogIdentifier={name}",
        # Whether the process itself has begun is told by the status text, see `runs`.
        "Type=exec",
        "NotifyAccess=all",
        # The unit lasts until the children have gone, too; but what is to be started again is so
        # as soon as it has ended itself.
        f"ExitType={'cgroup' if unit['restart'] == 'never' else 'main'}",
        "KillMode=control-group",
        "OOMPolicy=kill",
        f"TimeoutStartSec={START_TIMEOUT_S}s",
        f"TimeoutStopSec={unit['stop_timeout_ms']}ms",
        f"Restart={'no' if unit['restart'] == 'never' else unit['restart']}",
        f"RestartSec={unit['restart_delay_ms']}ms",
        "StartLimitIntervalSec=0",
        f"NetworkNamespacePath={handles.NETNS / namespace}",
        f"PrivateIPC={'yes' if unit['private_ipc'] else 'no'}",
        "PrivateMounts=yes",
        # Full privileges for this one command: it may have to remove the namespace.
        f"ExecStopPost=+{me} ended {namespace} {name}",
        *_mounts(unit),
        *_limits(unit["limits"]),
    ]
    options = [word for each in properties for word in ("-p", each)]
    command = [PYTHON, "-I", "-S", str(SELF), "enter", namespace, name]
    return [f"--unit={unit_name(namespace, name)}", "--quiet", *options, "--", *command]


def _mounts(unit: dict[str, Any]) -> Iterable[str]:
    for path in UNREACHABLE:
        yield f"InaccessiblePaths=-{path}"
    for source in etc_files(unit["namespace"]):
        # The name in the file is to be the one that the kernel answers.
        if source.name == "hostname" and not unit["private_uts"]:
            continue
        yield f"BindReadOnlyPaths={source}:/etc/{source.name}"
    if unit["private_tmp"]:
        yield "TemporaryFileSystem=/tmp:mode=1777,noexec,nosuid,nodev"
        yield "TemporaryFileSystem=/var/tmp:mode=1777,noexec,nosuid,nodev"


def etc_files(namespace: str) -> list[Path]:
    """The namespace's own files of /etc: regular files, never what a link points to."""
    for folder in ETC:
        here = [folder / namespace / name for name in ETC_FILES]
        if found := [p for p in here if p.is_file() and not p.is_symlink()]:
            return found
    return []


def _limits(limits: dict[str, Any]) -> Iterable[str]:
    yield from ("MemoryAccounting=yes", "CPUAccounting=yes", "TasksAccounting=yes")
    if "memory_max_bytes" in limits:
        yield f"MemoryMax={limits['memory_max_bytes']}"
    if "cpu_max_millicpus" in limits:
        yield f"CPUQuota={limits['cpu_max_millicpus'] / 10:.1f}%"
    if "tasks_max" in limits:
        yield f"TasksMax={limits['tasks_max']}"
    if "io_weight" in limits:
        yield f"IOWeight={limits['io_weight']}"
    for limit in limits.get("devices", ()):
        if "read_bytes_per_second" in limit:
            yield f"IOReadBandwidthMax={limit['device']} {limit['read_bytes_per_second']}"
        if "write_bytes_per_second" in limit:
            yield f"IOWriteBandwidthMax={limit['device']} {limit['write_bytes_per_second']}"


def systemctl(*words: str, timeout_s: float = TIMEOUT_S) -> str:
    """Answer what the tool writes, whatever its exit status."""
    try:
        done = subprocess.run(
            [SYSTEMCTL, "--no-ask-password", *words],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise Refused("TIMEOUT", f"systemctl {words[0]} did not end in {timeout_s:.0f} s") from None
    except OSError as e:
        raise Refused("NO_SYSTEMD", f"systemctl: {e.strerror}") from e
    return done.stdout[:MAX_OUTPUT].decode(errors="replace")


def show(*units: str) -> dict[tuple[str, str], dict[str, str]]:
    """What systemd says about units of ours that it has loaded, by namespace and name."""
    shown = systemctl("show", "--timestamp=unix", f"--property={','.join(SHOWN)}", "--", *units)
    found = {}
    for block in shown.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        names = names_of(properties.get("Id", ""))
        if names and properties["ActiveState"] and not _absent(properties):
            found[names] = properties
    return found


def pattern(namespace: str = "", name: str = "") -> str:
    """The pattern of units, for systemctl(1); empty names stand for all."""
    return unit_name(namespace or "*", name or "*")


def is_active(properties: dict[str, str] | None) -> bool:
    """Whether it runs, or will run again without anybody's doing."""
    return properties is not None and properties["ActiveState"] not in {"inactive", "failed"}


def runs(properties: dict[str, str] | None) -> bool:
    """Whether the process has begun: our way in is behind it."""
    return properties is not None and properties.get("StatusText") == RUNS


def words(properties: dict[str, str] | None) -> str:
    """Why our way into the process failed; empty if it did not, or has not yet."""
    text = properties.get("StatusText", "") if properties else ""
    return "" if text == RUNS else text


def has_ended(properties: dict[str, str] | None) -> bool:
    """Whether it runs no more, though it may be started again."""
    return not is_active(properties) or (properties or {}).get("SubState") == "auto-restart"


def main_pid(properties: dict[str, str], private_pid: bool) -> int:
    """The process that was asked for, which in a PID namespace of its own is no child of systemd.

    There it is what our init has forked first, so its number inside is 2. 0: it does not run.
    """
    pid = int(properties.get("MainPID") or 0)
    if not pid or not private_pid:
        return pid
    for init in _children(pid):
        for child in _children(init):
            with suppress(OSError, IndexError, StopIteration):
                status = Path(f"/proc/{child}/status").read_text()
                inside = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()
                if inside[-1] == "2":
                    return child
    return 0


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _absent(properties: dict[str, str]) -> bool:
    """Whether systemd only made the name up to answer: it never ran."""
    return not properties.get("InvocationID") and properties["ActiveState"] == "inactive"


def in_grammar(namespace: str, name: str) -> bool:
    """Whether both could be names."""
    return bool(NAME.fullmatch(namespace) and NAME.fullmatch(name))
