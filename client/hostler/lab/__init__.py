"""Real hosts on one machine: Debian roots booted by systemd-nspawn, joined by a bridge.

They run the Debian packages of Hostler with real units, certificates and journals; nothing in
them is faked. Everything here needs root.
"""
