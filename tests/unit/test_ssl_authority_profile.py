"""Profiles of the internal CA: what they allow, and that nothing else gets by."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.names import InvalidField
from hostler.core.ssl.authority.profile import Names, Profile, read_profiles

DAY = timedelta(days=1)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


def profile(**table: object) -> Profile:
    return read_profiles({"web": table})["web"]


WEB = profile(
    dns_names=["*.example.net", "one.example.org"],
    networks=["192.0.2.0/24", "2001:db8::/32"],
    max_validity_days=30,
)


@pytest.mark.parametrize("name", ["a.example.net", "a.b.example.net", "one.example.org"])
def test_names_of_the_profile_are_allowed(name: str) -> None:
    assert WEB.faults(Names(dns=(name,)), DAY) == ()


@pytest.mark.parametrize(
    "name",
    [
        *("example.net", "badexample.net", "example.net.evil.org", "a.one.example.org"),
        *("example.org", "a.example.ne", "xexample.net", "net"),
    ],
)
def test_other_names_are_refused_with_their_reason(name: str) -> None:
    (fault,) = WEB.faults(Names(dns=(name,)), DAY)
    assert fault == (name, "is not a name of the profile")


def test_wildcards_are_allowed_where_the_profile_says_so() -> None:
    names = Names(dns=("*.example.net", "*.a.example.net"))
    assert [f.reason for f in WEB.faults(names, DAY)] == [
        "is a wildcard, which the profile does not allow"
    ] * 2
    wide = profile(dns_names=["*.example.net", "one.example.org"], wildcards=True)
    assert wide.faults(names, DAY) == ()
    for name in ("*.net", "*.one.example.org", "*.badexample.net", "*.example.org"):
        assert wide.faults(Names(dns=(name,)), DAY), name


def test_addresses_are_of_the_networks() -> None:
    good = Names(addresses=(ip_address("192.0.2.7"), ip_address("2001:db8::7")))
    assert WEB.faults(good, DAY) == ()
    for address in ("192.0.3.1", "2001:db9::1", "::ffff:192.0.2.7", "0.0.0.1"):
        (fault,) = WEB.faults(Names(addresses=(ip_address(address),)), DAY)
        assert fault.reason == "is in no network of the profile"


def test_validity_and_number_of_names_are_bounded() -> None:
    one = Names(dns=("a.example.net",))
    assert WEB.faults(one, timedelta(days=30)) == ()
    (fault,) = WEB.faults(one, timedelta(days=30, seconds=1))
    assert fault == ("validity", "is longer than 30 days")
    assert WEB.faults(one, timedelta(seconds=1))[0].subject == "validity"
    assert WEB.faults(Names(), DAY)[0].subject == "csr"
    many = Names(dns=tuple(f"a{n}.example.net" for n in range(101)))
    assert [f.subject for f in WEB.faults(many, DAY)] == ["csr"]


def test_all_faults_are_told_at_once() -> None:
    names = Names(dns=("x.org", "*.example.net"), addresses=(ip_address("10.0.0.1"),))
    subjects = [f.subject for f in WEB.faults(names, timedelta(days=31))]
    assert subjects == ["x.org", "*.example.net", "10.0.0.1", "validity"]


@given(domain=NAME, name=NAME, wildcards=st.booleans(), star=st.booleans())
def test_what_is_allowed_lies_below_the_domain(
    domain: str, name: str, wildcards: bool, star: bool
) -> None:
    one = Profile("p", (f"*.{domain}",), wildcards=wildcards)
    asked = f"*.{name}" if star else name
    allowed = not one.faults(Names(dns=(asked,)), DAY)
    # Label by label, as DNS does it; not by the ends of texts, as the profile does.
    labels, below = asked.split("."), domain.split(".")
    lies = len(labels) > len(below) and labels[-len(below) :] == below
    assert allowed == (lies and (wildcards or not star))


@given(domain=NAME, inner=st.lists(LABEL, min_size=1, max_size=3).map(".".join))
def test_every_name_below_a_domain_is_allowed(domain: str, inner: str) -> None:
    assert Profile("p", (f"*.{domain}",)).faults(Names(dns=(f"{inner}.{domain}",)), DAY) == ()


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"dns_names": "a"}, "profiles.web.dns_names"),
        ({"dns_names": ["*"]}, "profiles.web.dns_names"),
        ({"dns_names": ["*.*.net"]}, "profiles.web.dns_names"),
        ({"dns_names": ["a b"]}, "profiles.web.dns_names"),
        ({"networks": ["10.0.0.1/8"]}, "profiles.web.networks"),
        ({"networks": [7]}, "profiles.web.networks"),
        ({"wildcards": 1}, "profiles.web.wildcards"),
        ({"usages": ["code"]}, "profiles.web.usages"),
        ({"max_validity_days": 826}, "profiles.web.max_validity_days"),
        ({"max_validity_days": float("nan")}, "profiles.web.max_validity_days"),
        ({"max_validity_days": 1e300}, "profiles.web.max_validity_days"),
        ({"max_validity_days": True}, "profiles.web.max_validity_days"),
        ({"max_validity_hours": 0}, "profiles.web.max_validity_hours"),
        ({"max_validity_hours": 1, "max_validity_days": 1}, "profiles.web.max_validity_days"),
        ({"name": "x"}, "profiles.web.name"),
        ({"max_validity": 3}, "profiles.web.max_validity"),
        ([], "profiles.web"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table: object, where: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read_profiles({"web": table})
    assert caught.value.field == where


def test_names_of_profiles_are_plain() -> None:
    for name in ("", "Web", "a/b", "x" * 64):
        with pytest.raises(InvalidField):
            read_profiles({name: {}})
    with pytest.raises(InvalidField, match="more than 100"):
        read_profiles({f"p{n}": {} for n in range(101)})
