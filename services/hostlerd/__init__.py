"""The daemons."""
