import base64
import json
import subprocess
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core import bundle as bundles
from hostler.core import certificates
from hostler.core.bundle import Bundle, BundleInvalid, Policy, check_newer, compose, sign, verify
from hostler.core.certificates import Issuer

CA = certificates.make_ca("lab.hostler")
OTHER = certificates.make_ca("lab.hostler")
ISSUER = Issuer.load(CA.pem, CA.key_pem)
KEY = ISSUER.key
ALICE = "spiffe://lab.hostler/user/alice"


def make(**changes):
    values = {
        "version": 3,
        "trust_domain": "lab.hostler",
        "created": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "members": {ALICE: ("admins", "viewers")},
        "policies": (Policy("a", "permit (principal, action, resource);"),),
        "revoked": frozenset({"abc", "1"}),
    }
    return Bundle(**(values | changes))


def sign_raw(payload, key=KEY, context=b"hostler-bundle-v1\0"):
    """Sign without the checks of `sign()`, as a broken or hostile holder of the key would."""
    signature = key.sign(context + payload, ec.ECDSA(hashes.SHA256()))
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "signature": base64.b64encode(signature).decode(),
        }
    ).encode()


def document(**changes):
    found = json.loads(compose(make()))
    found.update(changes)
    return found


def refusal(data, ca_pem=CA.pem):
    with pytest.raises(BundleInvalid) as caught:
        verify(data, ca_pem)
    return caught.value.reason


def test_what_was_signed_comes_back():
    data = sign(compose(make()), KEY)
    found = verify(data, CA.pem)
    assert found == make(sha256=found.sha256)
    assert len(found.sha256) == 64
    assert found.groups_of(ALICE) == ("admins", "viewers")
    assert found.groups_of("local/root") == ()
    with pytest.raises(TypeError):
        found.members["x"] = ()


