"""The launcher: a small root-owned program that does for hostler-netns what only root may do.

It mounts handles of namespaces where the whole host sees them, starts processes as systemd units
that it composes itself, and reads /proc. Standard library only, and nothing of Hostler outside this
folder but `hostlerd.privileged`: it is started as `python3 -I launcher/__main__.py`. Whatever it is
sent is taken as hostile and held against a closed grammar.
"""
