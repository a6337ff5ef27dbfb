"""Destroy tokens: what a plan that loses data answers, and its caller presents to have it done.

A token is `d1.EXPIRY.NONCE.MAC`. The MAC is an HMAC with a key of this daemon over caller, method,
plan hash, what the domain binds (a disk's serial number, its `diskseq`), expiry and nonce: nothing
but the nonce of a token that was used needs to be kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostler.core import files
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.steps import canonical

LIFETIME_S = 600
_KEY_BYTES = 32
# Each is a file of a token that was good, kept until the token would have ended by itself.
_MOST_USED = 10_000
_TOKEN = re.compile(r"d1\.([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})", re.ASCII)


class DestroyTokenRequired(DomainError):
    """The method loses data: it takes the token that its plan answers."""

    code, reason = Code.FAILED_PRECONDITION, "DESTROY_TOKEN_REQUIRED"


class DestroyTokenInvalid(DomainError):
    """The token was made for another caller, method, plan or device, or by nobody here."""

    code, reason = Code.FAILED_PRECONDITION, "DESTROY_TOKEN_INVALID"


class DestroyTokenExpired(DomainError):
    """The token was good for a while, and that is over."""

    code, reason = Code.FAILED_PRECONDITION, "DESTROY_TOKEN_EXPIRED"


class DestroyTokenUsed(DomainError):
    """The token was used."""

    code, reason = Code.FAILED_PRECONDITION, "DESTROY_TOKEN_USED"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token is good for."""

    identity: str
    method: str
    plan_hash: str
    bindings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """A token and when it ends, in seconds since the epoch."""

    text: str
    expires: int


class DestroyTokens:
    """Makes tokens and takes them, each once. `folder` is the daemon's own; all of it blocks."""

    def __init__(self, folder: Path, lifetime_s: int = LIFETIME_S) -> None:
        self._folder = folder
        self._used = folder / "used"
        self._lifetime_s = lifetime_s

    def make(self, bound: Bound) -> Token:
        """Answer a token for this. Raises OSError if the key cannot be kept."""
        expires, nonce = int(time.time()) + self._lifetime_s, secrets.token_hex(16)
        return Token(f"d1.{expires}.{nonce}.{self._mac(bound, expires, nonce)}", expires)

    def check(self, text: str, bound: Bound) -> Token:
        """Answer the token if it is good for this and was not used.

        Raises DestroyTokenRequired, DestroyTokenInvalid, DestroyTokenExpired, DestroyTokenUsed.
        """
        if not text:
            raise DestroyTokenRequired(
                "this loses data: ask for the plan with validate_only, then present its token"
            )
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise DestroyTokenInvalid("this is no token of a plan")
        expires, nonce, mac = int(match[1]), match[2], match[3]
        if not hmac.compare_digest(mac, self._mac(bound, expires, nonce)):
            raise DestroyTokenInvalid(
                "the token was made for another caller, method, plan or device"
            )
        # One that is good for longer than any is made for comes from before the clock was set back.
        if not 0 < expires - time.time() <= self._lifetime_s:
            raise DestroyTokenExpired("the token has ended: ask for the plan again")
        if self._place(nonce).exists():
            raise DestroyTokenUsed("the token was used: ask for the plan again")
        return Token(text, expires)

    def use(self, token: Token) -> None:
        """Mark a token that `check` answered as used, on disk. Raises DestroyTokenUsed, OSError."""
        self._used.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget()
        try:
            files.write_new(self._place(token.text.split(".")[2]), b"", mode=0o600)
        except FileExistsError as e:
            raise DestroyTokenUsed("the token was used: ask for the plan again") from e

    def _place(self, nonce: str) -> Path:
        return self._used / nonce

    def _forget(self) -> None:
        """Forget tokens that have ended by themselves: none is good for longer than that."""
        files.sweep(self._used)
        oldest = time.time() - 2 * self._lifetime_s
        kept = 0
        for place in self._used.iterdir():
            if place.stat().st_mtime < oldest:
                place.unlink()
            else:
                kept += 1
        if kept >= _MOST_USED:
            raise DestroyTokenExpired("too many tokens were used lately; try again later")

    def _mac(self, bound: Bound, expires: int, nonce: str) -> str:
        said = [
            *(bound.identity, bound.method, bound.plan_hash),
            *(canonical(bound.bindings), expires, nonce),
        ]
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._key(), text.encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        place = self._folder / "key"
        try:
            key = files.read_bounded(place, _KEY_BYTES)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                files.write_new(place, secrets.token_bytes(_KEY_BYTES), mode=0o600)
            except FileExistsError:
                pass
            key = files.read_bounded(place, _KEY_BYTES)
        if len(key) != _KEY_BYTES:
            raise DestroyTokenInvalid(f"the key of this daemon's tokens is damaged: {place}")
        return key
