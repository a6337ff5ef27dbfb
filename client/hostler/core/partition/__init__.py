"""Partition tables, read from a device or from a dump of its first sectors; pure code."""
