"""Processes: what was asked for, on record, and what the launcher says and does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hostlerd.netns.errors import LauncherUnavailable, ProcessNotStarted
from hostlerd.netns.kernel import handles
from hostlerd.netns.kernel.launcher_client import SOCKET, Launcher
from hostlerd.netns.kernel.records import Records, sweep, write_atomically
from hostlerd.netns.kernel.running import Running
from hostlerd.netns.kernel.task import is_ours, process_of
from hostlerd.netns.model.process import (
    Limits,
    Place,
    Process,
    ProcessState,
    ProcessView,
    Status,
    from_record,
    to_record,
)
from hostlerd.netns.model.process_steps import (
    EvictTasks,
    ForgetProcess,
    SaveProcess,
    SignalProcess,
    StartProcess,
    StopProcess,
)
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.host import Capability
from hostlerd.runtime.log import get_log

log = get_log("netns.process")

_MAX_BYTES = 1 << 20
_FILE = re.compile(r"([a-z][a-z0-9-]{0,31})\.([a-z][a-z0-9-]{0,31})\.json")
_STATES = {
    "active": ProcessState.RUNNING,
    "reloading": ProcessState.RUNNING,
    "activating": ProcessState.STARTING,
    "deactivating": ProcessState.STOPPING,
    "failed": ProcessState.FAILED,
}


def probe_launcher() -> Capability:
    """Whether the launcher's socket is there: without it, no process can be started."""
    name = "launcher"
    if not SOCKET.is_socket():
        return Capability(name, False, f"there is no socket {SOCKET}")
    return Capability(name, True)


class Processes:
    """The processes that Hostler started."""

    def __init__(self, state_dir: Path, run_dir: Path, launcher: Launcher) -> None:
        self.launcher = launcher
        self._records = Records(state_dir, run_dir)
        self._lasting = state_dir / "processes"
        self._passing = run_dir / "processes"

    def view(self, namespace: str = "", name: str = "") -> ProcessView:
        """See what is there; empty names stand for all. Blocks. Raises LauncherUnavailable."""
        desired = {
            process.key: process
            for process in self.desired().values()
            if namespace in {"", process.namespace} and name in {"", process.name}
        }
        statuses = {}
        for shown in self.launcher.status(namespace, name):
            key = (shown["namespace"], shown["name"])
            statuses[key] = to_status(shown, desired.get(key) or _unrecorded(shown))
        for key, process in desired.items():
            # A boot has ended what is only on record.
            statuses.setdefault(key, Status(process, ProcessState.EXITED))
        inodes = handles.inodes()
        return ProcessView(
            self._places(inodes),
            MappingProxyType(desired),
            MappingProxyType(statuses),
            MappingProxyType(inodes),
        )

    def steps(self) -> Mapping[type, Callable[[Any], None]]:
        """How each step about processes is carried out."""
        return MappingProxyType(
            {
                SaveProcess: lambda step: self.save(step.process),
                ForgetProcess: lambda step: self.forget(step.namespace, step.name),
                StartProcess: lambda step: self.start(step.process, step.place),
                StopProcess: self._stop,
                EvictTasks: lambda step: self.launcher.evict(step.namespace),
                SignalProcess: lambda s: self.launcher.signal(s.namespace, s.name, s.signal),
            }
        )

    def start(self, process: Process, place: Place) -> None:
        """Start a process. Raises InvalidRequest, ProcessNotStarted, and what Launcher raises."""
        try:
            self.launcher.start(to_unit(process, place))
        except LauncherUnavailable:
            # It may run all the same, and a step that fails is to leave nothing.
            with suppress(DomainError):
                self.launcher.stop(*process.key, process.stop_timeout_ms / 1000)
            raise

    def run(self, process: Process) -> Running:
        """Run a process whose caller stays with it. Blocks until it runs.

        Raises NamespaceNotFound, and what `start` raises.
        """
        place = self._places(handles.inodes()).get(process.namespace, Place())
        return Running.open(self.launcher, to_unit(process, place))

    def strangers(self, inode: int) -> tuple[int, ...]:
        """The PIDs in a network namespace that Hostler did not start; none for 0."""
        if not inode:
            return ()
        tasks, _ = self.launcher.tasks(net=inode)
        return tuple(
            task["pid"]
            for task in tasks
            if process_of(task["cgroup"]) is None and not is_ours(task["cgroup"])
        )

    def save(self, process: Process) -> None:
        """Record what was asked for; synced to disk if it is to survive a boot."""
        folder, other = self._passing, self._lasting
        if process.persistent:
            folder, other = other, folder
        text = json.dumps(to_record(process), indent=1) + "\n"
        write_atomically(folder / _file(*process.key), text, durable=process.persistent)
        (other / _file(*process.key)).unlink(missing_ok=True)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the record; one that is not there is no error."""
        for folder in (self._lasting, self._passing):
            (folder / _file(namespace, name)).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed writers have left. Only while no change is carried out."""
        for folder in (self._lasting, self._passing):
            sweep(folder)

    def desired(self) -> dict[tuple[str, str], Process]:
        """Read all records. One that cannot be read is logged and left out."""
        found = {}
        for folder in (self._lasting, self._passing):
            for path in sorted(folder.glob("*.json")):
                process = _read(path)
                if process:
                    found[process.key] = process
        return found

    def restore(self) -> None:
        """Start again what a boot is to bring back. Raises ProcessNotStarted, naming each failure.

        Namespaces are restored before.
        """
        view = self.view()
        failures = []
        for key, process in sorted(view.desired.items()):
            if not process.persistent or view.statuses[key].alive:
                continue
            try:
                self.start(process, view.places.get(process.namespace, Place()))
                log.info("process restored", namespace=key[0], name=key[1])
            except DomainError as e:
                failures.append(f"{key[0]}/{key[1]}: {e.message}")
        if failures:
            raise ProcessNotStarted("; ".join(failures))

    def _stop(self, step: StopProcess) -> None:
        recorded = self.desired().get((step.namespace, step.name))
        known = step.before or recorded
        wait_ms = known.stop_timeout_ms if known else 0
        self.launcher.stop(step.namespace, step.name, wait_ms / 1000)
        if recorded is None:
            # A record that cannot be read has no step of its own, and would stay.
            self.forget(step.namespace, step.name)

    def _places(self, inodes: Mapping[str, int]) -> Mapping[str, Place]:
        records = self._records.all()
        places = {}
        for name, inode in inodes.items():
            if inode:
                record = records.get(name)
                known = record.namespace if record else None
                places[name] = (
                    Place(known.persistent, known.hostname, known.remove_with_processes)
                    if known
                    else Place()
                )
        return MappingProxyType(places)


