"""What the firewall domain refuses, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class RulesetNotFound(DomainError):
    """There is no ruleset of that name."""

    code, reason = Code.NOT_FOUND, "RULESET_NOT_FOUND"


class PortInUse(DomainError):
    """A port is already forwarded by another ruleset, to somebody who may need it."""

    code, reason = Code.FAILED_PRECONDITION, "PORT_IN_USE"


class PolicyInUse(DomainError):
    """Another ruleset already sets the policy; two could contradict each other."""

    code, reason = Code.FAILED_PRECONDITION, "POLICY_IN_USE"


class NameInUse(DomainError):
    """Another ruleset gives a set, a zone, a service or a flowtable the same name."""

    code, reason = Code.FAILED_PRECONDITION, "NAME_IN_USE"


class NameUnknown(DomainError):
    """A rule uses a set, a zone or a service that no ruleset gives."""

    code, reason = Code.FAILED_PRECONDITION, "NAME_UNKNOWN"


class AddressSetNotFound(DomainError):
    """No ruleset declares an address set of that name."""

    code, reason = Code.NOT_FOUND, "ADDRESS_SET_NOT_FOUND"


class AddressSetStatic(DomainError):
    """The elements of the set are its ruleset's, and change with it alone."""

    code, reason = Code.FAILED_PRECONDITION, "ADDRESS_SET_STATIC"


class AddressSetNotInForce(DomainError):
    """A ruleset declares the set, and the kernel does not have it."""

    code, reason = Code.FAILED_PRECONDITION, "ADDRESS_SET_NOT_IN_FORCE"


class FindingRefused(DomainError):
    """The rulesets would do what is refused unless it is forced, and then only under confirm."""

    code, reason = Code.FAILED_PRECONDITION, "FINDING_REFUSED"


class TooMany(DomainError):
    """The host holds as many rulesets or rules as it may."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY"


class RulesetUnreadable(DomainError):
    """A saved ruleset cannot be read. Going on without it would open what it closes."""

    code, reason = Code.FAILED_PRECONDITION, "RULESET_UNREADABLE"


class FamilyUnavailable(DomainError):
    """The host's kernel runs without IPv4 or IPv6, which the ruleset needs."""

    code, reason = Code.FAILED_PRECONDITION, "FAMILY_UNAVAILABLE"


class NftRejected(DomainError):
    """The kernel, by way of nft(8), does not take the table; nothing was changed."""

    code, reason = Code.FAILED_PRECONDITION, "NFT_REJECTED"


class TableForeign(DomainError):
    """What was to be applied would make, or change, a table that is not ours."""

    code, reason = Code.FAILED_PRECONDITION, "TABLE_FOREIGN"


class ToolFailed(DomainError):
    """A tool did not run to its end: missing, too slow, or it said too much."""

    code, reason = Code.FAILED_PRECONDITION, "TOOL_FAILED"


class ScratchUnavailable(DomainError):
    """No scratch namespace can be made here; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "SCRATCH_UNAVAILABLE"


class TrackingUnavailable(DomainError):
    """The kernel's connection tracking does not answer; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "TRACKING_UNAVAILABLE"


class PacketLogBusy(DomainError):
    """Another program reads the group that rules log to; the kernel allows one."""

    code, reason = Code.FAILED_PRECONDITION, "PACKET_LOG_BUSY"


class PacketLogUnavailable(DomainError):
    """The kernel does not let its packet log be read; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "PACKET_LOG_UNAVAILABLE"
