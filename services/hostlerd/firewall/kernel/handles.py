"""The handles of a chain's rules, from the kernel itself: nft(8) would fetch every set as well.

Source: NFT_MSG_GETRULE and enum nft_rule_attributes in linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct

from hostlerd.firewall.kernel.nfnetlink import NetfilterSocket

_GETRULE = (10 << 8) | 7
_FAMILIES = {"inet": 1, "bridge": 7}
_TABLE, _CHAIN, _HANDLE = 1, 2, 3
_GENERIC_BYTES = 4
_TYPE_MASK = 0x3FFF
_ATTRIBUTE = struct.Struct("=HH")
_U64 = struct.Struct("!Q")


def handles(family: str, chain: str) -> list[int]:
    """Answer the handles of the rules of a chain of ours, in order. Raises OSError."""
    body = struct.pack("=BBH", _FAMILIES[family], 0, 0)
    body += _string(_TABLE, "hostler") + _string(_CHAIN, chain)
    with NetfilterSocket() as netfilter:
        rules = (rule for some in netfilter.dump(_GETRULE, body) for rule in some)
        return [_handle(rule) for rule in rules]


def _string(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def _handle(rule: memoryview) -> int:
    place = _GENERIC_BYTES
    while place + _ATTRIBUTE.size <= len(rule):
        length, kind = _ATTRIBUTE.unpack_from(rule, place)
        if kind & _TYPE_MASK == _HANDLE:
            return int(_U64.unpack_from(rule, place + _ATTRIBUTE.size)[0])
        place += max(_ATTRIBUTE.size, (length + 3) & ~3)
    raise OSError("nf_tables tells a rule without its handle")
