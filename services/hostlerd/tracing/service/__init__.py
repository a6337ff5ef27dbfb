"""The gRPC edge of the tracing domain: messages to models and back."""
