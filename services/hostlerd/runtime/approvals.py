"""Two-person approval: what was asked for, who has approved, and that it is used once.

One file for each, in the daemon's state folder. Its id is made of requester, method, resources
and plan, so that a fleet of hosts with equal plans asks for one id, and asking again is no new
request. What it is about never changes; what became of it is written before anything is done.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from hostler.core import files
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log
from hostlerd.runtime.steps import fingerprint

log = get_log("runtime.approvals")

LIFETIME_S = 3600
# What is over is still shown for so long.
_KEPT_S = 7 * 24 * 3600
_MOST = 1000
# The plan as the approver is shown it; whoever wants to see more asks for the plan itself.
_MOST_STEPS = 2000
_LONGEST_STEP = 300
_MOST_BYTES = 4 << 20
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_USER = re.compile(r"spiffe://[^/]+/user/[^/]+")


class State(Enum):
    """What became of a request, by the names of the API."""

    REQUESTED = 1
    APPROVED = 2
    USED = 3
    EXPIRED = 4
    WITHDRAWN = 5


class ApprovalRequired(DomainError):
    """Somebody else has to approve first; `approval` is the id of the request."""

    code, reason = Code.FAILED_PRECONDITION, "APPROVAL_REQUIRED"


class ApprovalNotFound(DomainError):
    """There is no such request here."""

    code, reason = Code.NOT_FOUND, "APPROVAL_NOT_FOUND"


class ApprovalNotCounted(DomainError):
    """This caller cannot approve this request; the message says why."""

    code, reason = Code.PERMISSION_DENIED, "APPROVAL_NOT_COUNTED"


class ApprovalClosed(DomainError):
    """The request is used, expired or withdrawn."""

    code, reason = Code.FAILED_PRECONDITION, "APPROVAL_CLOSED"


class TooManyApprovals(DomainError):
    """There are as many open requests as are kept."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_APPROVALS"


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about. `steps` are pairs of kind and description."""

    requester: str
    method: str
    resources: tuple[str, ...]
    plan_hash: str
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """The same wherever the same caller wants the same."""
        said = [self.requester, self.method, self.resources, self.plan_hash]
        return fingerprint(said)[:32]


@dataclass(frozen=True, slots=True)
class Approver:
    """Who approved, by which certificate and from where."""

    identity: str
    certificate_serial: str
    peer: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A request and what became of it. Times are seconds since the epoch; 0 means never."""

    about: About
    state: State
    created: float
    expires: float
    approver: Approver | None = None
    approved: float = 0.0

    @property
    def id(self) -> str:
        """What it is about, as an id."""
        return self.about.id

    @property
    def open(self) -> bool:
        """Whether it can still be approved or used."""
        return self.state in (State.REQUESTED, State.APPROVED)


