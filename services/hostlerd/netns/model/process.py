"""A process that runs in a network namespace: what is asked for, and what is seen of it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hostlerd.runtime.errors import Violation
from hostlerd.runtime.steps import canonical

MAX_ARGV = 1024
MAX_ARGV_BYTES = 128 << 10
MAX_ENVIRONMENT_BYTES = 64 << 10
MAX_GROUPS = 64
MAX_DEVICES = 64
MAX_DELAY_MS = 24 * 3600 * 1000
MIN_MEMORY_BYTES = 1 << 20
MIN_MILLICPUS, MAX_MILLICPUS = 10, 10_000_000
MAX_TASKS = 1 << 22
MAX_IO_WEIGHT = 10_000
MAX_INT64 = (1 << 63) - 1
# A PID namespace of its own needs an init, and somebody outside who waits for it.
MIN_TASKS_PRIVATE_PID = 3

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,10}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9._/-]{0,250}")

NAME_RULE = 'must be 1 to 32 of a-z, 0-9 and "-", beginning with a letter'


class RestartPolicy(Enum):
    """After which kind of end a process is started again; the values are systemd's words."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class ProcessState(Enum):
    """What a process is doing; the values are those of the API."""

    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    EXITED = 4
    FAILED = 5


@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """A bound on one block device; None is no limit."""

    device: str
    read_bytes_per_second: int | None = None
    write_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process and its children may use; None is no limit."""

    memory_max_bytes: int | None = None
    cpu_max_millicpus: int | None = None
    tasks_max: int | None = None
    io_weight: int | None = None
    devices: tuple[DeviceLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """When a process is started again."""

    policy: RestartPolicy = RestartPolicy.NEVER
    delay_ms: int = 1000


@dataclass(frozen=True, slots=True)
class Process:
    """What to run, and in what surroundings.

    `environment` is sorted by name and may hold secrets: it is never shown, logged or described.
    """

    name: str
    namespace: str
    argv: tuple[str, ...]
    user: str = ""
    group: str = ""
    supplementary_groups: tuple[str, ...] = ()
    working_directory: str = ""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    private_tmp: bool = False
    private_uts: bool = False
    private_ipc: bool = False
    private_pid: bool = False
    limits: Limits = Limits()
    restart: Restart = Restart()
    persistent: bool = False
    stop_timeout_ms: int = 10_000

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name: what tells it from all others."""
        return (self.namespace, self.name)

    @property
    def unit(self) -> str:
        """The systemd unit it runs as."""
        return unit_name(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Status:
    """A process as it is. Numbers are 0 where nobody knows them; `words` say why it failed."""

    process: Process
    state: ProcessState
    main_pid: int = 0
    exit_code: int | None = None
    exit_signal: str = ""
    start_time: int = 0
    restart_count: int = 0
    memory_bytes: int = 0
    cpu_ns: int = 0
    task_count: int = 0
    out_of_memory: bool = False
    words: str = ""
    net_inode: int = 0

    @property
    def alive(self) -> bool:
        """Whether it runs, or will without anybody's doing."""
        return self.state not in {ProcessState.EXITED, ProcessState.FAILED}


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace, as far as starting a process in it goes."""

    persistent: bool = False
    hostname: str = ""
    remove_with_processes: bool = False


@dataclass(frozen=True, slots=True)
class ProcessView:
    """What a plan of a process builds on: namespaces, what was asked for, and what is seen."""

    places: Mapping[str, Place]
    desired: Mapping[tuple[str, str], Process]
    statuses: Mapping[tuple[str, str], Status]
    # The inode of each namespace, which plans must not tell: it is another on every host.
    inodes: Mapping[str, int] = field(default_factory=dict)

    def strayed(self, status: Status) -> bool:
        """Whether a process is in another namespace than the one that now has the name.

        So it is when somebody has removed the handle and the name was used again since.
        """
        there = self.inodes.get(status.process.namespace)
        return bool(there and status.net_inode and there != status.net_inode)


def unit_name(namespace: str, name: str) -> str:
    """The unit of a process; the dot is in neither name, so no two processes share one."""
    return f"hostler-run-{namespace}.{name}.service"


def check_name(value: str, path: str) -> list[Violation]:
    """Check the name of a process or namespace."""
    return [] if _NAME.fullmatch(value) else [Violation(path, NAME_RULE)]


def check_signal(word: str, path: str) -> list[Violation]:
    """Check the name of a signal, such as "SIGHUP"."""
    if word in signal.Signals.__members__:
        return []
    return [Violation(path, 'must be the name of a signal, such as "SIGHUP"')]


def check(process: Process, at: str = "process") -> list[Violation]:
    """Answer everything that is wrong with a process, whatever the host is like."""
    found = check_name(process.name, f"{at}.name")
    found += check_name(process.namespace, f"{at}.namespace")
    found += _check_argv(process.argv, f"{at}.argv")
    found += _check_accounts(process, at)
    found += _check_environment(process.environment, f"{at}.environment")
    found += _check_limits(process, f"{at}.limits")
    found += _check_times(process, at)
    directory = process.working_directory
    if directory and (not directory.startswith("/") or not _plain(directory, 4096)):
        found.append(Violation(f"{at}.working_directory", "must be an absolute path"))
    return found


def check_run(process: Process, at: str = "start") -> list[Violation]:
    """Answer everything that is wrong with a process that its caller stays with."""
    found = check(process, at)
    if process.restart.policy is not RestartPolicy.NEVER:
        found.append(Violation(f"{at}.restart.policy", "a run is never started again"))
    if process.persistent:
        found.append(Violation(f"{at}.persistent", "a run ends with its stream"))
    return found


def _plain(text: str, max_bytes: int) -> bool:
    """Whether it has no NUL or newline, and not too many bytes."""
    return "\0" not in text and "\n" not in text and len(text.encode()) <= max_bytes


def _check_argv(argv: tuple[str, ...], path: str) -> Iterable[Violation]:
    if not 1 <= len(argv) <= MAX_ARGV:
        yield Violation(path, f"must have 1 to {MAX_ARGV} items")
        return
    if not argv[0]:
        yield Violation(f"{path}[0]", "is the command and must not be empty")
    elif "/" in argv[0] and not argv[0].startswith("/"):
        yield Violation(f"{path}[0]", "must be an absolute path, or a name without slash")
    for i, word in enumerate(argv):
        if "\0" in word:
            yield Violation(f"{path}[{i}]", "must not have a NUL")
    if sum(len(word.encode()) + 1 for word in argv) > MAX_ARGV_BYTES:
        yield Violation(path, f"must have at most {MAX_ARGV_BYTES} bytes in all")


def _check_accounts(process: Process, at: str) -> Iterable[Violation]:
    rule = "must be the name or the number of a"
    if process.user and not _ACCOUNT.fullmatch(process.user):
        yield Violation(f"{at}.user", f"{rule} user")
    if process.group and not _ACCOUNT.fullmatch(process.group):
        yield Violation(f"{at}.group", f"{rule} group")
    if len(process.supplementary_groups) > MAX_GROUPS:
        yield Violation(f"{at}.supplementary_groups", f"must be at most {MAX_GROUPS}")
    for i, group in enumerate(process.supplementary_groups[:MAX_GROUPS]):
        if not _ACCOUNT.fullmatch(group):
            yield Violation(f"{at}.supplementary_groups[{i}]", f"{rule} group")


def _check_environment(environment: tuple[tuple[str, str], ...], path: str) -> Iterable[Violation]:
    for name, value in environment:
        if not _VARIABLE.fullmatch(name):
            yield Violation(f'{path}["{name[:64]}"]', "is not a name of a variable")
        elif "\0" in value:
            yield Violation(f'{path}["{name}"]', "must not have a NUL")
    size = sum(len(n.encode()) + len(v.encode()) + 2 for n, v in environment)
    if size > MAX_ENVIRONMENT_BYTES:
        yield Violation(path, f"must have at most {MAX_ENVIRONMENT_BYTES} bytes in all")


def _check_limits(process: Process, path: str) -> Iterable[Violation]:
    limits = process.limits
    least_tasks = MIN_TASKS_PRIVATE_PID if process.private_pid else 1
    for key, value, low, high in (
        ("memory_max_bytes", limits.memory_max_bytes, MIN_MEMORY_BYTES, MAX_INT64 >> 1),
        ("cpu_max_millicpus", limits.cpu_max_millicpus, MIN_MILLICPUS, MAX_MILLICPUS),
        ("tasks_max", limits.tasks_max, least_tasks, MAX_TASKS),
        ("io_weight", limits.io_weight, 1, MAX_IO_WEIGHT),
    ):
        if value is not None and not low <= value <= high:
            yield Violation(f"{path}.{key}", f"must be from {low} to {high}")
    if len(limits.devices) > MAX_DEVICES:
        yield Violation(f"{path}.devices", f"must be at most {MAX_DEVICES}")
    seen = set()
    for i, device in enumerate(limits.devices[:MAX_DEVICES]):
        yield from _check_device(device, f"{path}.devices[{i}]")
        if device.device in seen:
            yield Violation(f"{path}.devices[{i}].device", "is named twice")
        seen.add(device.device)


def _check_device(device: DeviceLimit, path: str) -> Iterable[Violation]:
    if not _DEVICE.fullmatch(device.device) or "/." in device.device:
        yield Violation(f"{path}.device", 'must be a device node, such as "/dev/sda"')
    rates = (device.read_bytes_per_second, device.write_bytes_per_second)
    if rates == (None, None):
        yield Violation(path, "must limit reading or writing")
    for key, rate in zip(("read", "write"), rates, strict=True):
        if rate is not None and not 1 <= rate <= MAX_INT64 >> 1:
            yield Violation(f"{path}.{key}_bytes_per_second", "must be at least 1")


def _check_times(process: Process, at: str) -> Iterable[Violation]:
    for path, value in (
        (f"{at}.restart.delay", process.restart.delay_ms),
        (f"{at}.stop_timeout", process.stop_timeout_ms),
    ):
        if not 0 <= value <= MAX_DELAY_MS:
            yield Violation(path, "must be from 0 to 24 hours")


def to_record(process: Process) -> dict[str, Any]:
    """Turn a process into plain values; `from_record` is the way back."""
    plain: dict[str, Any] = canonical(process)
    return plain


def from_record(plain: Mapping[str, Any]) -> Process:
    """Make a process of plain values. Raises KeyError, TypeError or ValueError if they are none."""
    limits = plain["limits"]
    devices = tuple(DeviceLimit(**d) for d in limits["devices"])
    restart = plain["restart"]
    process = Process(
        **{
            **plain,
            "argv": tuple(plain["argv"]),
            "supplementary_groups": tuple(plain["supplementary_groups"]),
            "environment": tuple((name, value) for name, value in plain["environment"]),
            "limits": Limits(**{**limits, "devices": devices}),
            "restart": Restart(RestartPolicy[restart["policy"]], restart["delay_ms"]),
        }
    )
    if check(process):
        raise ValueError("it breaks the rules of a process")
    return process
