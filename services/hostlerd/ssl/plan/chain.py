"""What has to be done for a chain to be as it is to be served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, fingerprint
from hostlerd.ssl.errors import NoChainFile
from hostlerd.ssl.model.chain import Built, WriteChainFile
from hostlerd.ssl.model.deployment import Deployment, Known
from hostlerd.ssl.model.deployment_steps import InstallCertificate

_WITH_ISSUERS = ("chain", "full_chain", "bundle")


def complete(known: Known, built: Built) -> Plan:
    """Have a deployment serve its certificate with this chain. Raises NoChainFile."""
    deployment = known.deployment
    if not set(_WITH_ISSUERS) & deployment.files.keys():
        raise NoChainFile(
            "the deployment has no chain, full_chain or bundle", deployment=deployment.name
        )
    etag = fingerprint(deployment)
    there = tuple(b.fingerprint_sha256 for b in known.placed.brought)
    if there == built.fingerprints and all(s.current for s in known.placed.served):
        return Plan((), etag, etag)
    step = InstallCertificate(deployment, built.pem, built.fingerprints[0])
    return Plan((step,), etag, etag, _difference(built, deployment.name))


def write(
    path: str, built: Built, known: Mapping[str, Deployment], readers: Iterable[str] = ()
) -> Plan:
    """Write a chain to a file; `readers` are the servers whose configuration names it.

    Raises InvalidRequest for a file of a deployment: its servers have to be seen serving it.
    """
    for one in known.values():
        if any(file.path == path for file in one.files.values()):
            words = f"is a file of deployment {one.name}: name that"
            raise InvalidRequest.of([Violation("target", words)])
    etag, etag_after = fingerprint(built.before), fingerprint(built.certificates)
    if built.before == built.certificates:
        return Plan((), etag, etag)
    notices = _difference(built, path)
    for server in sorted(set(readers)):
        words = f"{server} reads it when it is reloaded next, which nobody asks it to"
        notices += (Notice("NOT_RELOADED", words, path),)
    step = WriteChainFile(path, built.pem, tuple(subject for _, subject in built.certificates))
    return Plan((step,), etag, etag_after, notices)


def _difference(built: Built, subject: str) -> tuple[Notice, ...]:
    """What comes, and what goes."""
    added = [s for f, s in built.certificates if (f, s) not in built.before]
    gone = [s for f, s in built.before if (f, s) not in built.certificates]
    told = [f"adds {s}" for s in added] + [f"leaves out {s}" for s in gone]
    return (Notice("CHAIN", "; ".join(told or ["puts it in order"]), subject),)
