"""Authorization: Cedar policies from the bundle in force, default deny."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hostler.core.bundle import Bundle
from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log

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


class ForeignTrustDomain(DomainError):
    """The identity belongs to another trust domain than the bundle."""

    code, reason = Code.UNAUTHENTICATED, "FOREIGN_TRUST_DOMAIN"


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A bundle with its policies parsed: parsing costs more than deciding."""

    bundle: Bundle
    policies: Any
    # Actions and their groups alone. The caller joins them per call: with all members in it, a
    # decision would take the longer the more members there are.
    actions: Any


class Authorizer:
    """Decides who may call what, by the bundle that it was last given."""

    def __init__(self, domain: str, methods: Iterable[Method]) -> None:
        self._domain = domain
        self._actions = [_action(domain, method) for method in methods]
        self._parsed: _Parsed | None = None

    @property
    def bundle(self) -> Bundle | None:
        """The bundle in force."""
        return self._parsed.bundle if self._parsed else None

    def use(self, bundle: Bundle) -> None:
        """Decide by this bundle from now on. Raises ValueError if its policies do not parse."""
        self._parsed = self._parse(bundle)

    def check(self, bundle: Bundle) -> None:
        """Raise ValueError if the bundle could not be used."""
        self._parse(bundle)

    def _parse(self, bundle: Bundle) -> _Parsed:
        import cedarpy

        policies = cedarpy.PolicySet.from_str(bundle.cedar())
        return _Parsed(bundle, policies, cedarpy.Entities.from_json_str(json.dumps(self._actions)))

    def check_identity(self, call: Call) -> None:
        """Refuse a revoked certificate and a foreign trust domain. Raises both."""
        bundle = self.bundle
        caller = call.caller
        if bundle is None or caller.local:
            return
        if caller.certificate_serial in bundle.revoked:
            raise CertificateRevoked(
                "the caller's certificate is revoked", serial=caller.certificate_serial
            )
        if not caller.identity.startswith(f"spiffe://{bundle.trust_domain}/"):
            raise ForeignTrustDomain("the caller belongs to another trust domain")

    def authorize(self, call: Call) -> None:
        """Return if the policies allow the call on every resource it names.

        Raises PermissionDenied, NoBundle.
        """
        if self._parsed is None:
            if call.method.service in (_HOST_SERVICE, _HEALTH):
                return
            raise NoBundle("this host has no valid bundle; HostService tells why")
        for resource in call.resources or ("",):
            self._decide(self._parsed, call, resource)

    def _decide(self, parsed: _Parsed, call: Call, resource: str) -> None:
        import cedarpy

        uid = f"{self._domain}/{resource}" if resource else self._domain
        identity = call.caller.identity
        groups = [{"type": "Group", "id": group} for group in parsed.bundle.groups_of(identity)]
        attributes = {"domain": self._domain, "names": [resource] if resource else []}
        entities = [
            {"uid": {"type": "Identity", "id": identity}, "attrs": {}, "parents": groups},
            {"uid": {"type": "Resource", "id": uid}, "attrs": attributes, "parents": []},
        ]
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Identity", "id": identity},
                "action": {"type": "Action", "id": call.method.name},
                "resource": {"type": "Resource", "id": uid},
                "context": {"peer": call.caller.peer, "local": call.caller.local},
            },
            parsed.policies,
            parsed.actions.with_added_json_str(json.dumps(entities)),
        )
        if result.diagnostics.errors:
            # Cedar passes over a policy that cannot be evaluated. If it was a forbid, that would
            # let the call through: what cannot be judged is not allowed.
            log.error("policy cannot be evaluated", errors=result.diagnostics.errors)
            raise PolicyFaulty("a policy cannot be evaluated for this call; see the host's journal")
        if not result.allowed:
            spoke = result.diagnostics.id_annotations_by_reason or {}
            ids = [spoke.get(reason) or reason for reason in result.diagnostics.reasons]
            raise PermissionDenied(
                f"{identity} may not call {call.method.name}",
                method=call.method.name,
                identity=identity,
                policies=",".join(ids) or "none allows it",
            )


def _action(domain: str, method: Method) -> dict[str, Any]:
    groups = (f"class/{method.access_class}", f"domain/{domain}")
    return {
        "uid": {"type": "Action", "id": method.name},
        "attrs": {},
        "parents": [{"type": "Action", "id": group} for group in groups],
    }
