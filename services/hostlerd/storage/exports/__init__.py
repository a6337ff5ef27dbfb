"""What makes the kernel's target such as the definitions of exports say: at boot, and when told to.

A program of its own. The sockets on which the kernel waits for initiators
belong to it, as what it may do with the network holds for them; the worker has no network at all.
"""
