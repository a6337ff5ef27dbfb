"""The signed bundle: who is in which group, what groups may do, and what is revoked.

The file is JSON, `{"payload": BASE64, "signature": BASE64}`; the signature is ECDSA with SHA-256
by the CA's key over `hostler-bundle-v1`, a zero byte and the payload's exact bytes. The payload is
JSON again, of the fixed shape that `Bundle` shows. Nothing of it is looked at before its
signature is good, and then every field is still checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core.certificates import (
    Certificate,
    CertificateUnreadable,
    describe,
    is_ca,
    load_certificates,
)
from hostler.core.names import (
    Identity,
    InvalidField,
    check_group,
    check_trust_domain,
    parse_serial,
)

FORMAT = 1
MAX_BUNDLE_BYTES = 1024 * 1024
MAX_VERSION = 2**63 - 1
MAX_GROUPS_PER_MEMBER = 64
MAX_POLICIES = 1000

# Keeps a signature made for a bundle from being good for anything else the CA's key signs: a
# certificate's signed bytes begin with 0x30.
_CONTEXT = b"hostler-bundle-v1\0"
_POLICY_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?", re.ASCII)
_CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_T = TypeVar("_T")
_ENVELOPE_FIELDS = {"payload", "signature"}
_PAYLOAD_FIELDS = {
    "format",
    "version",
    "trust_domain",
    "created",
    "members",
    "policies",
    "revoked",
}


class BundleInvalid(Exception):
    """A bundle that is not taken.

    `reason` is one of TOO_LARGE, MALFORMED, NO_TRUSTED_CA, BAD_SIGNATURE, UNSUPPORTED_FORMAT,
    WRONG_TRUST_DOMAIN, BAD_FIELD, NOT_NEWER; the message is for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Policy:
    """One Cedar policy with the id that its `@id` annotation gives."""

    id: str
    cedar: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose signature was good.

    `members` maps whole identities to their groups. `revoked` holds serial numbers as
    `names.serial_hex()` writes them. `sha256` is that of the signed file, in hex; it is empty as
    long as the bundle is not signed.
    """

    version: int
    trust_domain: str
    created: datetime
    members: Mapping[str, tuple[str, ...]]
    policies: tuple[Policy, ...]
    revoked: frozenset[str]
    sha256: str = ""

    def groups_of(self, identity: str) -> tuple[str, ...]:
        """Answer the groups of an identity, none if it is not a member of any."""
        return self.members.get(identity, ())

    def cedar(self) -> str:
        """Answer all policies as one Cedar text."""
        return "\n".join(policy.cedar for policy in self.policies)


def compose(bundle: Bundle) -> bytes:
    """Write the payload of a bundle: the same bundle always gives the same bytes."""
    created = bundle.created.astimezone(UTC)
    document = {
        "format": FORMAT,
        "version": bundle.version,
        "trust_domain": bundle.trust_domain,
        "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "members": {identity: sorted(groups) for identity, groups in bundle.members.items()},
        "policies": [{"id": policy.id, "cedar": policy.cedar} for policy in bundle.policies],
        "revoked": sorted(bundle.revoked),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def sign(payload: bytes, ca_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Sign a payload and answer the bundle's file. Raises BundleInvalid, as `verify()` would."""
    _parse_payload(payload, "")
    signature = ca_key.sign(_CONTEXT + payload, ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    data = json.dumps(envelope, indent=1).encode() + b"\n"
    _check_size(data)
    return data


def verify(data: bytes, ca_pem: bytes) -> Bundle:
    """Check a bundle's signature against any CA of `ca_pem`, then its content.

    The CA's dates do not count: a wrong clock must not take the policies away. Raises
    BundleInvalid and nothing else, whatever the bytes are.
    """
    _check_size(data)
    payload, signature = _parse_envelope(data)
    trust_domain = _find_signer(payload, signature, ca_pem).name
    bundle = _parse_payload(payload, hashlib.sha256(data).hexdigest())
    if trust_domain and trust_domain != bundle.trust_domain:
        raise BundleInvalid(
            "WRONG_TRUST_DOMAIN",
            f"the bundle is of trust domain {bundle.trust_domain}, its CA of {trust_domain}",
        )
    return bundle


def check_newer(candidate: Bundle, current: Bundle | None) -> bool:
    """Tell whether a verified bundle should replace the one in force.

    False if it says the same under the same version. Raises BundleInvalid with NOT_NEWER if its
    version is lower, or the same with another content.
    """
    if current is None or candidate.version > current.version:
        return True
    if compose(candidate) == compose(current):
        return False
    raise BundleInvalid(
        "NOT_NEWER", f"version {candidate.version} is not newer than {current.version} in force"
    )


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleInvalid("TOO_LARGE", f"{len(data)} bytes, more than {MAX_BUNDLE_BYTES}")


def _parse_envelope(data: bytes) -> tuple[bytes, bytes]:
    envelope = _object(_load_json(data, "the bundle"), "the bundle", _ENVELOPE_FIELDS)
    return _decode(envelope["payload"], "payload"), _decode(envelope["signature"], "signature")


def _find_signer(payload: bytes, signature: bytes, ca_pem: bytes) -> Certificate:
    try:
        loaded = load_certificates(ca_pem)
        authorities = [(ca, describe(ca)) for ca in loaded if is_ca(ca)]
    except CertificateUnreadable as e:
        raise BundleInvalid("NO_TRUSTED_CA", str(e)) from e
    if not authorities:
        raise BundleInvalid("NO_TRUSTED_CA", "no certificate of a CA to check the signature with")
    for ca, description in authorities:
        key = ca.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            continue
        try:
            key.verify(signature, _CONTEXT + payload, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return description
    raise BundleInvalid("BAD_SIGNATURE", "no trusted CA has signed this")


def _parse_payload(payload: bytes, sha256: str) -> Bundle:
    document = _load_json(payload, "the payload")
    # Before the fields: a later format may have others, and this says so in its own words.
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise BundleInvalid("UNSUPPORTED_FORMAT", f"the payload is not of format {FORMAT}")
    fields = _object(document, "the payload", _PAYLOAD_FIELDS)
    if type(fields["format"]) is not int:
        _bad("format", "must be a number")
    trust_domain = _checked(
        "trust_domain", check_trust_domain, _text(fields["trust_domain"], "trust_domain")
    )
    return Bundle(
        version=_version(fields["version"]),
        trust_domain=trust_domain,
        created=_created(fields["created"]),
        members=_members(fields["members"], trust_domain),
        policies=_policies(fields["policies"]),
        revoked=_revoked(fields["revoked"]),
        sha256=sha256,
    )


def _version(value: object) -> int:
    # type(), because True is an int to isinstance().
    if type(value) is not int or not 1 <= value <= MAX_VERSION:
        _bad("version", f"must be a whole number from 1 to {MAX_VERSION}")
    return value


def _created(value: object) -> datetime:
    text = _text(value, "created")
    if not _CREATED.fullmatch(text):
        _bad("created", "must be a time such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError as e:
        _bad("created", str(e))


def _members(value: object, trust_domain: str) -> Mapping[str, tuple[str, ...]]:
    members: dict[str, tuple[str, ...]] = {}
    for text, groups in _object(value, "members", None).items():
        where = f"members[{text[:300]!r}]"
        identity = _checked(where, Identity.parse, text)
        if identity.trust_domain != trust_domain:
            _bad(where, f"is not of trust domain {trust_domain}")
        members[text] = _groups(groups, where)
    return MappingProxyType(members)


def _groups(value: object, where: str) -> tuple[str, ...]:
    names = _list(value, where)
    if not 1 <= len(names) <= MAX_GROUPS_PER_MEMBER:
        _bad(where, f"must name 1 to {MAX_GROUPS_PER_MEMBER} groups")
    groups = [_checked(where, check_group, _text(name, where)) for name in names]
    _check_unique(where, groups)
    return tuple(groups)


def _policies(value: object) -> tuple[Policy, ...]:
    documents = _list(value, "policies")
    if len(documents) > MAX_POLICIES:
        _bad("policies", f"must be at most {MAX_POLICIES}")
    policies = [_policy(document, f"policies[{n}]") for n, document in enumerate(documents)]
    _check_unique("policies", [policy.id for policy in policies])
    return tuple(policies)


def _policy(value: object, where: str) -> Policy:
    fields = _object(value, where, {"id", "cedar"})
    policy = Policy(
        _text(fields["id"], f"{where}.id"),
        _text(fields["cedar"], f"{where}.cedar"),
    )
    if not _POLICY_ID.fullmatch(policy.id):
        _bad(f"{where}.id", "must be 1 to 128 lower-case letters, digits and . _ - inside")
    return policy


def _revoked(value: object) -> frozenset[str]:
    serials = [_text(serial, "revoked") for serial in _list(value, "revoked")]
    for serial in serials:
        if _checked("revoked", parse_serial, serial) != serial:
            _bad("revoked", f"{serial[:100]!r} must be lower-case hex without leading zeros")
    _check_unique("revoked", serials)
    return frozenset(serials)


def _load_json(data: bytes, what: str) -> object:
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_repeats,
            parse_constant=_no_constant,
            parse_float=_no_constant,
        )
    except (ValueError, RecursionError) as e:
        raise BundleInvalid("MALFORMED", f"{what} is not JSON as it should be: {e}") from e


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Two readers may take two different ones of a repeated key.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not allowed")


def _decode(value: object, where: str) -> bytes:
    text = _text(value, where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise BundleInvalid("MALFORMED", f"{where} is not base64: {e}") from e
    # The unused bits of the last character are ignored by the decoder.
    if base64.b64encode(data).decode() != text:
        raise BundleInvalid("MALFORMED", f"{where} is not base64 as it is written")
    return data


def _object(value: object, where: str, fields: set[str] | None) -> dict[str, object]:
    if not isinstance(value, dict):
        _bad(where, "must be an object")
    if fields is not None and value.keys() != fields:
        odd = sorted(name[:40] for name in value.keys() ^ fields)
        _bad(where, f"must have the fields {sorted(fields)} and no others: see {odd[:10]!a}")
    return value


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        _bad(where, "must be a list")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        _bad(where, "must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can say half a surrogate pair, which no UTF-8 can.
        _bad(where, "must be a text of whole characters")
    return value


def _checked(where: str, check: Callable[[str], _T], text: str) -> _T:
    try:
        return check(text)
    except InvalidField as e:
        raise BundleInvalid("BAD_FIELD", f"{where}: {e.reason}") from e


def _check_unique(where: str, values: Sequence[str]) -> None:
    if len(set(values)) != len(values):
        _bad(where, "must not name the same one twice")


def _bad(where: str, description: str) -> NoReturn:
    raise BundleInvalid("BAD_FIELD", f"{where}: {description}")
