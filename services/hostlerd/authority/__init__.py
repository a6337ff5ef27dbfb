"""The internal certificate authority: the signer that alone has its keys, and the responder.

Two processes, each of a user of its own, without privileges, gRPC or each other. The signer answers
the ssl daemon at a socket and holds to the host's configuration, whatever it is asked; what it
publishes, the responder serves.
"""
