"""The client: SDK and CLI."""
