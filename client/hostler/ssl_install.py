"""Certificates of several deployments put in place on a host: each server is reloaded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.api.ssl.v1 import deployment_pb2
from hostler.channel import rpc
from hostler.config import ConfigError
from hostler.core.files import read_bounded
from hostler.core.ssl.together import together
from hostler.outcome import settled
from hostler.results import CallFailed, HostError

if TYPE_CHECKING:
    from hostler.session import Session

_INSTALL = rpc(deployment_pb2, "DeploymentService", "InstallCertificates")
_LIST = rpc(deployment_pb2, "DeploymentService", "ListDeployments")
# After these nothing else of the host would be answered either.
GONE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
# Servers take their time to serve what is new, and once more if it is taken back.
_RUN_S = 300.0
_MOST_BYTES = 1 << 20


def read_certificates(path: Path) -> str:
    """A file of certificates in PEM, to be installed. Raises ConfigError, also if it has a key."""
    try:
        text = read_bounded(path, _MOST_BYTES).decode("ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if "PRIVATE KEY-----" in text:
        raise ConfigError(f"{path}: has a private key in it, which is not sent anywhere")
    return text


@dataclass(frozen=True, slots=True)
class Brought:
    """A certificate for a deployment, PEM, and the units of its servers.

    An empty `pem` means what the host itself got from the deployment's ACME server.
    """

    name: str
    pem: str
    units: frozenset[str]


@dataclass(slots=True)
class Installed:
    """What came of it: the answers by the names of each run, what is in place, what went wrong."""

    answers: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    problems: list[HostError] = field(default_factory=list)


async def install(
    session: Session, brought: Sequence[Brought], id_of: Callable[[str], str]
) -> Installed:
    """Install in one run what shares a server; if that is refused, each by itself.

    `id_of` makes the id of a request of what is asked, the same for a retry. Ends early if the host
    does not answer any more.
    """
    done = Installed()
    runs = together(brought, lambda one: one.units)
    while runs and not are_gone(done.problems):
        run = runs.pop(0)
        names = [one.name for one in run]
        told = ", ".join(names)
        try:
            done.answers[told] = await _ask(session, run, id_of(f"install {told}"))
            done.names += names
        except CallFailed as failed:
            if len(run) > 1 and failed.error.code not in GONE:
                runs = [*([one] for one in run), *runs]
            else:
                done.problems.append(of(told, failed))
    return done


async def _ask(session: Session, run: Sequence[Brought], request_id: str) -> Any:
    asked = deployment_pb2.InstallCertificatesRequest()
    for one in run:
        asked.installs.add(name=one.name, pem=one.pem)
    asked.change.request_id = request_id
    return settled(await patiently(session, _INSTALL, asked, _RUN_S))


async def patiently(session: Session, method: Any, request: Any, within_s: float) -> Any:
    """Call a method that may take longer than a call: ask again, as long as its host lives.

    The request has an id: to ask again is to wait for what is being done. Raises CallFailed.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            return await session.call(method, request)
        except CallFailed as failed:
            if failed.error.code != "DEADLINE_EXCEEDED" or time.monotonic() > until:
                raise
            try:
                # Whoever answers this within a call's time is at work, and not gone.
                await session.call(_LIST, deployment_pb2.ListDeploymentsRequest())
            except CallFailed:
                raise failed from None


def of(name: str, failed: CallFailed) -> HostError:
    """The error of a part, with its name."""
    return replace(failed.error, message=f"{name}: {failed.error.message}")


def are_gone(problems: Sequence[HostError]) -> bool:
    """Whether the host does not answer any more, after the last of these."""
    return bool(problems) and problems[-1].code in GONE
