"""What callers of the signer ask for, read strictly."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from hostlerd.privileged.refused import Refused

_ID = re.compile(r"[0-9a-f]{16,64}", re.ASCII)
MAX_TEXT = 512

OPS: Mapping[str, Mapping[str, type]] = {
    "state": {},
    "init": {"name": str, "trust_domain": str, "external": bool},
    "check_complete": {"chain": str},
    "complete": {"chain": str},
    "check": {"profile": str, "csr": str, "validity_s": int},
    "issue": {"id": str, "profile": str, "csr": str, "validity_s": int, "requester": str},
    "check_identity": {"identity": str, "csr": str, "names": list},
    "identity": {"id": str, "identity": str, "csr": str, "names": list, "requester": str},
    "revoke": {"serial": str, "reason": str},
    "list": {"before": int, "most": int, "spki": str, "name": str, "revoked": bool},
    "get": {"serial": str},
    "crl": {"issuer": str},
}
_BYTES = ("csr", "chain")
_LONG = ("csr", "chain", "names")


def check(request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Answer the operation and its fields, bytes decoded. Raises Refused."""
    op = request.get("op")
    fields = OPS.get(op) if isinstance(op, str) else None
    if fields is None or not isinstance(op, str):
        raise Refused("MALFORMED", "there is no such operation")
    given = {key: value for key, value in request.items() if key != "op"}
    if given.keys() != fields.keys():
        raise Refused("MALFORMED", f"{op} takes {', '.join(fields) or 'nothing'}")
    return op, {key: _field(key, value, fields[key]) for key, value in given.items()}


def _field(key: str, value: Any, kind: type) -> Any:
    # bool is an int to Python, and not to us.
    is_kind = type(value) is kind
    if not is_kind:
        raise Refused("MALFORMED", f"{key} must be a {kind.__name__}")
    if isinstance(value, str) and key not in _LONG and len(value) > MAX_TEXT:
        raise Refused("MALFORMED", f"{key} is too long")
    if isinstance(value, int) and not 0 <= value < 1 << 53:
        raise Refused("MALFORMED", f"{key} is out of range")
    if key == "id" and not _ID.fullmatch(value):
        raise Refused("MALFORMED", "id must be 16 to 64 hexadecimal digits")
    if key == "names" and not all(isinstance(v, str) and len(v) <= MAX_TEXT for v in value):
        raise Refused("MALFORMED", "names must be texts")
    if key not in _BYTES:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("MALFORMED", f"{key} must be base64") from None
