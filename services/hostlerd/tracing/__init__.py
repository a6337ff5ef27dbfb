"""The tracing domain: what processes do and wait for. It reads the system, and changes nothing."""
