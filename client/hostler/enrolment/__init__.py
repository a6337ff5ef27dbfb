"""The first hour of a host and its end: enrolled over ssh, and retired."""
