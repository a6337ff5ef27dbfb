"""Scanning TLS endpoints from hand-made messages: what they accept, serve and get wrong. Pure.

Nothing here asks a TLS library to connect: OpenSSL would refuse to say what a scanner has to say.
"""
