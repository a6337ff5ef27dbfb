"""Certificate policies along a path: whether any is left where a CA insists on one.

Any policy will do for us, and none has to be there, until a CA of the path says so; then only
whether the tree of valid policies is empty counts, so that sets of policies are enough.
Source: RFC 5280, 6.1.2 to 6.1.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hostler.core.ssl import der
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.der import DerError
from hostler.core.ssl.extension_rules import Finding
from hostler.core.ssl.verdict import Code

_ANY = "2.5.29.32.0"
_MAPPINGS = "2.5.29.33"
_MOST_POLICIES = 1_000


@dataclass
class _State:
    """The variables of 6.1.2: how many certificates may follow until each rule holds."""

    valid: frozenset[str]
    explicit: int
    mapping: int
    inhibit_any: int

    def take(self, certificate: Certificate, *, last: bool) -> None:
        """Step (d) and (e): keep the policies that this certificate has as well."""
        named = _policies(certificate)
        kept = {policy for policy in named - {_ANY} if {policy, _ANY} & self.valid}
        if _ANY in named and (self.inhibit_any > 0 or (certificate.self_issued and not last)):
            kept |= self.valid
        self.valid = frozenset(kept)

    def prepare(self, certificate: Certificate) -> None:
        """6.1.4 (b) and (h) to (j): what this CA says of those below it."""
        from cryptography import x509

        mapped = _mappings(certificate)
        if mapped:
            sources = {source for source, _ in mapped}
            led_to = {to for source, to in mapped if {source, _ANY} & self.valid}
            self.valid = (self.valid - sources) | (led_to if self.mapping > 0 else frozenset())
        if not certificate.self_issued:
            self.explicit = max(0, self.explicit - 1)
            self.mapping = max(0, self.mapping - 1)
            self.inhibit_any = max(0, self.inhibit_any - 1)
        self._constrain(certificate)
        inhibited = certificate.extension(x509.InhibitAnyPolicy)
        if inhibited is not None:
            self.inhibit_any = min(self.inhibit_any, inhibited.skip_certs)

    def _constrain(self, certificate: Certificate) -> None:
        from cryptography import x509

        found = certificate.extension(x509.PolicyConstraints)
        if found is None:
            return
        if found.require_explicit_policy is not None:
            self.explicit = min(self.explicit, found.require_explicit_policy)
        if found.inhibit_policy_mapping is not None:
            self.mapping = min(self.mapping, found.inhibit_policy_mapping)

    def wrap_up(self, certificate: Certificate) -> None:
        """6.1.5 (a) and (b): the leaf may insist at once."""
        from cryptography import x509

        self.explicit = max(0, self.explicit - 1)
        found = certificate.extension(x509.PolicyConstraints)
        if found is not None and found.require_explicit_policy == 0:
            self.explicit = 0


def policy_faults(path: Sequence[Certificate]) -> Iterator[Finding]:
    """What policies say against a path, which ends with its anchor; nothing if it is good."""
    below = path[-2::-1]
    start = len(below) + 1
    state = _State(frozenset({_ANY}), start, start, start)
    for index, certificate in enumerate(below, 1):
        last = index == len(below)
        state.take(certificate, last=last)
        try:
            if last:
                state.wrap_up(certificate)
            elif any(_ANY in pair for pair in _mappings(certificate)):
                yield Code.EXTENSION_MALFORMED, f"{certificate.label} maps any policy"
                return
        except DerError as error:
            yield Code.EXTENSION_MALFORMED, f"{certificate.label}: policyMappings: {error}"
            return
        if state.explicit == 0 and not state.valid:
            message = f"a policy has to be there, and {certificate.label} leaves none"
            yield Code.POLICY_NOT_ALLOWED, message
            return
        if not last:
            state.prepare(certificate)


def _policies(certificate: Certificate) -> frozenset[str]:
    from cryptography import x509

    found = certificate.extension(x509.CertificatePolicies)
    listed = list(found or ())[:_MOST_POLICIES]
    return frozenset(policy.policy_identifier.dotted_string for policy in listed)


def _mappings(certificate: Certificate) -> tuple[tuple[str, str], ...]:
    """From which policy to which. Raises DerError."""
    found = certificate.layout.extension(_MAPPINGS)
    if found is None:
        return ()
    every = der.children(der.read_only(found.value).expect(der.SEQUENCE, "policyMappings"))
    pairs = [der.children(one.expect(der.SEQUENCE, "mapping")) for one in every[:_MOST_POLICIES]]
    if any(len(pair) != 2 for pair in pairs):
        raise DerError("a mapping that is no pair")
    return tuple(
        (
            der.dotted(source.expect(der.OID, "issuerDomainPolicy").content),
            der.dotted(to.expect(der.OID, "subjectDomainPolicy").content),
        )
        for source, to in pairs
    )
