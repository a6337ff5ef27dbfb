"""Headers of LUKS as values: enough of one for blkid, and nothing that a key would open."""

from __future__ import annotations

import json

UUID = "0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0"
MAGIC = b"LUKS\xba\xbe"


def first(payload_bytes: int, uuid: str = UUID) -> bytes:
    """A header of LUKS1 whose data begin so far behind. Source: LUKS1 On-Disk Format, 2."""
    header = bytearray(592)
    header[:8] = MAGIC + (1).to_bytes(2, "big")
    header[8:11], header[40:51], header[72:78] = b"aes", b"xts-plain64", b"sha256"
    header[104:108] = (payload_bytes // 512).to_bytes(4, "big")
    header[108:112] = (64).to_bytes(4, "big")
    header[168 : 168 + len(uuid)] = uuid.encode()
    return bytes(header).ljust(4096, b"\0")


def second(told: object, size: int = 16384) -> bytes:
    """A header of LUKS2 with that in its JSON. Source: LUKS2 On-Disk Format, 2."""
    header = bytearray(size)
    header[:16] = MAGIC + (2).to_bytes(2, "big") + size.to_bytes(8, "big")
    words = json.dumps(told).encode()
    header[4096 : 4096 + len(words)] = words
    return bytes(header)
