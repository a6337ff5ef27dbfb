"""The ssl daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostler.api.ssl.v1 import (
    authority_pb2,
    authority_pb2_grpc,
    certificate_pb2,
    certificate_pb2_grpc,
    chain_pb2,
    chain_pb2_grpc,
    deployment_pb2,
    deployment_pb2_grpc,
    endpoint_pb2,
    endpoint_pb2_grpc,
    library_pb2,
    library_pb2_grpc,
    scan_pb2,
    scan_pb2_grpc,
)
from hostlerd.runtime.config import ConfigurationInvalid
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.server import main
from hostlerd.ssl.kernel import chains
from hostlerd.ssl.kernel.deployments import Deployments, Settings
from hostlerd.ssl.kernel.installer_client import Installer
from hostlerd.ssl.kernel.probe import PROBES
from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.kernel.signer import AuthorityKernel, Signer
from hostlerd.ssl.model.reachable import Network, read_networks
from hostlerd.ssl.service.authority import CertificateAuthorityService
from hostlerd.ssl.service.certificate import CertificateService
from hostlerd.ssl.service.chain import ChainService
from hostlerd.ssl.service.deployment import DeploymentService
from hostlerd.ssl.service.endpoint import EndpointService
from hostlerd.ssl.service.library import LibraryService
from hostlerd.ssl.service.observing import Observer
from hostlerd.ssl.service.scan import ScanService
from hostlerd.ssl.service.upkeep import Upkeep

AUTHORITY, DEPLOYMENTS = "authority", "deployments"
"""The edges of the domain's changes, as journals name them."""


def build(runtime: Runtime) -> Domain:
    """Put the domain together. It has nothing that a boot would have to bring back.

    Raises ConfigurationInvalid.
    """
    try:
        settings = Settings.of(runtime.config)
        may_fetch = chains.fetches(runtime.config)
    except ValueError as e:
        raise ConfigurationInvalid(f"ssl.{e}") from e
    reader, signer, networks = Reader(), Signer(), scan_networks(runtime.config)
    observer = Observer(reader)
    authority = CertificateAuthorityService(
        runtime, signer, runtime.changes(AuthorityKernel(signer), AUTHORITY)
    )
    deployments = Deployments(runtime.state_dir, Installer(), settings)
    changes = runtime.changes(deployments, DEPLOYMENTS)
    deployment = DeploymentService(runtime, deployments, changes)
    chain = ChainService(runtime, observer, deployments, changes, may_fetch=may_fetch)
    upkeep = Upkeep(deployments)
    return Domain(
        services=(
            _service(certificate_pb2, certificate_pb2_grpc, CertificateService(runtime, observer)),
            _service(endpoint_pb2, endpoint_pb2_grpc, EndpointService(runtime, observer)),
            _service(library_pb2, library_pb2_grpc, LibraryService(runtime, reader)),
            _service(authority_pb2, authority_pb2_grpc, authority),
            _service(deployment_pb2, deployment_pb2_grpc, deployment),
            _service(chain_pb2, chain_pb2_grpc, chain),
            _service(scan_pb2, scan_pb2_grpc, ScanService(runtime, networks)),
        ),
        probes=PROBES,
        due=upkeep.due,
        upkeep=upkeep.work,
    )


def scan_networks(config: Mapping[str, Any]) -> tuple[Network, ...]:
    """Where this host may scan besides its own addresses. Raises ConfigurationInvalid."""
    try:
        return read_networks(config.get("scan_networks", []))
    except ValueError as e:
        raise ConfigurationInvalid(f"ssl.scan_networks: {e}") from e


def _service(messages: Any, generated: Any, servicer: Any) -> Service:
    """Answer a service by its servicer, whose class has the service's name."""
    name = type(servicer).__name__
    add = getattr(generated, f"add_{name}Servicer_to_server")
    return Service(messages.DESCRIPTOR.services_by_name[name], add, servicer)


if __name__ == "__main__":
    main("ssl", build)
