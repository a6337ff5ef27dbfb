"""iSCSI: exports of devices, attachments of other hosts', and how their parts are named.

Source: RFC 3720, 3.2.6 (names), RFC 3721, RFC 7143 (CHAP), RFC 1123 (names of hosts).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv6Address, ip_address
from typing import Any

from hostlerd.storage.model.backup import path_fault

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
AUTHORITY = "iqn.2026-01.example.hostler"
"""What the names of our targets and initiators begin with; nobody else's do."""
IQN_BYTES_MOST = 223
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
# An iqn may have any UTF-8 behind the colon; what is plain there is enough for names of machines.
_IQN = re.compile(
    rf"iqn\.[0-9]{{4}}-(0[1-9]|1[0-2])\.{_LABEL}(\.{_LABEL})*(:[a-z0-9:.-]+)?"
    r"|eui\.[0-9A-F]{16}|naa\.([0-9A-F]{16}|[0-9A-F]{32})"
)
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9.-]+")
LINK = re.compile(r"/dev/disk/by-id/[A-Za-z0-9][A-Za-z0-9._:+=@-]{0,199}")
"""A link that means one device for good. One by-uuid means its clone as well."""
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
SECRET = re.compile(r"[!-~]{12,64}")
"""A secret of CHAP: of less than 12 bytes RFC 7143, 9.2.1, says that it must not be used."""
MOST_INITIATORS = 16
TIMEOUT_S_MOST = 600
TIMEOUT_S = 10
"""Short enough for md to go on without a leg, and longer than a host that is only slow."""
_PORT = 3260
_HOST_BYTES_MOST = 64


def target_name(host: str, export: str) -> str:
    """The iqn of an export."""
    return f"{AUTHORITY}:{_of_host(host)}:{export}"


def initiator_name(host: str) -> str:
    """The iqn of a host."""
    return f"{AUTHORITY}:{_of_host(host)}"


