"""The state of a fleet at a glance: gathered again and again, shown by `hostler top` and `web`."""
