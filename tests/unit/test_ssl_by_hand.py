"""What a run leaves to people: uses without a deployment, and certificates of other issuers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hostler.core.ssl.by_hand import Deployed, by_hand
from hostler.core.ssl.compromise import CompromisePlan, Found, Inventory, Key, Use, plan
from hostler.fleet import Host
from hostler.ssl_order import Order
from hostler.ssl_replace import Replace

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def found(host: str, *uses: Use) -> Found:
    return Found(
        host, "f1", "k1", "1f", "CN=CA", ("a.net",), NOW, NOW + timedelta(days=9), True, uses
    )


def made(*certificates: Found) -> CompromisePlan:
    keys = tuple(Key(each.host, each.spki, ("/k",)) for each in certificates)
    return plan(Inventory(certificates, keys), NOW, keys=["k1"])


def deployed(
    host: str, *, acme: bool = False, fingerprint: str = "f1", revocable: bool | None = None
) -> Deployed:
    return Deployed(host, "web", fingerprint, "k1", acme, acme if revocable is None else revocable)


def test_what_deployments_have_and_the_authority_issued_is_not_by_hand() -> None:
    touched = made(found("h1", Use("h1", "nginx", ("*:443",))), found("h2"))
    have = [deployed("h1"), deployed("h2")]
    assert by_hand(touched, have, {"f1"}, authority=True, revoke=True) == ()


def test_a_use_without_a_deployment_is_by_hand_and_a_copy_that_nobody_uses_is_not() -> None:
    use = Use("h1", "nginx", ("*:443", "*:8443"))
    touched = made(found("h1", use), found("h2"))
    (one,) = by_hand(touched, [deployed("h2")], {"f1"}, authority=True, revoke=True)
    assert (one.where, one.names) == ("h1", ("a.net",))
    assert one.what == "used by nginx at *:443, *:8443, and in no deployment"
    # A deployment that has another certificate by now is not one that has this.
    other = [deployed("h1", fingerprint="f2"), deployed("h2")]
    assert by_hand(touched, other, {"f1"}, authority=True, revoke=True) == (one,)


def test_without_an_authority_only_acme_goes_by_itself() -> None:
    touched = made(found("h1"), found("h2"))
    have = [deployed("h1", acme=True), deployed("h2")]
    (one,) = by_hand(touched, have, (), authority=False, revoke=True)
    assert one.where == "h2" and "there is no --authority" in one.what


def test_what_another_issuer_made_is_revoked_there_by_hand() -> None:
    touched = made(found("h1"))
    (one,) = by_hand(touched, [deployed("h1")], {"f9"}, authority=True, revoke=True)
    assert (one.where, one.what) == ("CN=CA", "revoke 1f: the authority has not issued it")
    assert by_hand(touched, [deployed("h1")], {"f9"}, authority=True, revoke=False) == ()
    # Its ACME server revokes what it issued, on the word of the deployment.
    assert by_hand(touched, [deployed("h1", acme=True)], (), authority=True, revoke=True) == ()
    # What was there before it was asked, it knows nothing of.
    brought = deployed("h1", acme=True, revocable=False)
    assert by_hand(touched, [brought], (), authority=True, revoke=True) == (one,)


def test_an_order_comes_out_of_its_record_as_it_went_in() -> None:
    import json

    ca = Host("ca1", "192.0.2.1", {"role": "ca"}, {"ssl": 17445})
    order = Order(
        ("k1",), (ca, Host("h1", "192.0.2.2")), ca, "server", False,
        {"f1": ("h1", "h2")}, ("h3",), {"h1": {"web": "f1"}},
    )  # fmt: skip
    change = Replace(order)
    record = json.loads(json.dumps(change.to_record(ca)))
    assert Replace.from_record(record)._order == order
    assert Replace.from_record(Replace(Order(("k1",), ())).to_record(ca))._order.authority is None
