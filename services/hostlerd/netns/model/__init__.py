"""What namespaces, their parts and the steps of a change are. Pure."""
