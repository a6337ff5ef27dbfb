"""Checks, one in a file: what it finds, how it asks."""
