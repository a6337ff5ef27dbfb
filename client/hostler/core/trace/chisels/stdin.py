"""What went through fd 0 of processes."""

from __future__ import annotations

from hostler.core.trace.chisel_lines import standard_stream

CHISEL = standard_stream("stdin", 0, "what processes read or wrote on fd 0, their standard input")
