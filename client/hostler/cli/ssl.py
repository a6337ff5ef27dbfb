"""`hostler ssl`: certificates, chains, endpoints. Each command is loaded when it is used."""

from __future__ import annotations

from collections.abc import Mapping

import click

from hostler.cli.lazy import LazyGroup

# Name, where it is, and what the list of commands says about it.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "affected": (
        "hostler.cli.ssl_libraries:affected",
        "Processes that a flaw in a library touches.",
    ),
    "authority": ("hostler.cli.ssl_authority:authority", "An internal CA on a host."),
    "chain": ("hostler.cli.ssl_chain:chain", "Build, judge and write certificate chains."),
    "compromise": (
        "hostler.cli.ssl_compromise:compromise",
        "What to do about keys that others may know.",
    ),
    "csr": ("hostler.cli.ssl_deployment:csr", "Make a key on a host, and a request for it."),
    "deployment": (
        "hostler.cli.ssl_deployment:deployment",
        "Which certificate is where, and who serves it.",
    ),
    "diff": ("hostler.cli.ssl_scan:diff", "What has changed since the scan before the last."),
    "endpoints": ("hostler.cli.ssl_endpoints:endpoints", "What is served, by name, not by port."),
    "install": (
        "hostler.cli.ssl_deployment:install",
        "Put a certificate in place, have it served, or go back.",
    ),
    "inventory": (
        "hostler.cli.ssl_inventory:inventory",
        "The certificates on hosts, by their end.",
    ),
    "keys": (
        "hostler.cli.ssl_inventory:keys",
        "The private keys on hosts, by their public halves.",
    ),
    "recommend": ("hostler.cli.ssl_recommend:recommend", "TLS settings in a server's own words."),
    "renew": ("hostler.cli.ssl_deployment:renew", "Get a new certificate by ACME, install it."),
    "revoke": ("hostler.cli.ssl_deployment:revoke", "Have an ACME server revoke a certificate."),
    "scan": ("hostler.cli.ssl_scan:scan", "What endpoints accept, serve and get wrong."),
    "stale": ("hostler.cli.ssl_libraries:stale", "Processes with libraries that were replaced."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def ssl() -> None:
    """Certificates, chains and endpoints: what they are, and whether clients accept them."""
