"""The firewall daemon, and what a boot brings back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hostler.api.firewall.v1 import (
    address_set_pb2,
    address_set_pb2_grpc,
    connection_pb2,
    connection_pb2_grpc,
    counter_pb2,
    counter_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
    packet_log_pb2,
    packet_log_pb2_grpc,
    ruleset_pb2,
    ruleset_pb2_grpc,
)
from hostlerd.firewall.errors import NftRejected, ScratchUnavailable
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.kernel.neighbours import neighbours
from hostlerd.firewall.kernel.packet_log import PacketLog, configured
from hostlerd.firewall.kernel.probe import PROBES
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.plan import change, table
from hostlerd.firewall.service.address_set import AddressSetService
from hostlerd.firewall.service.connection import ConnectionService
from hostlerd.firewall.service.counter import RuleCounterService
from hostlerd.firewall.service.packet_log import PacketLogService
from hostlerd.firewall.service.preview import PreviewService
from hostlerd.firewall.service.ruleset import RulesetService
from hostlerd.runtime.config import ConfigurationInvalid
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.log import get_log
from hostlerd.runtime.server import main

log = get_log("firewall")


def build(runtime: Runtime) -> Domain:
    """Put the domain together. Raises ConfigurationInvalid."""
    try:
        kernel = Kernel(runtime.config, runtime.state_dir, runtime.run_dir)
    except (TypeError, ValueError) as e:
        raise ConfigurationInvalid(f"firewall.management_networks: {e}") from e
    changes = runtime.changes(kernel)
    try:
        packet_log = PacketLog(most_packets=configured(runtime.config))
    except ValueError as e:
        raise ConfigurationInvalid(f"firewall.packet_log_records: {e}") from e
    return Domain(
        services=(
            _service(ruleset_pb2, ruleset_pb2_grpc, RulesetService(runtime, kernel, changes)),
            _service(connection_pb2, connection_pb2_grpc, ConnectionService(runtime, changes)),
            _service(counter_pb2, counter_pb2_grpc, RuleCounterService(runtime, kernel)),
            _service(packet_log_pb2, packet_log_pb2_grpc, PacketLogService(runtime, packet_log)),
            _service(
                address_set_pb2,
                address_set_pb2_grpc,
                AddressSetService(runtime, kernel, changes),
            ),
            _service(explain_pb2, explain_pb2_grpc, PreviewService(runtime, kernel, changes)),
        ),
        probes=PROBES,
        neighbours=neighbours,
        restore=lambda: restore(kernel),
        tidy=kernel.sweep,
        due=lambda: _soonest(kernel.due(), packet_log.due()),
        upkeep=lambda: _keep_up(kernel, packet_log),
    )


def _service(messages: Any, generated: Any, servicer: Any) -> Service:
    """Answer a service by its servicer, whose class has the service's name."""
    name = type(servicer).__name__
    add = getattr(generated, f"add_{name}Servicer_to_server")
    return Service(messages.DESCRIPTOR.services_by_name[name], add, servicer)


def _soonest(*due_s: float | None) -> float | None:
    return min((s for s in due_s if s is not None), default=None)


def _keep_up(kernel: Kernel, packet_log: PacketLog) -> tuple[str, ...]:
    # What a reader leaves behind is nothing that a record would be about.
    packet_log.end()
    return upkeep(kernel)


def upkeep(kernel: Kernel) -> tuple[str, ...]:
    """Take away what has ended; answers what was done. Raises DomainError, OSError."""
    steps = change.upkeep(kernel.observe()).steps
    with kernel.applying() as apply:
        for step in steps:
            apply(step)
    return tuple(step.describe() for step in steps)


def restore(kernel: Kernel) -> None:
    """Bring back all that is saved; run again, it puts right what has drifted.

    A ruleset that cannot be read, or that the kernel does not take any more, is left out and told
    in the log; then the exit status is 1, with the others in force.
    """
    state = kernel.observe()
    for name, why in state.unreadable.items():
        log.error("ruleset left out", ruleset=name, problem=why)
    rulesets = _that_load(kernel, state.rulesets)
    with kernel.applying() as apply:
        for step in change.restore(rulesets, state).steps:
            log.info("restore", step=step.describe())
            apply(step)
    if state.unreadable or len(rulesets) < len(state.rulesets):
        sys.exit(1)


def _that_load(kernel: Kernel, rulesets: Mapping[str, Ruleset]) -> dict[str, Ruleset]:
    """Answer all rulesets, or if the kernel does not take them together, those it does."""
    if _loads(kernel, rulesets):
        return dict(rulesets)
    kept: dict[str, Ruleset] = {}
    for r in table.in_order(rulesets.values()):
        if _loads(kernel, {**kept, r.name: r}):
            kept[r.name] = r
        else:
            log.error("ruleset left out", ruleset=r.name, problem="the kernel does not take it")
    return kept


def _loads(kernel: Kernel, rulesets: Mapping[str, Ruleset]) -> bool:
    text = table.compile_table(rulesets.values(), kernel.management)
    try:
        if text:
            kernel.check(text)
    except ScratchUnavailable as e:
        log.warning("unchecked", problem=e.message)
    except NftRejected as e:
        log.error("table refused", problem=e.message)
        return False
    return True


if __name__ == "__main__":
    main("firewall", build)
