"""What went through fd 1 of processes."""

from __future__ import annotations

from hostler.core.trace.chisel_lines import standard_stream

CHISEL = standard_stream("stdout", 1, "what processes read or wrote on fd 1, their standard output")
