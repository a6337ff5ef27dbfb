"""The worker: a small root-owned program that does for hostler-storage what changes disks.

Before it touches a device it makes sure that this is the device which the plan saw, that nobody
uses it and that nothing else lies on it by now; and it saves what will be overwritten. Standard
library and the models only; what it is sent is taken as hostile and held against a closed grammar.
"""
