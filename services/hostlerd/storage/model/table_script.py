"""A partition table as a script of sfdisk(8), "Input formats"."""

from __future__ import annotations

from collections.abc import Iterable

from hostlerd.storage.model.table import GPT, Entry

_ATTRIBUTES = {0: "RequiredPartition", 1: "NoBlockIOProtocol", 2: "LegacyBIOSBootable"}
_FIRST_OF_TYPE, _BITS = 48, 64


def script(kind: str, own: str, room: tuple[int, int], entries: Iterable[Entry]) -> str:
    """Write a whole table; `room` is the first sector for partitions, and the slots of a GPT."""
    first, slots = room
    lines = [f"label: {kind}"]
    if own:
        lines.append(f"label-id: {own}")
    if kind == GPT:
        lines.append(f"table-length: {slots}")
    lines.append(f"first-lba: {first}")
    lines += [_line(kind, one) for one in entries]
    return "\n".join(lines) + "\n"


def _line(kind: str, one: Entry) -> str:
    words = [f"start={one.start_sector}", f"size={one.size_sectors}"]
    if kind != GPT:
        words.append(f"type={one.type.removeprefix('0x')}")
        words += ["bootable"] if one.bootable else []
        return f"{one.number} : {', '.join(words)}"
    words.append(f"type={one.type}")
    if one.uuid:
        words.append(f"uuid={one.uuid}")
    if one.name:
        words.append(f'name="{_escaped(one.name)}"')
    if attributes := _attributes(one):
        words.append(f'attrs="{attributes}"')
    return f"{one.number} : {', '.join(words)}"


def _escaped(name: str) -> str:
    return "".join(f"\\x{ord(c):02x}" if c in '"\\' else c for c in name)


def _attributes(one: Entry) -> str:
    bits = one.attributes | (4 if one.bootable else 0)
    named = [word for bit, word in _ATTRIBUTES.items() if bits >> bit & 1]
    of_type = [str(bit) for bit in range(_FIRST_OF_TYPE, _BITS) if bits >> bit & 1]
    return " ".join([*named, *([f"GUID:{','.join(of_type)}"] if of_type else [])])
