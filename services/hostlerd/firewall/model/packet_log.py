"""How rules log packets, and how the records name the rule. Source: nft(8), LOG STATEMENT."""

from __future__ import annotations

#: The NFLOG group that rules log to. One reader of a group is all the kernel allows.
GROUP = 7441
#: What the kernel hands over of each packet: headers, no payload to speak of.
SNAPLEN_BYTES = 96
#: What a rule of a shadow does, in place of dropping.
WOULD_DROP = "would-drop"


def statement(label: str, action: str, rate: str = "") -> str:
    """Answer the statement in nft's words; `rate` is nft's too, such as "5/second burst 5 packets".

    A rate must be a rule of its own: it would otherwise limit what follows the statement as well.
    """
    limit = f"limit rate {rate} " if rate else ""
    where = f"group {GROUP} snaplen {SNAPLEN_BYTES} queue-threshold 64"
    return f'{limit}log prefix "{label} {action}" {where}'


def read_prefix(prefix: str) -> tuple[str, str]:
    """Answer rule and action of a record's prefix, empty what it does not have."""
    label, _, action = prefix.partition(" ")
    return label, action
