"""Words that callers may use without defining them: services, ICMP types, helpers."""

from __future__ import annotations

from hostlerd.firewall.model.ruleset import NamedService, PortRange, Protocol, ServicePort

_TCP, _UDP = Protocol.TCP, Protocol.UDP


def _service(name: str, *ports: tuple[Protocol, int]) -> NamedService:
    return NamedService(name, tuple(ServicePort(kind, PortRange(n, n)) for kind, n in ports))


#: Source: Service Name and Transport Protocol Port Number Registry, IANA.
WELL_KNOWN = {
    service.name: service
    for service in (
        _service("amqp", (_TCP, 5672)),
        _service("bgp", (_TCP, 179)),
        _service("dhcp", (_UDP, 67)),
        _service("dhcpv6", (_UDP, 547)),
        _service("dns", (_TCP, 53), (_UDP, 53)),
        _service("dns-over-tls", (_TCP, 853)),
        _service("ftp", (_TCP, 21)),
        _service("git", (_TCP, 9418)),
        _service("http", (_TCP, 80)),
        _service("https", (_TCP, 443), (_UDP, 443)),
        _service("imap", (_TCP, 143)),
        _service("imaps", (_TCP, 993)),
        _service("ipsec", (_UDP, 500), (_UDP, 4500)),
        _service("iscsi", (_TCP, 3260)),
        _service("kerberos", (_TCP, 88), (_UDP, 88)),
        _service("ldap", (_TCP, 389)),
        _service("ldaps", (_TCP, 636)),
        _service("mdns", (_UDP, 5353)),
        _service("memcached", (_TCP, 11211)),
        _service("mysql", (_TCP, 3306)),
        _service("nfs", (_TCP, 2049)),
        _service("node-exporter", (_TCP, 9100)),
        _service("ntp", (_UDP, 123)),
        _service("openvpn", (_UDP, 1194)),
        _service("pop3s", (_TCP, 995)),
        _service("postgresql", (_TCP, 5432)),
        _service("rdp", (_TCP, 3389)),
        _service("redis", (_TCP, 6379)),
        _service("rsync", (_TCP, 873)),
        _service("smb", (_TCP, 445)),
        _service("smtp", (_TCP, 25)),
        _service("snmp", (_UDP, 161)),
        _service("ssh", (_TCP, 22)),
        _service("submission", (_TCP, 587)),
        _service("submissions", (_TCP, 465)),
        _service("syslog", (_UDP, 514)),
        _service("syslog-tls", (_TCP, 6514)),
        _service("tftp", (_UDP, 69)),
        _service("vnc", (_TCP, 5900)),
        _service("wireguard", (_UDP, 51820)),
    )
}

#: The types that nft knows by name. Source: `nft describe icmp type`, RFC 792.
ICMP_TYPES = frozenset(
    (
        "echo-reply", "destination-unreachable", "source-quench", "redirect", "echo-request",
        "router-advertisement", "router-solicitation", "time-exceeded", "parameter-problem",
        "timestamp-request", "timestamp-reply", "info-request", "info-reply",
        "address-mask-request", "address-mask-reply",
    )
)  # fmt: skip

#: Source: `nft describe icmpv6 type`, RFC 4443, RFC 4861, RFC 2710.
ICMPV6_TYPES = frozenset(
    (
        "destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem",
        "echo-request", "echo-reply", "mld-listener-query", "mld-listener-report",
        "mld-listener-done", "nd-router-solicit", "nd-router-advert", "nd-neighbor-solicit",
        "nd-neighbor-advert", "nd-redirect", "router-renumbering", "ind-neighbor-solicit",
        "ind-neighbor-advert", "mld2-listener-report",
    )
)  # fmt: skip

#: The helpers of the kernel's connection tracking and what they speak.
HELPERS = {
    "amanda": (_UDP,),
    "ftp": (_TCP,),
    "h323": (_TCP,),
    "irc": (_TCP,),
    "netbios-ns": (_UDP,),
    "pptp": (_TCP,),
    "sane": (_TCP,),
    "sip": (_TCP, _UDP),
    "snmp": (_UDP,),
    "tftp": (_UDP,),
}
