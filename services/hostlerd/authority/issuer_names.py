"""The authority's issuers by name."""

from __future__ import annotations

SERVICE, IDENTITY = "service", "identity"
"""The issuer of profiles, and that of Hostler's own identities; they share nothing."""
ISSUERS = (SERVICE, IDENTITY)
