"""The gRPC edge of the domain: protobuf to model and back."""