class Approvals:
    """The requests of one daemon, on disk. All of it blocks; calls exclude each other by flock."""

    def __init__(self, folder: Path, lifetime_s: float = LIFETIME_S) -> None:
        self._folder = folder
        self._lifetime_s = lifetime_s

    def find(self, approval_id: str) -> Approval:
        """Answer a request as it is now. Raises ApprovalNotFound, OSError."""
        found = self._read(approval_id)
        if found is None:
            raise ApprovalNotFound("there is no such approval", approval=approval_id[:64])
        return found

    def all(self) -> list[Approval]:
        """Answer all that is kept, newest first."""
        found = [a for i in self._ids() if (a := self._read(i))]
        return sorted(found, key=lambda a: (-a.created, a.id))

    def request(self, about: About) -> Approval:
        """Ask for approval; asking again answers the request that is open. Raises OSError."""
        with self._locked():
            found = self._read(about.id)
            if found is not None and found.open:
                return found
            self._make_room()
            now = time.time()
            shown = replace(about, steps=_bounded(about.steps))
            made = Approval(shown, State.REQUESTED, now, now + self._lifetime_s)
            self._write(made)
            return made

    def approve(self, approval_id: str, approver: Approver) -> Approval:
        """Approve what is waiting; the caller has checked who approves. Twice is as once.

        Raises ApprovalNotFound, ApprovalClosed, OSError.
        """
        with self._locked():
            found = self._open(approval_id)
            if found.state is State.APPROVED:
                return found
            made = replace(found, state=State.APPROVED, approver=approver, approved=time.time())
            self._write(made)
            return made

    def withdraw(self, approval_id: str) -> Approval:
        """Take a request or an unused approval back. Raises as `approve` does."""
        with self._locked():
            return self._end(self._open(approval_id), State.WITHDRAWN)

    def use(self, approval_id: str) -> Approval:
        """Use an approval: on disk before this returns, and never again. Raises as `approve`."""
        with self._locked():
            found = self._open(approval_id)
            if found.state is not State.APPROVED:
                raise ApprovalRequired("nobody has approved yet", approval=approval_id)
            return self._end(found, State.USED)

    def _open(self, approval_id: str) -> Approval:
        found = self.find(approval_id)
        if not found.open:
            raise ApprovalClosed(
                f"this approval is {found.state.name.lower()}",
                approval=approval_id,
                state=found.state.name,
            )
        return found

    def _end(self, found: Approval, state: State) -> Approval:
        made = replace(found, state=state)
        self._write(made)
        return made

    def _make_room(self) -> None:
        """Forget what has been over for long, and the oldest of it if there is too much."""
        if sum(1 for _ in self._ids()) < _MOST // 2:
            return
        found = self.all()
        over = [a for a in found if not a.open]
        old = [a for a in over if a.expires + _KEPT_S < time.time()]
        for approval in {a.id: a for a in (*old, *over[_MOST // 2 :])}.values():
            (self._folder / f"{approval.id}.json").unlink(missing_ok=True)
        if len(found) - len(over) >= _MOST // 2:
            raise TooManyApprovals(f"{len(found) - len(over)} requests are open")

    def _ids(self) -> Iterator[str]:
        try:
            names = [place.name for place in self._folder.iterdir()]
        except FileNotFoundError:
            return
        for name in names:
            stem = name.removesuffix(".json")
            if stem != name and _ID.fullmatch(stem):
                yield stem

    def _read(self, approval_id: str) -> Approval | None:
        if not _ID.fullmatch(approval_id):
            return None
        place = self._folder / f"{approval_id}.json"
        try:
            found = _decode(json.loads(files.read_bounded(place, _MOST_BYTES)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            # Damaged: nothing is approved by it, and a new request takes its place.
            log.error("approval unreadable", path=place, problem=repr(e))
            return None
        if found.id != approval_id:
            log.error("approval is another one's", path=place)
            return None
        # A request from the future was made before the clock was set back.
        if found.open and not found.created - 60 <= time.time() < found.expires:
            return replace(found, state=State.EXPIRED)
        return found

    def _write(self, approval: Approval) -> None:
        data = {**asdict(approval), "state": approval.state.name}
        text = json.dumps(data, separators=(",", ":")).encode()
        files.replace(self._folder / f"{approval.id}.json", text, mode=0o600)

    def _locked(self) -> Any:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return files.locked(self._folder)


def is_user(identity: str) -> bool:
    """Tell whether an identity is a person's, and so may approve."""
    return _USER.fullmatch(identity) is not None


def _bounded(steps: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    shown = tuple((kind, words[:_LONGEST_STEP]) for kind, words in steps[:_MOST_STEPS])
    left = len(steps) - len(shown)
    return (*shown, ("", f"and {left} more")) if left else shown


def _decode(data: Mapping[str, Any]) -> Approval:
    about = data["about"]
    approver = data["approver"]
    return Approval(
        About(
            requester=str(about["requester"]),
            method=str(about["method"]),
            resources=tuple(map(str, about["resources"])),
            plan_hash=str(about["plan_hash"]),
            steps=tuple((str(kind), str(words)) for kind, words in about["steps"]),
        ),
        State[data["state"]],
        float(data["created"]),
        float(data["expires"]),
        Approver(**{key: str(value) for key, value in approver.items()}) if approver else None,
        float(data["approved"]),
    )
