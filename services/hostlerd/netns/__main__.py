"""The netns daemon, and what a boot brings back."""

from __future__ import annotations

import sys

from hostler.api.netns.v1 import (
    counter_pb2,
    counter_pb2_grpc,
    namespace_pb2,
    namespace_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
)
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.kernel.handles import LauncherHandles
from hostlerd.netns.kernel.launcher_client import Launcher
from hostlerd.netns.kernel.neighbours import neighbours
from hostlerd.netns.kernel.probe import PROBES
from hostlerd.netns.kernel.process import Processes, probe_launcher
from hostlerd.netns.kernel.task import LauncherTasks
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.pool import read_pools
from hostlerd.netns.plan.process import stop_all
from hostlerd.netns.service.counter import CounterService
from hostlerd.netns.service.namespace import NamespaceService
from hostlerd.netns.service.process import ProcessService
from hostlerd.runtime.config import ConfigurationInvalid
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log
from hostlerd.runtime.server import main
from hostlerd.runtime.steps import Step

log = get_log("netns")


class Stopping:
    """Ends processes in namespaces; see service.namespace.Stopping."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def steps(self, namespace: str, inode: int) -> tuple[Step, ...]:
        """Answer the steps that end all that is in a namespace, and forget what Hostler started."""
        strangers = self._processes.strangers(inode)
        return stop_all(namespace, self._processes.view(namespace), strangers)


def build(runtime: Runtime) -> Domain:
    """Put the domain together. Raises ConfigurationInvalid."""
    try:
        pools = read_pools(runtime.config)
    except ValueError as e:
        raise ConfigurationInvalid(str(e)) from e
    launcher = Launcher()
    processes = Processes(runtime.state_dir, runtime.run_dir, launcher)
    kernel = Kernel(
        runtime.state_dir,
        runtime.run_dir,
        handles=LauncherHandles(launcher),
        tasks=LauncherTasks(launcher),
        others=processes.steps(),
    )
    changes = runtime.changes(kernel)
    namespaces = NamespaceService(runtime, kernel, changes, pools, Stopping(processes))
    return Domain(
        services=(
            Service(
                namespace_pb2.DESCRIPTOR.services_by_name["NamespaceService"],
                namespace_pb2_grpc.add_NamespaceServiceServicer_to_server,
                namespaces,
            ),
            Service(
                process_pb2.DESCRIPTOR.services_by_name["ProcessService"],
                process_pb2_grpc.add_ProcessServiceServicer_to_server,
                ProcessService(runtime, processes, changes),
            ),
            Service(
                counter_pb2.DESCRIPTOR.services_by_name["CounterService"],
                counter_pb2_grpc.add_CounterServiceServicer_to_server,
                CounterService(runtime, kernel),
            ),
        ),
        probes=(*PROBES, probe_launcher),
        neighbours=neighbours,
        restore=lambda: restore(kernel, processes),
        tidy=lambda: tidy(kernel, processes),
    )


def tidy(kernel: Kernel, processes: Processes) -> None:
    """Remove what killed processes have left."""
    kernel.sweep()
    processes.sweep()


def restore(kernel: Kernel, processes: Processes) -> None:
    """Bring back every persistent namespace, then the persistent processes.

    One that fails is told in the log and keeps no other from coming back; the exit status is 1
    then. Run again, it puts right what is missing or has drifted.
    """
    failed = False
    for name in kernel.persistent():
        try:
            restore_one(kernel, name)
        except (DomainError, OSError) as e:
            log.error("namespace not restored", name=name, problem=e)
            failed = True
    try:
        processes.restore()
    except DomainError as e:
        log.error("processes not restored", problem=e.message)
        failed = True
    if failed:
        sys.exit(1)


def restore_one(kernel: Kernel, name: str) -> None:
    """Bring back one namespace as it is on record. Raises OSError or DomainError."""
    state = kernel.observe([name])
    seen = state.namespaces.get(name)
    if seen is None or seen.record is None:
        log.error("namespace not restored", name=name, problem=seen.record_problem if seen else "")
        return
    with kernel.applying() as apply:
        for step in plan.restore(seen.record, state).steps:
            log.info("restore", step=step.describe())
            apply(step)


if __name__ == "__main__":
    main("netns", build)
