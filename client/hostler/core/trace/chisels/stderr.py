"""What went through fd 2 of processes."""

from __future__ import annotations

from hostler.core.trace.chisel_lines import standard_stream

CHISEL = standard_stream("stderr", 2, "what processes read or wrote on fd 2, their standard errors")
