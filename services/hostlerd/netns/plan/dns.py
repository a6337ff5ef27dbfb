"""The texts of the files that a namespace's processes see in /etc instead of the host's."""

from __future__ import annotations

from hostlerd.netns.model.namespace import Namespace
from hostlerd.netns.model.seen import EtcFiles

# Without this the host's own nsswitch.conf would ask the host's resolved by its socket, or by
# mymachines and myhostname, past the namespace.
_NSSWITCH = """\
passwd: files
group: files
shadow: files
gshadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
netgroup: files
"""


def etc_files(namespace: Namespace) -> EtcFiles:
    """Write the files of a namespace. Sources: resolv.conf(5), nsswitch.conf(5), hosts(5)."""
    return EtcFiles(
        _resolv_conf(namespace), _NSSWITCH, _hosts(namespace), namespace.hostname + "\n"
    )


def _resolv_conf(namespace: Namespace) -> str:
    dns = namespace.dns
    lines = [f"# The resolvers of the network namespace {namespace.name}, written by Hostler."]
    if dns.search:
        lines.append("search " + " ".join(dns.search))
    lines += [f"nameserver {server}" for server in dns.servers]
    # glibc asks 127.0.0.1 where no server is named; nothing answers there, so let it fail soon.
    options = dns.options if dns.servers else (*dns.options, "attempts:1", "timeout:1")
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _hosts(namespace: Namespace) -> str:
    short = namespace.hostname.split(".")[0]
    names = namespace.hostname if short == namespace.hostname else f"{namespace.hostname} {short}"
    lines = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "ff02::1 ip6-allnodes",
        "ff02::2 ip6-allrouters",
    ]
    own = [address.ip for interface in namespace.interfaces for address in interface.addresses]
    # gethostbyname of the own name must work without a network, so lo stands in for none.
    lines += [f"{ip} {names}" for ip in own] or [f"127.0.1.1 {names}"]
    return "\n".join(lines) + "\n"
