"""Verified copies: files and trees, with all that belongs to them, read again before they count.

Standard library alone, so that a small process with more rights than its caller can use it as well.
Not kept, for want of a way that all filesystems have: birth times, file flags (chattr) and blocks
that were allocated and never written.
"""
