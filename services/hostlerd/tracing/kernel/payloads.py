"""Blocks of a trace for those who may not see payloads."""

from __future__ import annotations


def without_payloads(block: bytes) -> bytes:
    """The block without data, command lines and environments, which are said to be withheld.

    Raises CaptureInvalid.
    """
    import numpy as np

    from hostler.core.trace.blocks import decode, encode
    from hostler.core.trace.events import Flag

    events = decode(block)
    carried = events["data"] != 0
    events.columns["flags"] |= np.where(carried, Flag.DATA_WITHHELD, 0).astype("<u2")
    events.columns["data"] = np.zeros_like(events["data"])
    for name in ("cmdline", "environ"):
        events.processes[name] = 0
    # Texts that nothing points to any more would still be in the block.
    return encode(events.compact())
