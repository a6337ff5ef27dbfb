"""What tasks, waits, memory, disks, sockets and links are. Pure."""
