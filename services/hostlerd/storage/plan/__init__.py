"""Pure functions over what was observed."""
