"""Destroy tokens: good once, for one caller, method, plan and device, for a while."""

import os
import time

import pytest

from hostlerd.runtime.destroy import (
    Bound,
    DestroyTokenExpired,
    DestroyTokenInvalid,
    DestroyTokenRequired,
    DestroyTokens,
    DestroyTokenUsed,
)

DISK = {"serial": "S3Z8", "size_bytes": 1 << 30, "diskseq": 7}
BOUND = Bound("spiffe://t/user/alice", "/s.S/Wipe", "ab" * 32, DISK)


@pytest.fixture
def tokens(tmp_path):
    return DestroyTokens(tmp_path / "destroy")


def again(tmp_path, **changed):
    """The same daemon after a restart."""
    return DestroyTokens(tmp_path / "destroy", **changed)


def test_a_token_is_good_once_across_restarts(tmp_path, tokens):
    made = tokens.make(BOUND)
    checked = again(tmp_path).check(made.text, BOUND)
    again(tmp_path).use(checked)
    with pytest.raises(DestroyTokenUsed):
        again(tmp_path).check(made.text, BOUND)
    with pytest.raises(DestroyTokenUsed):
        again(tmp_path).use(checked)


def test_two_plans_have_two_tokens_and_each_is_good(tokens):
    first, second = tokens.make(BOUND), tokens.make(BOUND)
    assert first.text != second.text
    for made in (first, second):
        tokens.use(tokens.check(made.text, BOUND))


@pytest.mark.parametrize(
    "other",
    [
        Bound("spiffe://t/user/bob", BOUND.method, BOUND.plan_hash, DISK),
        Bound(BOUND.identity, "/s.S/Other", BOUND.plan_hash, DISK),
        Bound(BOUND.identity, BOUND.method, "cd" * 32, DISK),
        Bound(BOUND.identity, BOUND.method, BOUND.plan_hash, {**DISK, "diskseq": 8}),
        Bound(BOUND.identity, BOUND.method, BOUND.plan_hash, {**DISK, "serial": "S3Z9"}),
        Bound(BOUND.identity, BOUND.method, BOUND.plan_hash, {}),
    ],
    ids=["caller", "method", "plan", "diskseq", "serial", "nothing bound"],
)
def test_a_token_is_for_nothing_else(tokens, other):
    with pytest.raises(DestroyTokenInvalid):
        tokens.check(tokens.make(BOUND).text, other)


def test_no_character_of_a_token_can_be_changed(tokens):
    text = tokens.make(BOUND).text
    for at in range(len(text)):
        for other in "0f.d9":
            changed = text[:at] + other + text[at + 1 :]
            if changed != text:
                with pytest.raises(DestroyTokenInvalid):
                    tokens.check(changed, BOUND)


@pytest.mark.parametrize("text", ["d1", "d1.1.2.3", "x" * 5000, "d1.9.\n.", "ü", "d1." + "9" * 40])
def test_what_is_no_token_is_refused(tokens, text):
    with pytest.raises(DestroyTokenInvalid):
        tokens.check(text, BOUND)


def test_none_at_all_says_how_to_get_one(tokens):
    with pytest.raises(DestroyTokenRequired, match="validate_only"):
        tokens.check("", BOUND)


def test_a_token_ends(tmp_path):
    tokens = again(tmp_path, lifetime_s=1)
    made = tokens.make(BOUND)
    tokens.check(made.text, BOUND)
    time.sleep(1.1)
    with pytest.raises(DestroyTokenExpired):
        tokens.check(made.text, BOUND)


def test_a_token_from_the_future_is_not_good_for_longer(tmp_path):
    """It is what a clock that was set back makes of one: good far beyond its time."""
    made = again(tmp_path, lifetime_s=4000).make(BOUND)
    with pytest.raises(DestroyTokenExpired):
        again(tmp_path, lifetime_s=600).check(made.text, BOUND)


def test_another_daemons_key_makes_other_tokens(tmp_path, tokens):
    with pytest.raises(DestroyTokenInvalid):
        DestroyTokens(tmp_path / "other").check(tokens.make(BOUND).text, BOUND)


def test_the_key_is_for_the_daemon_alone_and_stays(tmp_path, tokens):
    tokens.make(BOUND)
    place = tmp_path / "destroy/key"
    assert place.stat().st_mode & 0o777 == 0o600 and place.stat().st_size == 32
    before = place.read_bytes()
    again(tmp_path).make(BOUND)
    assert place.read_bytes() == before


def test_a_damaged_key_opens_nothing(tmp_path, tokens):
    text = tokens.make(BOUND).text
    (tmp_path / "destroy/key").write_bytes(b"")
    with pytest.raises(DestroyTokenInvalid, match="damaged"):
        tokens.check(text, BOUND)


def test_used_tokens_are_forgotten_once_they_have_ended(tmp_path, tokens):
    used = tokens.make(BOUND)
    tokens.use(tokens.check(used.text, BOUND))
    (place,) = (tmp_path / "destroy/used").iterdir()
    long_ago = time.time() - 3 * 600
    os.utime(place, (long_ago, long_ago))
    tokens.use(tokens.check(tokens.make(BOUND).text, BOUND))
    assert not place.exists() and len(list(place.parent.iterdir())) == 1
