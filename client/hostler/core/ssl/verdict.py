"""What is said of a chain: one typed verdict, with a reason for each thing that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """What is wrong. The names are part of the interface: they are never changed, only added to.

    The paragraph that each comes from is named where it is found.
    """

    # The way to an anchor.
    ISSUER_NOT_FOUND = "ISSUER_NOT_FOUND"
    ROOT_NOT_TRUSTED = "ROOT_NOT_TRUSTED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    CHAIN_TOO_DEEP = "CHAIN_TOO_DEEP"
    LOOP = "LOOP"
    BUDGET_SPENT = "BUDGET_SPENT"
    # Time.
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    VALIDITY_MALFORMED = "VALIDITY_MALFORMED"
    VALIDITY_TOO_LONG = "VALIDITY_TOO_LONG"
    # What a certificate may be used for.
    NOT_A_CA = "NOT_A_CA"
    CA_AS_LEAF = "CA_AS_LEAF"
    PATH_LENGTH_EXCEEDED = "PATH_LENGTH_EXCEEDED"
    KEY_USAGE_FORBIDS = "KEY_USAGE_FORBIDS"
    EXTENDED_KEY_USAGE_FORBIDS = "EXTENDED_KEY_USAGE_FORBIDS"
    UNKNOWN_CRITICAL_EXTENSION = "UNKNOWN_CRITICAL_EXTENSION"
    POLICY_NOT_ALLOWED = "POLICY_NOT_ALLOWED"
    # Names.
    NAME_MISMATCH = "NAME_MISMATCH"
    NO_ALTERNATIVE_NAMES = "NO_ALTERNATIVE_NAMES"
    NAME_MALFORMED = "NAME_MALFORMED"
    NAME_NOT_PERMITTED = "NAME_NOT_PERMITTED"
    NAME_EXCLUDED = "NAME_EXCLUDED"
    NAME_CONSTRAINT_UNSUPPORTED = "NAME_CONSTRAINT_UNSUPPORTED"
    NAME_CONSTRAINT_MALFORMED = "NAME_CONSTRAINT_MALFORMED"
    NAME_CONSTRAINT_TOO_LARGE = "NAME_CONSTRAINT_TOO_LARGE"
    # Strength.
    WEAK_KEY = "WEAK_KEY"
    WEAK_DIGEST = "WEAK_DIGEST"
    ALGORITHM_UNSUPPORTED = "ALGORITHM_UNSUPPORTED"
    # How it is written.
    UNREADABLE = "UNREADABLE"
    VERSION_MALFORMED = "VERSION_MALFORMED"
    SERIAL_MALFORMED = "SERIAL_MALFORMED"
    ALGORITHM_MISMATCH = "ALGORITHM_MISMATCH"
    EXTENSION_MALFORMED = "EXTENSION_MALFORMED"
    EXTENSION_MISSING = "EXTENSION_MISSING"
    EXTENSION_MISUSED = "EXTENSION_MISUSED"
    ISSUER_MALFORMED = "ISSUER_MALFORMED"
    # Revocation.
    REVOKED = "REVOKED"
    REVOCATION_UNKNOWN = "REVOCATION_UNKNOWN"
    REVOCATION_LIST_UNUSABLE = "REVOCATION_LIST_UNUSABLE"
    # The other judge.
    VERIFIER_REFUSES = "VERIFIER_REFUSES"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong: of which certificate, in words, and where it came from.

    `place` is where the certificate was read: a file and line, a URI, "served 2"; empty if unknown.
    """

    code: Code
    subject: str
    message: str
    place: str = ""

    def __str__(self) -> str:
        where = f" [{self.place}]" if self.place else ""
        return f"{self.code}: {self.subject}{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a chain is good, why it is not, and what is not as it should be all the same."""

    ok: bool
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()

    @property
    def codes(self) -> frozenset[Code]:
        """The codes of the reasons."""
        return frozenset(reason.code for reason in self.reasons)
