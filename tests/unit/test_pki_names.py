import pytest

from hostler.core.names import (
    Identity,
    InvalidAddress,
    InvalidDnsName,
    InvalidField,
    InvalidIdentity,
    InvalidName,
    InvalidSerial,
    InvalidTrustDomain,
    check_address,
    check_alternative_names,
    check_dns_name,
    check_group,
    check_name,
    check_trust_domain,
    parse_serial,
    serial_hex,
)

BAD_NAMES = [
    "",
    "A",
    "al ice",
    "a" * 64,
    "-a",
    "a-",
    ".",
    "..",
    "a..b",
    "a/b",
    "../a",
    "a\n",
    "ä",
    "a\0",
    "٣",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["host", "user"])
def test_bad_names_are_refused_with_field_and_reason(kind, name):
    with pytest.raises(InvalidName) as caught:
        check_name(kind, name)
    assert caught.value.field == f"{kind} name"
    assert caught.value.reason
    assert str(caught.value).startswith(f"{kind} name: ")


def test_a_user_may_have_an_underscore_and_a_host_may_not():
    assert check_name("user", "svc_backup.1") == "svc_backup.1"
    with pytest.raises(InvalidName):
        check_name("host", "svc_backup")
    with pytest.raises(InvalidName, match="reads as an address"):
        check_name("host", "10.0.0.1")


@pytest.mark.parametrize("trust_domain", ["", "Lab", "a..b", "-a", "a b", "a/b", "a" * 254, "a:1"])
def test_bad_trust_domains_are_refused(trust_domain):
    with pytest.raises(InvalidTrustDomain):
        check_trust_domain(trust_domain)


@pytest.mark.parametrize(
    "dns_name",
    ["", "*.example.org", "a.", "a..b", "-a.b", "a_b", "a" * 64, ".".join(["a" * 60] * 5), "1.2"],
)
def test_bad_dns_names_are_refused(dns_name):
    with pytest.raises(InvalidDnsName):
        check_dns_name(dns_name)


def test_dns_names_are_lowered():
    assert check_dns_name("Web.Example.ORG") == "web.example.org"


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0", "10.0.0.256", "fe80::1%eth0", "::", "0.0.0." + "0", "224.0.0.1", "ff02::1"],
)
def test_bad_addresses_are_refused(address):
    with pytest.raises(InvalidAddress):
        check_address(address)


def test_alternative_names_lose_repeats_and_are_bounded():
    names, addresses = check_alternative_names(["a", "A", "b"], ["::1", "0:0::1"])
    assert names == ("a", "b")
    assert [str(a) for a in addresses] == ["::1"]
    with pytest.raises(InvalidField, match="more than 100"):
        check_alternative_names(["a"] * 101, [])


@pytest.mark.parametrize("group", ["", "Admins", "a b", 'a"', "a.b", "a" * 64])
def test_bad_groups_are_refused(group):
    with pytest.raises(InvalidName):
        check_group(group)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("alice", "spiffe://lab/user/alice"),
        ("user/alice", "spiffe://lab/user/alice"),
        ("host/h1", "spiffe://lab/host/h1"),
        ("spiffe://lab/host/h1", "spiffe://lab/host/h1"),
    ],
)
def test_an_identity_may_be_written_short(text, whole):
    assert str(Identity.of(text, "lab")) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://other/user/alice",
        "spiffe://lab/group/alice",
        "spiffe://lab/user/alice/x",
        "spiffe://lab/user/",
        "https://lab/user/alice",
        "user/",
        "group/alice",
        "host/H1",
        "local/root",
        "spiffe://lab/user/alice\n",
    ],
)
def test_bad_identities_are_refused(text):
    with pytest.raises(InvalidIdentity):
        Identity.of(text, "lab")


@pytest.mark.parametrize("text", ["0A:1B", "0x0a1b", "A1B", "a1b", " a1b "])
def test_a_serial_is_read_as_tools_write_it(text):
    assert parse_serial(text) == "a1b" == serial_hex(0xA1B)


@pytest.mark.parametrize("text", ["", "0", "xyz", "a" * 41, "-1"])
def test_bad_serials_are_refused(text):
    with pytest.raises(InvalidSerial):
        parse_serial(text)
