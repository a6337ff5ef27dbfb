"""Pure code that the client and the daemons both run."""
