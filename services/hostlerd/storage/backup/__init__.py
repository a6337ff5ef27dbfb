"""The programs that run restic: one reads files for backups, the other one writes restored ones.

Each has a door of its own, a unit of its own, and does its own part alone: `backup` is a user whose
one power is to read any file, `restore` is root with what it takes to give files back their owners
and modes. Neither touches a block device, and the program that changes disks talks to no network.
"""
