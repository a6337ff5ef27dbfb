"""The storage domain: disks, what is built on them, and what lies there."""
