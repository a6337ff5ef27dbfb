"""Authorization: Cedar policies from the bundle in force, default deny.

A call that is denied as it stands, and would be allowed with one approval of somebody else, is let
in as far as the guard: `Call.approval_needed` says so, and the guard asks for that approval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hostler.core.bundle import Bundle
from hostler.core.decision import (
    ROOT_EQUIVALENT,
    Action,
    Decision,
    Policies,
    Question,
    can_be_approved,
)
from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log
from hostlerd.runtime.tls import is_issued_by

log = get_log("runtime.authz")

_HOST_SERVICE = "hostler.api.common.v1.HostService"
_HEALTH = "grpc.health.v1.Health"


class PermissionDenied(DomainError):
    """The policies do not allow the call. Says nothing about whether the resource exists."""

    code, reason = Code.PERMISSION_DENIED, "PERMISSION_DENIED"


class NoBundle(DomainError):
    """There is no valid bundle, so nobody may do anything but ask the host how it is."""

    code, reason = Code.PERMISSION_DENIED, "NO_BUNDLE"


class PolicyFaulty(DomainError):
    """A policy fails when it is evaluated, so that nobody can tell what it would have said."""

    code, reason = Code.PERMISSION_DENIED, "POLICY_FAULTY"


class CertificateRevoked(DomainError):
    """The bundle in force revokes the caller's certificate."""

    code, reason = Code.UNAUTHENTICATED, "CERTIFICATE_REVOKED"


class CertificateUntrusted(DomainError):
    """The CA of the caller's certificate was trusted when it connected, and is not any more."""

    code, reason = Code.UNAUTHENTICATED, "CERTIFICATE_UNTRUSTED"


class ForeignTrustDomain(DomainError):
    """The identity belongs to another trust domain than the bundle."""

    code, reason = Code.UNAUTHENTICATED, "FOREIGN_TRUST_DOMAIN"


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A bundle with its policies parsed."""

    bundle: Bundle
    policies: Policies


class Authorizer:
    """Decides who may call what, by the bundle that it was last given."""

    def __init__(self, domain: str, methods: Iterable[Method]) -> None:
        self._domain = domain
        self._actions = [self._action(method) for method in methods]
        self._parsed: _Parsed | None = None
        self._listeners: list[Callable[[], None]] = []
        self._roots: Callable[[], bytes] = bytes

    @property
    def bundle(self) -> Bundle | None:
        """The bundle in force."""
        return self._parsed.bundle if self._parsed else None

    def use(self, bundle: Bundle) -> None:
        """Decide by this bundle from now on. Raises ValueError if its policies do not parse."""
        self._parsed = self._parse(bundle)
        self.changed()

    def trust(self, roots: Callable[[], bytes]) -> None:
        """Refuse callers whose certificates lead to none of the roots that count when they call."""
        self._roots = roots

    def changed(self) -> None:
        """Tell all who listen that callers are to be judged anew."""
        for tell in self._listeners:
            tell()

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, on whichever thread, each time after bundle or roots have changed."""
        self._listeners.append(tell)

    def check(self, bundle: Bundle) -> None:
        """Raise ValueError if the bundle could not be used."""
        self._parse(bundle)

    def _parse(self, bundle: Bundle) -> _Parsed:
        return _Parsed(bundle, Policies(bundle.cedar(), self._actions))

    def _action(self, method: Method) -> Action:
        return Action(method.name, method.access_class, (self._domain,))

    def check_identity(self, call: Call) -> None:
        """Refuse a certificate that is revoked or of no trusted CA, and a foreign trust domain.

        Raises CertificateRevoked, CertificateUntrusted, ForeignTrustDomain.
        """
        bundle = self.bundle
        caller = call.caller
        if caller.local:
            return
        # Whoever approved or began a job earlier is judged by name and serial number alone.
        roots = self._roots() if caller.chain else b""
        if roots and not is_issued_by(caller.chain, roots):
            raise CertificateUntrusted(
                "this host does not trust the CA of the caller's certificate any more",
                serial=caller.certificate_serial,
            )
        if bundle is None:
            return
        if caller.certificate_serial in bundle.revoked:
            raise CertificateRevoked(
                "the caller's certificate is revoked", serial=caller.certificate_serial
            )
        if not caller.identity.startswith(f"spiffe://{bundle.trust_domain}/"):
            raise ForeignTrustDomain("the caller belongs to another trust domain")

    def authorize(self, call: Call) -> None:
        """Return if the policies allow the call on every resource it names.

        One that they would allow with an approval passes too, and `call.approval_needed` is set.
        Raises PermissionDenied, PolicyFaulty, NoBundle.
        """
        if self._parsed is None:
            if call.method.service in (_HOST_SERVICE, _HEALTH):
                return
            raise NoBundle("this host has no valid bundle; HostService tells why")
        call.approval_needed = False
        try:
            self._decide_all(self._parsed, call, approvals=0)
            return
        except PermissionDenied:
            if not can_be_approved(self._action(call.method)):
                raise
        # A denial now names what no approval would help against.
        self._decide_all(self._parsed, call, approvals=1)
        call.approval_needed = True

    def authorize_approved(self, call: Call) -> None:
        """Return if the policies allow the call once somebody has approved it.

        Raises PermissionDenied, PolicyFaulty, NoBundle.
        """
        if self._parsed is None:
            raise NoBundle("this host has no valid bundle; HostService tells why")
        self._decide_all(self._parsed, call, approvals=1)

    def _decide_all(self, parsed: _Parsed, call: Call, approvals: int) -> None:
        for resource in call.resources or ("",):
            self._decide(parsed, call, resource, approvals)

    def _decide(self, parsed: _Parsed, call: Call, resource: str, approvals: int) -> None:
        caller = call.caller
        question = Question(
            caller.identity,
            parsed.bundle.groups_of(caller.identity),
            self._action(call.method),
            self._domain,
            resource,
            peer=caller.peer,
            local=caller.local,
            validate_only=call.validate_only,
            approvals=approvals,
        )
        decision = parsed.policies.decide(question)
        if decision.errors:
            log.error("policy cannot be evaluated", errors=decision.errors)
            raise PolicyFaulty("a policy cannot be evaluated for this call; see the host's journal")
        if not decision.allowed:
            raise _denied(call, decision)


def _denied(call: Call, decision: Decision) -> PermissionDenied:
    identity, method = call.caller.identity, call.method.name
    policies = ",".join(decision.policies) or "none allows it"
    if decision.unnamed:
        policies += f": without naming {ROOT_EQUIVALENT}"
    return PermissionDenied(
        f"{identity} may not call {method}", method=method, identity=identity, policies=policies
    )