def _of_host(host: str) -> str:
    """A host's name in an iqn: of one that is long or strange, what still tells it from others."""
    plain = _NOT_IN_A_NAME.sub("-", host.lower()).strip("-.")
    if plain and plain == host and len(plain) <= _HOST_BYTES_MOST:
        return plain
    digest = hashlib.sha256(host.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return "-".join(filter(None, (plain[:40].rstrip("-."), digest)))


def iqn_fault(name: str) -> str:
    """Say why a name is none of iSCSI's; empty if it is one."""
    if len(name.encode(errors="replace")) > IQN_BYTES_MOST:
        return f"has more than {IQN_BYTES_MOST} bytes"
    if not _IQN.fullmatch(name):
        return "must be such as iqn.2026-01.example.hostler:h1, in lower case, or begin with eui."
    return ""


def portal_fault(portal: str) -> str:
    """Say why nothing is to be had at a portal; empty if it may."""
    try:
        address, port = split_portal(portal)
    except ValueError:
        return "must be an address and a port, such as 10.0.0.11:3260 or [fd00::11]:3260"
    found = ip_address(address)
    if found.is_unspecified or found.is_multicast:
        return "must be one address of a host, not all of them"
    if isinstance(found, IPv6Address) and (found.is_link_local or found.scope_id):
        return "must not be an address of one link only"
    if not 1 <= port <= 65535:
        return "must have a port from 1 to 65535"
    return (
        "" if portal == join_portal(address, port) else f"is written {join_portal(address, port)}"
    )


def split_portal(portal: str) -> tuple[str, int]:
    """Its address and its port. Raises ValueError."""
    address, _, port = portal.rpartition(":")
    if address.startswith("[") != address.endswith("]") or not port.isascii() or not port.isdigit():
        raise ValueError(portal)
    bare = address.removeprefix("[").removesuffix("]")
    if (":" in bare) != address.startswith("["):
        raise ValueError(portal)
    return str(ip_address(bare)), int(port)


def join_portal(address: str, port: int = _PORT) -> str:
    """An address and a port as they are written."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Export:
    """A device that other hosts may have. `link` finds it after a boot, the rest proves it."""

    name: str
    link: str
    size_bytes: int
    serial: str
    wwn: str
    target: str
    portal: str
    initiators: tuple[str, ...]
    chap_user: str
    chap_secret_file: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Export:
        """Read what JSON tells of one. Raises KeyError, TypeError."""
        made = {**told, "initiators": tuple(told["initiators"])}
        return cls(**{one.name: made[one.name] for one in fields(cls)})

    @property
    def unit_serial(self) -> str:
        """The serial number that the device has at others: another device has another one."""
        digest = hashlib.sha256(f"{self.target}\n{self.link}".encode()).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"

    @property
    def unit_wwn(self) -> str:
        """The WWN that it has there. Source: Linux target_core_spc.c, spc_gen_naa_6h_vendor_()."""
        return f"0x6001405{self.unit_serial.replace('-', '')[:25]}"


@dataclass(frozen=True, slots=True)
class ExportState:
    """An export as it is: whether it is to be had, if not why, and who has it."""

    export: Export
    is_up: bool
    message: str = ""
    sessions: tuple[str, ...] = ()
    mark: str = ""
    """Another one each time that its definition is written."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device of another host that is to be here."""

    name: str
    portal: str
    target: str
    initiator: str
    chap_user: str
    chap_secret_file: str = ""
    timeout_s: int = TIMEOUT_S

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Attachment:
        """Read what JSON tells of one. Raises KeyError, TypeError."""
        return cls(**{one.name: told[one.name] for one in fields(cls)})


@dataclass(frozen=True, slots=True)
class AttachmentState:
    """An attachment as it is; `session` is the kernel's word, empty if there is none."""

    attachment: Attachment
    session: str = ""


def export_faults(one: Export) -> tuple[tuple[str, str], ...]:
    """All that is wrong with an export, by field."""
    return tuple((field, why) for field, why in _of_export(one) if why)


def _of_export(one: Export) -> Iterator[tuple[str, str]]:
    yield "name", _name_fault(one.name)
    yield "device", "" if LINK.fullmatch(one.link) else "has no link that stays the same"
    # Those of other names are somebody else's.
    ours = one.target.startswith(f"{AUTHORITY}:")
    yield "target", iqn_fault(one.target) if ours else f"must begin with {AUTHORITY}:"
    yield "portal", portal_fault(one.portal)
    if not 1 <= len(one.initiators) <= MOST_INITIATORS:
        yield "initiators", f"names 1 to {MOST_INITIATORS}: an export is never for everybody"
    if len(set(one.initiators)) < len(one.initiators):
        yield "initiators", "has one twice"
    for at, name in enumerate(one.initiators):
        yield f"initiators[{at}]", iqn_fault(name)
    yield from _chap(one.chap_user, one.chap_secret_file)


def attachment_faults(one: Attachment) -> tuple[tuple[str, str], ...]:
    """All that is wrong with an attachment, by field."""
    return tuple((field, why) for field, why in _of_attachment(one) if why)


def _of_attachment(one: Attachment) -> Iterator[tuple[str, str]]:
    yield "name", _name_fault(one.name)
    yield "portal", portal_fault(one.portal)
    yield "target", iqn_fault(one.target)
    yield "initiator", iqn_fault(one.initiator)
    yield from _chap(one.chap_user, one.chap_secret_file)
    if not 1 <= one.timeout_s <= TIMEOUT_S_MOST:
        yield "replacement_timeout_seconds", f"must be from 0 to {TIMEOUT_S_MOST}"


def _name_fault(name: str) -> str:
    shape = "has 1 to 32 of a-z, 0-9 and -, and no - at its ends"
    return "" if NAME.fullmatch(name) else shape


def _chap(user: str, file: str) -> Iterator[tuple[str, str]]:
    shape = "has 1 to 64 of A-Z, a-z, 0-9, dot, underline, colon and -"
    yield "chap_user", "" if USER.fullmatch(user) else shape
    if file:
        yield "chap_secret_file", path_fault(file)
