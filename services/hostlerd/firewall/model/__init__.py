"""What rulesets, the host's state and the steps between them are. Pure."""
