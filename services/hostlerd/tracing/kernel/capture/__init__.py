"""Captures: what the tracer in the kernel tells becomes batches of events."""
