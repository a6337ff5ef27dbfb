"""What TLS and crypto libraries are, and how processes have them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from mmap import mmap


class Linkage(StrEnum):
    """How a process comes by a library."""

    SHARED = "shared"
    BUNDLED = "bundled"
    STATIC = "static"


class Use(StrEnum):
    """What a process uses its libraries for."""

    UNKNOWN = ""
    TLS = "tls"
    CRYPTO = "crypto"


@dataclass(frozen=True, slots=True)
class Library:
    """A library that a process has mapped. `version` and `package_version` are "" if unknown."""

    family: str
    library: str
    path: str
    linkage: Linkage
    version: str = ""
    package_version: str = ""
    stale: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LibraryUser:
    """A process with such libraries."""

    pid: int
    comm: str
    unit: str
    container: str
    user: str
    libraries: tuple[Library, ...]
    use: Use
    network: bool


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be seen, and why: a stable word, and words."""

    code: str
    message: str
    subject: str = ""


# By the name of the file: family, and whether it speaks TLS. NSS calls its TLS library libssl3.so,
# OpenSSL libssl.so.3; wheels put a hash behind the name.
_FAMILIES = (
    (re.compile(r"(libssl3|libnss3)\.so"), "nss"),
    (re.compile(r"(libssl|libcrypto)[-.]"), "openssl"),
    (re.compile(r"(libtls)[-.]"), "libressl"),
    (re.compile(r"(libgnutls)[-.]"), "gnutls"),
    (re.compile(r"(libmbedtls|libmbedcrypto)[-.]"), "mbedtls"),
    (re.compile(r"(libwolfssl)[-.]"), "wolfssl"),
    (re.compile(r"(libnettle|libhogweed)[-.]"), "nettle"),
)
_SPEAK_TLS = frozenset({"libssl", "libssl3", "libtls", "libgnutls", "libmbedtls", "libwolfssl"})
_SYSTEM = re.compile(r"(/usr)?/lib(64|32)?(/[a-z0-9_]+-linux-[a-z0-9]+)?/[^/]+")
_DELETED = " (deleted)"


def named(path: str) -> tuple[str, str] | None:
    """Family and library of a file by its name; None if it is none that is known."""
    name = path.rpartition("/")[2]
    if not name.startswith("lib"):
        return None
    for pattern, family in _FAMILIES:
        if (found := pattern.match(name)) and ".so" in name:
            return family, found[1]
    return None


def speaks_tls(library: str) -> bool:
    """Whether a library of this name is one for TLS, and not for primitives alone."""
    return library in _SPEAK_TLS


def linkage_of(path: str) -> Linkage:
    """Whether a shared library is the system's or was brought along, by where it lies."""
    return Linkage.SHARED if _SYSTEM.fullmatch(path) else Linkage.BUNDLED


def without_deleted(path: str) -> tuple[str, bool]:
    """The path of a mapping, and whether the kernel says that the file is deleted.

    Source: proc_pid_maps(5).
    """
    return (path.removesuffix(_DELETED), True) if path.endswith(_DELETED) else (path, False)


# What they say of themselves. Source: opensslv.h, gnutls.h and their like, as compiled in.
_NAMES = (
    b"OpenSSL ",
    b"LibreSSL ",
    b"AWS-LC ",
    b"wolfSSL ",
    b"GnuTLS ",
    b"mbed TLS ",
    b"Mbed TLS ",
)
_DATED = re.compile(
    rb"[A-Za-z-]+ (\d{1,3}\.\d{1,3}\.\d{1,3}[a-z]{0,2})(?:-[A-Za-z0-9.+]{1,20})?"
    rb"(?: +\d{1,2} [A-Z][a-z]{2} \d{4}|\0)"
)
_BORING = b"BoringSSL"
_OF_NAME = {"mbed tls": "mbedtls", "aws-lc": "boringssl"}
_MOST_HITS = 2000
_CODE = (b"crypto/evp/", b"crypto/fipsmodule/")
_TLS_CODE = (b"ssl/statem/", b"ssl_lib.c", b"tls_construct_client_hello")


def version_in(data: bytes | mmap) -> tuple[str, str]:
    """Family and version that a library or program says it has in it; ("", "") if none.

    A search for each name is ten times as fast as one pattern for all of them.
    """
    for name in _NAMES:
        at = -1
        for _ in range(_MOST_HITS):
            if (at := data.find(name, at + 1)) < 0:
                break
            if found := _DATED.match(data[at : at + 80], 0 if b" " not in name[:-1] else 5):
                family = name.decode().strip().lower()
                return _OF_NAME.get(family, family), found[1].decode()
    return ("boringssl", "") if data.find(_BORING) >= 0 else ("", "")


def has_tls_code(data: bytes | mmap) -> bool:
    """Whether the part of OpenSSL or a fork that speaks TLS is in a program."""
    return any(data.find(mark) >= 0 for mark in _TLS_CODE)


def has_code(data: bytes | mmap) -> bool:
    """Whether the code of OpenSSL or a fork is in a program, by the names of its source files."""
    return any(data.find(mark) >= 0 for mark in _CODE)
