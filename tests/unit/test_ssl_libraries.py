"""Which libraries are which, and who is affected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.ssl.model.library import Library, LibraryUser, Linkage, Use, linkage_of, named
from hostlerd.ssl.plan.libraries import Selection, is_older, select

LIB = "/usr/lib/x86_64-linux-gnu"


@pytest.mark.parametrize(
    ("path", "known"),
    [
        (f"{LIB}/libssl.so.3", ("openssl", "libssl")),
        (f"{LIB}/libcrypto.so.1.1", ("openssl", "libcrypto")),
        ("/x/psycopg_binary.libs/libssl-81ffa89e.so.3", ("openssl", "libssl")),
        (f"{LIB}/libssl3.so", ("nss", "libssl3")),
        (f"{LIB}/libgnutls.so.30.34.3", ("gnutls", "libgnutls")),
        (f"{LIB}/libgnutlsxx.so.30", None),
        (f"{LIB}/libsslcommon2.so.9", None),
        (f"{LIB}/libc.so.6", None),
        ("/usr/share/doc/libssl.txt", None),
        ("/usr/sbin/nginx", None),
    ],
)
def test_files_are_known_by_their_names(path: str, known: tuple[str, str] | None) -> None:
    assert named(path) == known


@pytest.mark.parametrize(
    ("path", "linkage"),
    [
        (f"{LIB}/libssl.so.3", Linkage.SHARED),
        ("/lib/x86_64-linux-gnu/libssl.so.3", Linkage.SHARED),
        ("/usr/lib64/libssl.so.3", Linkage.SHARED),
        ("/opt/app/lib/libssl.so.3", Linkage.BUNDLED),
        ("/usr/lib/python3/site-packages/x.libs/libssl-1.so.3", Linkage.BUNDLED),
    ],
)
def test_where_a_file_lies_says_whose_it_is(path: str, linkage: Linkage) -> None:
    assert linkage_of(path) is linkage


def lib(version: str = "", package: str = "", *, stale: bool = False) -> Library:
    path = f"{LIB}/libssl.so.3"
    return Library("openssl", "libssl", path, Linkage.SHARED, version, package, stale)


@pytest.mark.parametrize(
    ("library", "fixed_in", "affected"),
    [
        (lib("3.0.15"), "3.0.17", True),
        (lib("3.0.17"), "3.0.17", False),
        (lib("1.1.1k"), "1.1.1l", True),
        (lib("3.0.17", "3.0.17-1~deb12u2"), "3.0.17-1~deb12u3", True),
        (lib("3.0.17", "3.0.17-1~deb12u3"), "3.0.17-1~deb12u3", False),
        # What is mapped is not the file whose package is known.
        (lib("3.0.15", "3.0.17-1~deb12u3", stale=True), "3.0.17-1~deb12u3", True),
        (lib("3.0.17", "3.0.17-1~deb12u3", stale=True), "3.0.17-1~deb12u3", True),
        (lib("3.0.19", stale=True), "3.0.17-1~deb12u3", False),
        # Nobody knows it to be fixed.
        (lib(""), "3.0.17", True),
    ],
)
def test_who_is_affected(library: Library, fixed_in: str, affected: bool) -> None:
    assert is_older(library, fixed_in) is affected


def user(pid: int, unit: str, *libraries: Library) -> LibraryUser:
    return LibraryUser(pid, "x", unit, "", "root", libraries, Use.TLS, False)


@given(st.lists(st.tuples(st.integers(1, 99), st.sampled_from("abc"), st.booleans())))
def test_a_selection_has_all_and_only_what_is_asked_for(
    drawn: list[tuple[int, str, bool]],
) -> None:
    users = [user(pid, unit, lib("3.0.1"), lib("3.0.2", stale=stale)) for pid, unit, stale in drawn]
    found = select(users, Selection(stale=True))
    assert len(found) == sum(stale for *_, stale in drawn)
    assert all(each.stale for of in found for each in of.libraries)
    assert [(of.unit, of.pid) for of in found] == sorted((of.unit, of.pid) for of in found)
    assert len(select(users, Selection(library="libssl"))) == len(drawn)
    assert select(users, Selection(library="gnutls")) == []
