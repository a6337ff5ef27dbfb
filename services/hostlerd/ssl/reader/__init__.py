"""The reader: a process of its own that may read keys and processes, and tells no key.

It is asked over a unix socket that the daemon alone may open, in a closed grammar: what it reads is
decided by its own configuration and by what the host's servers name, never by who asks.
"""
