"""What every daemon is made of; no domain's own."""
