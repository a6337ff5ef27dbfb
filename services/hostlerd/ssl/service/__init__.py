"""The gRPC edge of the ssl domain."""
