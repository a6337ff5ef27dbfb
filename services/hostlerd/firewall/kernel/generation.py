"""The generation of the kernel's rulesets: it changes with every transaction of anybody.

Source: NFT_MSG_GETGEN and NFTA_GEN_ID in linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = 15, 16
_NFTA_GEN_ID = 1
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_TIMEOUT_S = 5.0


def generation() -> int:
    """Answer the generation of this network namespace. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as s:
        s.settimeout(_TIMEOUT_S)
        s.bind((0, 0))
        kind = (_NFNL_SUBSYS_NFTABLES << 8) | _NFT_MSG_GETGEN
        family = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        s.send(_HEADER.pack(_HEADER.size + len(family), kind, _NLM_F_REQUEST, 1, 0) + family)
        answer = s.recv(4096)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != (_NFNL_SUBSYS_NFTABLES << 8) | _NFT_MSG_NEWGEN:
        raise OSError("nf_tables does not tell its generation")
    place = _HEADER.size + len(family)
    while place + 4 <= len(answer):
        length, attribute = struct.unpack_from("=HH", answer, place)
        if attribute & 0x3FFF == _NFTA_GEN_ID:
            return int(struct.unpack_from("!I", answer, place + 4)[0])
        place += max(4, (length + 3) & ~3)
    raise OSError("nf_tables does not tell its generation")
