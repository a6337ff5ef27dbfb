"""The edge of the ssl domain to the system: asks the reader, and handshakes."""
