"""The program that copies files, below the folders that the host's administrator has named for it.

It is root with what it takes to give a copy its owners, modes and attributes, and with no network:
what comes from another host, or goes there, is relayed by the daemon.
"""
