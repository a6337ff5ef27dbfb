"""Numbers of TLS and the words for them. Source: IANA, TLS parameters; RFC 6101 for SSL 3."""

from __future__ import annotations

from collections.abc import Mapping

SSL2, SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0002, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304

VERSIONS: Mapping[int, str] = {
    SSL2: "SSLv2",
    SSL3: "SSLv3",
    TLS10: "TLSv1.0",
    TLS11: "TLSv1.1",
    TLS12: "TLSv1.2",
    TLS13: "TLSv1.3",
}

# Types of records and of handshake messages.
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA, HEARTBEAT = 20, 21, 22, 23, 24
HELLO_REQUEST, CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET = 0, 1, 2, 4
ENCRYPTED_EXTENSIONS, CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST = 8, 11, 12, 13
SERVER_HELLO_DONE, CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE, FINISHED = 14, 15, 16, 20
CERTIFICATE_STATUS = 22

# Extensions.
SERVER_NAME, STATUS_REQUEST, SUPPORTED_GROUPS, EC_POINT_FORMATS = 0, 5, 10, 11
SIGNATURE_ALGORITHMS, HEARTBEAT_EXTENSION, ALPN, ENCRYPT_THEN_MAC = 13, 15, 16, 22
EXTENDED_MASTER_SECRET, SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA = 23, 35, 41, 42
SUPPORTED_VERSIONS, COOKIE, PSK_MODES, KEY_SHARE = 43, 44, 45, 51
RENEGOTIATION_INFO = 0xFF01

# Signalling values that stand among the cipher suites. Source: RFC 5746, RFC 7507.
RENEGOTIATION_SCSV, FALLBACK_SCSV = 0x00FF, 0x5600

ALERTS: Mapping[int, str] = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}

# Name, and the bits of security in the usual sense: half the size of a prime field's order.
GROUPS: Mapping[int, str] = {
    1: "sect163k1",
    2: "sect163r1",
    3: "sect163r2",
    4: "sect193r1",
    5: "sect193r2",
    6: "sect233k1",
    7: "sect233r1",
    8: "sect239k1",
    9: "sect283k1",
    10: "sect283r1",
    11: "sect409k1",
    12: "sect409r1",
    13: "sect571k1",
    14: "sect571r1",
    15: "secp160k1",
    16: "secp160r1",
    17: "secp160r2",
    18: "secp192k1",
    19: "secp192r1",
    20: "secp224k1",
    21: "secp224r1",
    22: "secp256k1",
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    26: "brainpoolP256r1",
    27: "brainpoolP384r1",
    28: "brainpoolP512r1",
    29: "x25519",
    30: "x448",
    31: "brainpoolP256r1tls13",
    32: "brainpoolP384r1tls13",
    33: "brainpoolP512r1tls13",
    256: "ffdhe2048",
    257: "ffdhe3072",
    258: "ffdhe4096",
    259: "ffdhe6144",
    260: "ffdhe8192",
    512: "MLKEM512",
    513: "MLKEM768",
    514: "MLKEM1024",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
    25497: "X25519Kyber768Draft00",
}

# Bits of curves whose size their name does not tell in this form.
_CURVE_BITS: Mapping[int, int] = {29: 253, 30: 448}


def group_name(number: int) -> str:
    """The name of a group, or its number."""
    return GROUPS.get(number, f"0x{number:04x}")


def group_bits(number: int) -> int:
    """The size of a group in bits, 0 if it is not known."""
    if number in _CURVE_BITS:
        return _CURVE_BITS[number]
    name = GROUPS.get(number, "")
    if "MLKEM" in name or "Kyber" in name:
        return 256
    digits = "".join(c if c.isdigit() else " " for c in name.removesuffix("tls13")).split()
    return int(digits[0]) if digits else 0


def alert_name(number: int) -> str:
    """The name of an alert, or its number."""
    return ALERTS.get(number, f"alert {number}")


def version_name(number: int) -> str:
    """The name of a protocol version, or its number."""
    return VERSIONS.get(number, f"0x{number:04x}")
