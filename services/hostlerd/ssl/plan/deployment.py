"""What has to be done for a deployment to be as it is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint
from hostlerd.ssl.errors import (
    AcmeRateLimited,
    DeploymentNotFound,
    KeyMismatch,
    NoAcmeSource,
    TooManyDeployments,
)
from hostlerd.ssl.model.deployment import DEPLOYMENTS_MOST, Brought, Deployment, Known
from hostlerd.ssl.model.deployment_steps import (
    REASONS,
    DropKey,
    ForgetDeployment,
    InstallCertificate,
    InstallTogether,
    MakeKey,
    ObtainCertificate,
    RevokeCertificate,
    SaveDeployment,
)

#: How often an ACME server is asked for its advice, and how long a failure rests.
ADVICE = timedelta(hours=6)
REST = timedelta(hours=1)
DAY = timedelta(days=1)


def get(name: str, known: Mapping[str, Deployment]) -> Deployment:
    """Answer a deployment by its name. Raises DeploymentNotFound."""
    if name not in known:
        raise DeploymentNotFound("there is no deployment of that name", deployment=name)
    return known[name]


def apply(want: Deployment, known: Mapping[str, Deployment]) -> Plan:
    """Declare a deployment, or change it. Raises TooManyDeployments, InvalidRequest."""
    before = known.get(want.name)
    if before is None and len(known) >= DEPLOYMENTS_MOST:
        raise TooManyDeployments(f"the host holds {DEPLOYMENTS_MOST} deployments already")
    _check_files(want, known)
    steps: tuple[Step, ...] = () if want == before else (SaveDeployment(want, before),)
    return Plan(steps, _etag(before), _etag(want), result=want)


def _check_files(want: Deployment, known: Mapping[str, Deployment]) -> None:
    """No file is two deployments'. Raises InvalidRequest."""
    taken = {
        file.path: other.name
        for other in known.values()
        if other.name != want.name
        for file in other.files.values()
    }
    faults = [
        Violation(f"deployment.{what}.path", f"is a file of deployment {taken[file.path]}")
        for what, file in want.files.items()
        if file.path in taken
    ]
    if faults:
        raise InvalidRequest.of(faults)


def delete(name: str, known: Mapping[str, Known]) -> Plan:
    """Forget a deployment. One that is not there is forgotten already."""
    found = known.get(name)
    if found is None:
        return Plan()
    steps: list[Step] = [ForgetDeployment(found.deployment)]
    if found.placed.waiting_spki_sha256 or found.placed.reload_time:
        steps.append(DropKey(name))
    return Plan(tuple(steps), _etag(found.deployment))


def make_key(deployment: Deployment) -> Plan:
    """Make a new key that waits for its certificate: another one each time that it is asked."""
    return Plan((MakeKey(deployment),), _etag(deployment), _etag(deployment))


def install(known: Known, pem: str, brought: Sequence[Brought]) -> Plan:
    """Install a certificate with its issuers. Raises KeyMismatch."""
    placed, deployment = known.placed, known.deployment
    ours = [b for b in brought if b.spki_sha256 in _keys(known)]
    if not ours:
        raise KeyMismatch(
            "no key of the deployment belongs to any of these certificates",
            deployment=deployment.name,
            violations=[Violation("pem", "belongs to another key")],
        )
    leaf = ours[0]
    wanted = {b.fingerprint_sha256 for b in brought}
    there = [b.fingerprint_sha256 for b in placed.brought]
    # A root that was brought along is not put in place.
    in_place = there[:1] == [leaf.fingerprint_sha256] and wanted >= set(there)
    issuers = wanted - set(there)
    if in_place and len(issuers) <= 1 and all(s.current for s in placed.served):
        return Plan((), _etag(deployment), _etag(deployment))
    step = InstallCertificate(deployment, pem, leaf.fingerprint_sha256)
    return Plan((step,), _etag(deployment), _etag(deployment))


def install_together(plans: Sequence[Plan]) -> Plan:
    """Make one run of installations, each as `install` has planned it. Raises InvalidRequest."""
    steps = tuple(s for each in plans for s in each.steps if isinstance(s, InstallCertificate))
    etag = fingerprint([each.etag for each in plans])
    return Plan((InstallTogether(steps),) if steps else (), etag, etag)


def check_together(names: Sequence[str]) -> None:
    """Raise InvalidRequest unless there are deployments to install for, each once."""
    if not 1 <= len(names) <= DEPLOYMENTS_MOST:
        words = f"must be from 1 to {DEPLOYMENTS_MOST}"
        raise InvalidRequest.of([Violation("installs", words)])
    twice = {name for at, name in enumerate(names) if name in names[:at]}
    if twice:
        raise InvalidRequest.of([Violation("installs", f"{min(twice)} is there twice")])


def _keys(known: Known) -> set[str]:
    return {known.placed.waiting_spki_sha256, known.placed.spki_sha256} - {""}


