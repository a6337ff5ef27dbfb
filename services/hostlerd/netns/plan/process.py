"""Plans of the changes of processes: start, stop, signal."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.netns.errors import (
    NamespaceNotFound,
    NamespaceNotPersistent,
    ProcessDiffers,
    ProcessNotFound,
    ProcessNotRunning,
    ProcessStopping,
)
from hostlerd.netns.model.process import (
    Place,
    Process,
    ProcessState,
    ProcessView,
    Status,
    check,
    check_name,
    check_signal,
)
from hostlerd.netns.model.process_steps import (
    EvictTasks,
    ForgetProcess,
    SaveProcess,
    SignalProcess,
    StartProcess,
    StopProcess,
)
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint


def start(want: Process, have: ProcessView) -> Plan:
    """Plan a process that is to run; if one of that name and shape does, nothing is done.

    One that has ended is started again, in whichever shape, and so is one that runs in a namespace
    which has lost its name to another. Raises InvalidRequest,
    NamespaceNotFound, NamespaceNotPersistent, ProcessDiffers, ProcessStopping.
    """
    if found := check(want):
        raise InvalidRequest.of(found)
    place = place_of(want, have)
    if want.persistent and not place.persistent:
        words = f"namespace {want.namespace} is not persistent"
        raise NamespaceNotPersistent(
            words, violations=[Violation("process.persistent", words)], namespace=want.namespace
        )
    desired, status = have.desired.get(want.key), have.statuses.get(want.key)
    if status and status.state is ProcessState.STOPPING:
        raise ProcessStopping(
            "the process of that name is being stopped", namespace=want.namespace, name=want.name
        )
    if status and status.alive and have.strayed(status):
        return _bring_back(want, desired, place)
    if status and status.alive:
        if desired != want:
            raise ProcessDiffers(
                "a process of that name and another shape runs",
                namespace=want.namespace,
                name=want.name,
            )
        return Plan(etag=etag_of(desired), etag_after=etag_of(desired), result=status)
    return Plan(
        steps=(SaveProcess(want, desired), StartProcess(want, place)),
        etag=etag_of(desired),
        etag_after=etag_of(want),
        result=Status(want, ProcessState.STARTING),
    )


def _bring_back(want: Process, desired: Process | None, place: Place) -> Plan:
    """Plan the end of a process in a namespace that has lost its name, and its start in the new."""
    words = "its process was left in a namespace of that name that is no longer reached by it"
    return Plan(
        steps=(
            # There is no way back into that namespace.
            StopProcess(*want.key, place),
            SaveProcess(want, desired),
            StartProcess(want, place),
        ),
        etag=etag_of(desired),
        etag_after=etag_of(want),
        notices=(Notice("PROCESS_STRAYED", words, f"{want.namespace}/{want.name}"),),
        result=Status(want, ProcessState.STARTING),
    )


def stop(namespace: str, name: str, have: ProcessView) -> Plan:
    """Plan the end of a process; one that is not there needs nothing. Raises InvalidRequest."""
    _check_names(namespace, name)
    desired = have.desired.get((namespace, name))
    steps = stop_steps(namespace, name, have)
    return Plan(steps=steps, etag=etag_of(desired), etag_after="" if steps else etag_of(desired))


def stop_steps(namespace: str, name: str, have: ProcessView) -> tuple[Step, ...]:
    """The steps that stop and forget a process."""
    key = (namespace, name)
    desired, status = have.desired.get(key), have.statuses.get(key)
    steps: list[Step] = []
    if status:
        before = desired if status.alive else None
        steps.append(StopProcess(*key, have.places.get(namespace, Place()), before))
    if desired:
        steps.append(ForgetProcess(*key, desired))
    return tuple(steps)


def stop_all(namespace: str, have: ProcessView, strangers: Sequence[int] = ()) -> tuple[Step, ...]:
    """The steps that stop and forget all processes of a namespace, such as before its end.

    `strangers` are the processes in it that Hostler did not start.
    """
    names = sorted(k[1] for k in have.desired.keys() | have.statuses.keys() if k[0] == namespace)
    steps = tuple(step for name in names for step in stop_steps(namespace, name, have))
    return (*steps, EvictTasks(namespace, tuple(strangers))) if strangers else steps


def send_signal(namespace: str, name: str, word: str, have: ProcessView) -> Plan:
    """Plan a signal. Raises InvalidRequest, ProcessNotFound, ProcessNotRunning."""
    _check_names(namespace, name, check_signal(word, "signal"))
    status = have.statuses.get((namespace, name))
    if status is None:
        raise not_found(namespace, name)
    if not status.main_pid:
        raise ProcessNotRunning("the process does not run", namespace=namespace, name=name)
    etag = etag_of(have.desired.get((namespace, name)))
    return Plan(steps=(SignalProcess(namespace, name, word),), etag=etag, etag_after=etag)


def place_of(want: Process, have: ProcessView) -> Place:
    """The namespace that the process is to join. Raises NamespaceNotFound."""
    try:
        return have.places[want.namespace]
    except KeyError:
        raise NamespaceNotFound(
            f"there is no network namespace {want.namespace}", name=want.namespace
        ) from None


def not_found(namespace: str, name: str) -> ProcessNotFound:
    """The error that there is no such process."""
    return ProcessNotFound(
        f"there is no process {namespace}/{name}", namespace=namespace, name=name
    )


def etag_of(process: Process | None) -> str:
    """Changes with every change of what was asked for; empty if there is no such process."""
    return fingerprint(process) if process else ""


def _check_names(namespace: str, name: str, more: list[Violation] | None = None) -> None:
    found = check_name(namespace, "namespace") + check_name(name, "name") + (more or [])
    if found:
        raise InvalidRequest.of(found)