def test_openssl_verifies_the_signature(tmp_path):
    envelope = json.loads(sign(compose(make()), KEY))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signature"]))
    (tmp_path / "data").write_bytes(b"hostler-bundle-v1\0" + base64.b64decode(envelope["payload"]))
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    openssl = "/usr/bin/openssl"
    public = subprocess.run(
        [openssl, "x509", "-in", tmp_path / "ca.pem", "-noout", "-pubkey"],
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    (tmp_path / "pub").write_bytes(public)
    subprocess.run(
        [openssl, "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "data"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=30,
    )


def test_any_of_several_cas_may_have_signed():
    data = sign(compose(make()), KEY)
    assert verify(data, OTHER.pem + CA.pem).version == 3
    assert verify(data, CA.pem + OTHER.pem).version == 3
    assert refusal(data, OTHER.pem) == "BAD_SIGNATURE"


def test_a_leaf_among_the_cas_signs_nothing():
    user = certificates.issue_user(ISSUER, "alice")
    data = sign_raw(compose(make()), certificates.load_key(user.key_pem))
    assert refusal(data, CA.pem + user.pem) == "BAD_SIGNATURE"
    assert refusal(data, user.pem) == "NO_TRUSTED_CA"
    assert refusal(data, b"") == "NO_TRUSTED_CA"
    assert refusal(data, b"junk") == "NO_TRUSTED_CA"


def test_every_flipped_byte_is_refused():
    data = sign(compose(make()), KEY)
    reasons = set()
    for at in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            tampered = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                # Only the blanks between the fields may be others: the content is the same.
                assert verify(tampered, CA.pem).version == 3
                assert data[at : at + 1].isspace()
            except BundleInvalid as e:
                reasons.add(e.reason)
    assert reasons == {"MALFORMED", "BAD_FIELD", "BAD_SIGNATURE"}


def test_base64_is_taken_as_it_is_written_only():
    for version in range(1, 12):
        envelope = json.loads(sign(compose(make(version=10**version)), KEY))
        for field in envelope:
            text = envelope[field].rstrip("=")
            padding = envelope[field][len(text) :]
            if padding:
                other = text[:-1] + chr(ord(text[-1]) + 1) + padding
                assert refusal(json.dumps(envelope | {field: other}).encode()) == "MALFORMED"


def test_every_cut_is_refused():
    data = sign(compose(make()), KEY).rstrip()
    for length in range(len(data)):
        assert refusal(data[:length]) in {"MALFORMED", "BAD_FIELD", "BAD_SIGNATURE"}


def test_a_signature_for_something_else_is_not_one_for_a_bundle():
    assert refusal(sign_raw(compose(make()), context=b"")) == "BAD_SIGNATURE"
    assert refusal(sign_raw(compose(make()), context=b"hostler-bundle-v2\0")) == "BAD_SIGNATURE"


def test_a_payload_from_another_bundle_does_not_fit_the_signature():
    one = json.loads(sign(compose(make()), KEY))
    two = json.loads(sign(compose(make(version=4)), KEY))
    mixed = json.dumps({"payload": two["payload"], "signature": one["signature"]})
    assert refusal(mixed.encode()) == "BAD_SIGNATURE"


def test_another_trust_domain_is_refused():
    other = make(trust_domain="other", members={})
    assert refusal(sign_raw(compose(other))) == "WRONG_TRUST_DOMAIN"


def test_sizes_are_bounded():
    assert refusal(b" " * (bundles.MAX_BUNDLE_BYTES + 1)) == "TOO_LARGE"
    large = make(policies=(Policy("a", "//" + "x" * bundles.MAX_BUNDLE_BYTES),))
    with pytest.raises(BundleInvalid) as caught:
        sign(compose(large), KEY)
    assert caught.value.reason == "TOO_LARGE"
    assert refusal(b"[" * 100_000) == "MALFORMED"


BAD_FIELDS = [
    {"version": 0},
    {"version": -1},
    {"version": True},
    {"version": "3"},
    {"version": 2**63},
    {"format": True},
    {"created": "2026-01-31 12:00:00"},
    {"created": "2026-02-31T12:00:00Z"},
    {"created": 5},
    {"trust_domain": "Lab"},
    {"trust_domain": None},
    {"members": []},
    {"members": {"alice": ["admins"]}},
    {"members": {"local/root": ["admins"]}},
    {"members": {"spiffe://other/user/alice": ["admins"]}},
    {"members": {ALICE: []}},
    {"members": {ALICE: "admins"}},
    {"members": {ALICE: ["admins", "admins"]}},
    {"members": {ALICE: ["Admins"]}},
    {"members": {ALICE: [f"g{n}" for n in range(65)]}},
    {"policies": {}},
    {"policies": [{"id": "a"}]},
    {"policies": [{"id": "a", "cedar": "x", "more": 1}]},
    {"policies": [{"id": "A b", "cedar": "x"}]},
    {"policies": [{"id": "a", "cedar": 1}]},
    {"policies": [{"id": "a", "cedar": "\ud800"}]},
    {"policies": [{"id": "a", "cedar": "x"}] * 2},
    {"policies": [{"id": f"a{n}", "cedar": ""} for n in range(1001)]},
    {"revoked": "abc"},
    {"revoked": ["ABC"]},
    {"revoked": ["0a"]},
    {"revoked": ["xyz"]},
    {"revoked": ["a", "a"]},
    {"revoked": [5]},
    {"more": 1},
]


@pytest.mark.parametrize("change", BAD_FIELDS, ids=lambda change: str(change)[:40])
def test_a_good_signature_does_not_make_bad_fields_good(change):
    payload = json.dumps(document(**change)).encode()
    assert refusal(sign_raw(payload)) == "BAD_FIELD"
    with pytest.raises(BundleInvalid):
        sign(payload, KEY)


@pytest.mark.parametrize("field", sorted(document()))
def test_no_field_may_be_missing(field):
    found = document()
    del found[field]
    assert refusal(sign_raw(json.dumps(found).encode())) == "BAD_FIELD"


def test_a_later_format_says_so():
    payload = json.dumps(document(format=2, news="x")).encode()
    assert refusal(sign_raw(payload)) == "UNSUPPORTED_FORMAT"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"{",
        b"NaN",
        b'{"format":1.0}',
        b'{"a":1,"a":1}',
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_a_payload_that_is_no_strict_json_is_refused(payload):
    assert refusal(sign_raw(payload)) == "MALFORMED"


def test_a_repeated_key_in_the_envelope_is_refused():
    data = sign(compose(make()), KEY).decode()
    assert refusal(data.replace("{", '{"payload":"",', 1).encode()) == "MALFORMED"


def test_only_newer_bundles_replace():
    old, same, new = make(), make(sha256="x"), make(version=4)
    assert check_newer(old, None)
    assert check_newer(new, old)
    assert not check_newer(same, old)
    for candidate in (make(version=2), make(revoked=frozenset())):
        with pytest.raises(BundleInvalid) as caught:
            check_newer(candidate, old)
        assert caught.value.reason == "NOT_NEWER"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_else(data):
    with pytest.raises(BundleInvalid):
        verify(data, CA.pem)


@given(payload=st.binary(max_size=60), signature=st.binary(max_size=80))
def test_no_envelope_raises_anything_else(payload, signature):
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(signature).decode(),
    }
    with pytest.raises(BundleInvalid):
        verify(json.dumps(envelope).encode(), CA.pem)


@settings(max_examples=300)
@given(st.sampled_from(sorted(document())), json_values)
def test_no_signed_payload_raises_anything_else(field, value):
    payload = json.dumps(document(**{field: value})).encode()
    try:
        verify(sign_raw(payload), CA.pem)
    except BundleInvalid as e:
        assert e.reason in {"BAD_FIELD", "UNSUPPORTED_FORMAT", "MALFORMED", "WRONG_TRUST_DOMAIN"}


@given(st.binary(max_size=300))
def test_no_ca_file_raises_anything_else(ca_pem):
    with pytest.raises(BundleInvalid):
        verify(sign_raw(compose(make())), ca_pem)


names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,10}[a-z0-9])?", fullmatch=True)


@given(
    version=st.integers(1, 2**63 - 1),
    members=st.dictionaries(
        names.map(lambda name: f"spiffe://lab.hostler/user/{name}"),
        st.sets(names, min_size=1, max_size=4).map(lambda groups: tuple(sorted(groups))),
        max_size=4,
    ),
    texts=st.lists(st.text(st.characters(codec="utf-8")), max_size=4),
    revoked=st.frozensets(st.integers(1, 2**160 - 1).map(lambda serial: f"{serial:x}")),
)
def test_any_bundle_comes_back_as_it_was(version, members, texts, revoked):
    policies = tuple(Policy(f"p{n}", text) for n, text in enumerate(texts))
    made = make(version=version, members=members, policies=policies, revoked=revoked)
    found = verify(sign(compose(made), KEY), CA.pem)
    assert compose(found) == compose(made)
    assert (found.members, found.policies, found.revoked) == (members, policies, revoked)
