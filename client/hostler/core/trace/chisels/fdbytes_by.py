"""How many bytes were read and written, by any field."""

from __future__ import annotations

from hostler.core.trace.chisel_groups import BYTES, top_by

CHISEL = top_by(
    "fdbytes_by",
    "bytes read and written, by a field of your choice",
    value=BYTES,
    top=30,
    filter="evt.is_io=true and evt.failed=false",
)
