"""The gRPC edge of the firewall: messages to models and back."""
