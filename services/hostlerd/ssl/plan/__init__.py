"""Pure functions over what was read: what belongs together, and what is wrong with it."""
