"""What the ssl domain refuses, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class CertificateNotFound(DomainError):
    """There is no certificate of that fingerprint on the host."""

    code, reason = Code.NOT_FOUND, "CERTIFICATE_NOT_FOUND"


class ReaderUnavailable(DomainError):
    """The process that reads keys and processes does not answer; the message says why."""

    code, reason = Code.UNAVAILABLE, "READER_UNAVAILABLE"


class ScanNotPermitted(DomainError):
    """This host scans its own addresses, and those that its configuration names."""

    code, reason = Code.FAILED_PRECONDITION, "SCAN_NOT_PERMITTED"


class AuthorityNotFound(DomainError):
    """The host has no authority, or none for this use."""

    code, reason = Code.FAILED_PRECONDITION, "AUTHORITY_NOT_FOUND"


class AuthorityUnusable(DomainError):
    """The authority cannot do it: its key is locked, its configuration or its files are damaged."""

    code, reason = Code.FAILED_PRECONDITION, "AUTHORITY_UNUSABLE"


class ProfileNotFound(DomainError):
    """The host's configuration has no such profile."""

    code, reason = Code.NOT_FOUND, "PROFILE_NOT_FOUND"


class NotAllowedByProfile(DomainError):
    """The profile does not allow it; the violations name what, and why."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_ALLOWED_BY_PROFILE"


class CertificateNotIssued(DomainError):
    """The one who was asked has issued no such certificate: authority or ACME server."""

    code, reason = Code.NOT_FOUND, "CERTIFICATE_NOT_ISSUED"


class SignerUnavailable(DomainError):
    """The process that has the authority's keys does not answer; the message says why."""

    code, reason = Code.UNAVAILABLE, "SIGNER_UNAVAILABLE"


class DeploymentNotFound(DomainError):
    """There is no deployment of that name."""

    code, reason = Code.NOT_FOUND, "DEPLOYMENT_NOT_FOUND"


class DeploymentUnreadable(DomainError):
    """A saved deployment cannot be read."""

    code, reason = Code.FAILED_PRECONDITION, "DEPLOYMENT_UNREADABLE"


class TooManyDeployments(DomainError):
    """The host holds as many deployments as it may."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_DEPLOYMENTS"


class KeyMismatch(DomainError):
    """No key on the host belongs to the certificate that is to be installed."""

    code, reason = Code.FAILED_PRECONDITION, "KEY_MISMATCH"


class ChainBroken(DomainError):
    """A certificate that was brought as an issuer is none of this one's."""

    code, reason = Code.FAILED_PRECONDITION, "CHAIN_BROKEN"


class SyntaxCheckFailed(DomainError):
    """A server's own check of its configuration failed; everything is as it was."""

    code, reason = Code.FAILED_PRECONDITION, "SYNTAX_CHECK_FAILED"


class ReloadFailed(DomainError):
    """A server did not reload; everything is as it was."""

    code, reason = Code.FAILED_PRECONDITION, "RELOAD_FAILED"


class NotServed(DomainError):
    """A listener did not serve the new certificate in time; everything is as it was."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_SERVED"


class InstallerRefused(DomainError):
    """The installer did not do it; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "INSTALLER_REFUSED"


class InstallerUnavailable(DomainError):
    """The process that installs certificates does not answer; the message says why."""

    code, reason = Code.UNAVAILABLE, "INSTALLER_UNAVAILABLE"


class ChainNotFound(DomainError):
    """The host's inventory has no such file with certificates."""

    code, reason = Code.NOT_FOUND, "CHAIN_NOT_FOUND"


class NoTrustStore(DomainError):
    """The host has no store of roots, or none that can be read."""

    code, reason = Code.FAILED_PRECONDITION, "NO_TRUST_STORE"


class NoGoodChain(DomainError):
    """There is no good path from the certificate to a root that is trusted: nothing to write."""

    code, reason = Code.FAILED_PRECONDITION, "NO_GOOD_CHAIN"


class NoChainFile(DomainError):
    """The deployment has no file that a chain could be in."""

    code, reason = Code.FAILED_PRECONDITION, "NO_CHAIN_FILE"


class NoAcmeSource(DomainError):
    """The deployment names no ACME server that its certificates would come from."""

    code, reason = Code.FAILED_PRECONDITION, "NO_ACME_SOURCE"


class AcmeFailed(DomainError):
    """The ACME server did not issue or revoke; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "ACME_FAILED"


class AcmeRateLimited(DomainError):
    """The ACME server does not want to be asked before a time that it has told."""

    code, reason = Code.RESOURCE_EXHAUSTED, "ACME_RATE_LIMITED"
