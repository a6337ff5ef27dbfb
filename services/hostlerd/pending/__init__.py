"""The host's pending group: its files, and the root-owned watcher that decides about it.

Standard library only, and nothing of Hostler's outside this folder: the watcher runs as root.
"""