@dataclass(frozen=True, slots=True)
class Renewal:
    """How a renewal is asked for."""

    force: bool = False
    new_key: bool = False
    obtain_only: bool = False


def renew(known: Known, how: Renewal, now: datetime) -> Plan:
    """Get a new certificate, and install it unless it is only to be had, if due or forced.

    Raises NoAcmeSource, AcmeRateLimited.
    """
    deployment, attempt = known.deployment, known.attempt
    etag = _etag(deployment)
    if deployment.acme is None:
        raise NoAcmeSource("the deployment names no ACME server", deployment=deployment.name)
    at = renew_time(known)
    if at is not None and now < at and not how.force:
        words = f"it is renewed from {at:%Y-%m-%d %H:%M} UTC on"
        return Plan((), etag, etag, (Notice("NOT_DUE", words, deployment.name),))
    if attempt.not_before > now.timestamp():
        until = datetime.fromtimestamp(attempt.not_before, UTC)
        raise AcmeRateLimited(
            f"the ACME server does not want to be asked before {until:%Y-%m-%d %H:%M:%S} UTC",
            deployment=deployment.name,
            retry_time=attempt.not_before,
        )
    fresh = how.new_key or wants_new_key(known)
    steps: tuple[Step, ...] = (MakeKey(deployment),) if fresh else ()
    steps += (ObtainCertificate(deployment, fresh),)
    if not how.obtain_only:
        steps += (InstallCertificate(deployment),)
    return Plan(steps, etag, etag)


def wants_new_key(known: Known) -> bool:
    """Whether a renewal makes a new key: where keys are reused, only if there is none in place."""
    return not (known.deployment.reuse_key and known.placed.spki_sha256)


def renew_time(known: Known) -> datetime | None:
    """Answer when the certificate in place is to be renewed; None for at once.

    That is when the ACME server advises, but before the last tenth of its life; without advice at
    two thirds of it. None that is in place, or one that lacks a name, is renewed at once.
    """
    if not known.placed.brought or _lacks_names(known):
        return None
    leaf = known.placed.brought[0]
    life = leaf.not_after - leaf.not_before
    attempt = known.attempt
    if attempt.advised and attempt.advised_for == leaf.fingerprint_sha256:
        advised = datetime.fromtimestamp(attempt.advised, UTC)
        return min(advised, leaf.not_after - life / 10)
    return leaf.not_before + life * 2 / 3


def _lacks_names(known: Known) -> bool:
    """Whether the certificate in place has not all the names that are wanted."""
    return bool(set(known.deployment.subject_names) - known.placed.brought[0].names)


def is_due(known: Known, now: datetime) -> bool:
    """Whether a deployment is to be renewed by itself now, and its last failure has rested."""
    if known.deployment.acme is None or known.attempt.not_before > now.timestamp():
        return False
    failed = known.attempt.attempt_time if known.attempt.problem else 0
    if failed and now.timestamp() < failed + REST.total_seconds():
        return False
    at = renew_time(known)
    if at is None and known.attempt.success_time + DAY.total_seconds() > now.timestamp():
        # A server that leaves a name out is not asked for it again and again.
        return False
    return at is None or now >= at


def is_overdue(known: Known, now: datetime, after_s: float) -> bool:
    """Whether a certificate that is in place should have been renewed for so long, and was not."""
    if known.deployment.acme is None:
        return False
    at = renew_time(known)
    return at is not None and (now - at).total_seconds() > after_s


def wants_advice(known: Known, now: datetime) -> bool:
    """Whether its ACME server is to be asked when it advises to renew."""
    if known.deployment.acme is None or not known.placed.brought:
        return False
    leaf = known.placed.brought[0].fingerprint_sha256
    rested = known.attempt.asked_time + ADVICE.total_seconds() <= now.timestamp()
    return rested or known.attempt.advised_for not in ("", leaf)


def revoke(known: Known, fingerprint_sha256: str, reason: str) -> Plan:
    """Have a certificate revoked. Raises NoAcmeSource, InvalidRequest."""
    deployment = known.deployment
    if deployment.acme is None:
        raise NoAcmeSource("the deployment names no ACME server", deployment=deployment.name)
    installed = known.placed.brought[0].fingerprint_sha256 if known.placed.brought else ""
    which = fingerprint_sha256 or installed
    if not which:
        words = "must be given: no certificate is installed"
        raise InvalidRequest.of([Violation("fingerprint_sha256", words)])
    if reason not in REASONS:
        words = f"must be empty or one of {', '.join(filter(None, REASONS))}"
        raise InvalidRequest.of([Violation("reason", words)])
    step = RevokeCertificate(deployment, which, reason)
    return Plan((step,), _etag(deployment), _etag(deployment))


def _etag(deployment: Deployment | None) -> str:
    return fingerprint(deployment) if deployment else ""
