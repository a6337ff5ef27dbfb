"""What operators and their tools wait for in the journal, each with a MESSAGE_ID of its own.

`journalctl MESSAGE_ID=...` finds them whatever their words are; the ids never change meaning.
Source: systemd.journal-fields(7), sd-id128(3).
"""

# The daemon serves; HOSTLER_DOMAIN, HOSTLER_PID.
READY = "1710496f0b0f48c89387f6f73956b1fd"
# The daemon exits; HOSTLER_WHY is "idle" or "terminated".
EXIT = "cc072420f0f8406f9ddeb6afa19135f7"
# hostler.toml cannot be used; HOSTLER_PROBLEM.
CONFIGURATION_INVALID = "9430239a70824f42b13e91a9c8488a20"
# A fault of ours; HOSTLER_ERROR, and the call's fields.
INTERNAL_ERROR = "3eb82814799842318ffc1d13c6b9c0f3"
# A caller was refused before it was known who it is; HOSTLER_REASON, HOSTLER_METHOD.
CALL_REFUSED = "793bb73d631347159ecd32392359b6b4"
# A stream was ended by the daemon; HOSTLER_REASON, and the call's fields.
STREAM_ENDED = "88d877b2c2054fd1978f65ca68dcbeb9"
# Another bundle is in force; HOSTLER_VERSION, HOSTLER_PLACE.
BUNDLE_IN_FORCE = "ff015900a3044aaebeeaf5c94ba6378f"
# A bundle that was found or pushed is bad; HOSTLER_PROBLEM.
BUNDLE_NOT_TAKEN = "4e3592025edb4d3585b24881de9837e3"
# A connection was refused or ended by the relay; HOSTLER_PEER.
CONNECTION_ENDED = "d3eeca7854164cd1b21d62636670ffc4"
# A step failed, and so did taking back those before: the host is in between; HOSTLER_STEP.
UNDOING_FAILED = "dc5c92254f0449e6a0ec8e697fd245fe"