def to_unit(process: Process, place: Place) -> dict[str, Any]:
    """Say it in the launcher's grammar; what is not asked for is left out."""
    unit: dict[str, Any] = {
        "namespace": process.namespace,
        "name": process.name,
        "argv": list(process.argv),
        "environment": dict(process.environment),
        "private_tmp": process.private_tmp,
        "private_uts": process.private_uts,
        "private_ipc": process.private_ipc,
        "private_pid": process.private_pid,
        "hostname": place.hostname or process.namespace,
        "limits": _limits(process.limits),
        "restart": process.restart.policy.value,
        "restart_delay_ms": process.restart.delay_ms,
        "stop_timeout_ms": process.stop_timeout_ms,
        "remove_namespace": place.remove_with_processes,
        "supplementary_groups": list(process.supplementary_groups),
    }
    for key in ("user", "group", "working_directory"):
        if value := getattr(process, key):
            unit[key] = value
    return unit


def to_status(shown: Mapping[str, Any], process: Process) -> Status:
    """Make a status of what the launcher shows of a unit. Source: systemd's unit states."""
    end = shown["end"]
    state = _STATES.get(shown["active"])
    if state is None:
        clean = end.get("result", "success") == "success"
        state = ProcessState.EXITED if clean else ProcessState.FAILED
    over = state in {ProcessState.EXITED, ProcessState.FAILED}
    code, signal_name = how_it_ended(end) if over and end else (None, "")
    return Status(
        process=process,
        state=state,
        main_pid=shown["main_pid"],
        exit_code=code,
        exit_signal=signal_name,
        start_time=shown["start_time"],
        restart_count=shown["restarts"],
        memory_bytes=shown["memory_bytes"],
        cpu_ns=shown["cpu_ns"],
        task_count=shown["tasks"],
        out_of_memory=over and ran_out_of_memory(end),
        words=shown["words"],
        net_inode=shown["net_inode"],
    )


def how_it_ended(end: Mapping[str, Any]) -> tuple[int | None, str]:
    """The exit status and the signal's name, of which one is there.

    Source: systemd.exec(5), $EXIT_CODE and $EXIT_STATUS.
    """
    status = str(end.get("exit_status", ""))
    if end.get("exit_code") == "exited" and status.isdigit():
        return int(status), ""
    return None, f"SIG{status}" if status else ""


def ran_out_of_memory(end: Mapping[str, Any]) -> bool:
    """Whether the kernel ended it, or a process of its control group, for want of memory.

    Source: systemd.exec(5), $SERVICE_RESULT; OOMPolicy= in systemd.service(5).
    """
    return end.get("result") == "oom-kill"


def _unrecorded(shown: Mapping[str, Any]) -> Process:
    """A process that is on no record of ours, such as a run, as far as the launcher tells it."""
    shape = {**shown["shape"]}
    argv = tuple(shape.pop("argv", ()))
    return Process(shown["name"], shown["namespace"], argv, **shape)


def _limits(limits: Limits) -> dict[str, Any]:
    known = {
        "memory_max_bytes": limits.memory_max_bytes,
        "cpu_max_millicpus": limits.cpu_max_millicpus,
        "tasks_max": limits.tasks_max,
        "io_weight": limits.io_weight,
    }
    plain: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
    plain["devices"] = [
        {
            key: value
            for key, value in (
                ("device", device.device),
                ("read_bytes_per_second", device.read_bytes_per_second),
                ("write_bytes_per_second", device.write_bytes_per_second),
            )
            if value is not None
        }
        for device in limits.devices
    ]
    return plain


def _file(namespace: str, name: str) -> str:
    return f"{namespace}.{name}.json"


def _read(path: Path) -> Process | None:
    try:
        if path.stat().st_size > _MAX_BYTES or not _FILE.fullmatch(path.name):
            raise ValueError("it is none of ours")
        process = from_record(json.loads(path.read_bytes()))
        if _file(*process.key) != path.name:
            raise ValueError("it is of another process")
        return process
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        log.warning("record of a process cannot be read", path=path, problem=e)
        return None
