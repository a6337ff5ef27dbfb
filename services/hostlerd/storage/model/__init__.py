"""What is there: devices, signatures, mounts, and the graph that they make."""
