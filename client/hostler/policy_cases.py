"""What policies must answer: a table that is kept beside them and tried before they are signed.

    [[cases]]
    who = "alice"                 # a user, host/NAME, a whole identity, local/root, local/uid/1000
    calls = ["ListNamespaces"]    # methods by name; `Service/Method` where two have the same
    on = "web"                    # the resource; absent for none
    expect = "allow"              # or "deny", or "approval": somebody else has to approve it

`domain` asks at one door, by default at each that serves the method; `plan = true` asks for the
plan alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostler import cedar
from hostler.core.bundle import MAX_BUNDLE_BYTES, Bundle
from hostler.core.decision import Action, Question
from hostler.core.files import read_bounded
from hostler.core.names import Identity, InvalidField
from hostler.fleet import PORTS
from hostler.policy import PolicyError
from hostler.toml_places import places

EXPECTED = ("allow", "deny", "approval")
MOST_CASES = 10_000
_FIELDS: Mapping[str, type] = {
    "who": str, "calls": list, "expect": str, "on": str, "domain": str, "plan": bool,
}  # fmt: skip
_NEEDED = ("who", "calls", "expect")
_KINDS = {str: "a text", list: "a list", bool: "true or false"}
_WORDS = {"expect": EXPECTED, "domain": tuple(PORTS)}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: a caller, the methods it calls, and what all of them must answer."""

    line: int
    identity: str
    actions: tuple[Action, ...]
    expect: str
    resource: str = ""
    domain: str = ""
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policies say to one call of a case, and whose policies spoke."""

    case: Case
    method: str
    domain: str
    said: str
    policies: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether it is what the table wants."""
        return self.said == self.case.expect


def load_cases(path: Path, trust_domain: str) -> tuple[Case, ...]:
    """Read a table. Raises PolicyError that names every fault with its line, OSError."""
    try:
        text = read_bounded(path, MAX_BUNDLE_BYTES).decode()
        document = tomllib.loads(text)
    except ValueError as e:
        raise PolicyError(f"{path}: {e}") from e
    rows = document.get("cases")
    if set(document) != {"cases"} or not isinstance(rows, list) or not rows:
        raise PolicyError(f"{path}: must have [[cases]] and nothing else")
    if len(rows) > MOST_CASES:
        raise PolicyError(f"{path}: more than {MOST_CASES} cases")
    lines, methods = places(text), _methods()
    found, faults = [], []
    for number, row in enumerate(rows):
        line = lines.line(f"cases[{number}]")
        told = list(_faults(row, methods))
        if not told:
            try:
                found.append(_case(row, line, methods, trust_domain))
            except InvalidField as e:
                told = [f"who: {e.reason}"]
        faults += [f"{path}:{line}: {fault}" for fault in told]
    if faults:
        raise PolicyError("\n".join(faults))
    return tuple(found)


def answers(cases: Sequence[Case], bundle: Bundle) -> Iterator[Answer]:
    """What a bundle answers to each call of each case; needs Cedar. Raises ValueError."""
    judge = cedar.Judge(bundle)
    for case in cases:
        for action in case.actions:
            for domain in (case.domain,) if case.domain else action.domains:
                told = judge.explain(
                    Question(
                        case.identity,
                        (),
                        action,
                        domain,
                        case.resource,
                        local=case.identity.startswith("local/"),
                        validate_only=case.validate_only,
                    )
                )
                said = "approval" if told.approval_needed else "deny"
                if told.decision.allowed:
                    said = "allow"
                yield Answer(case, action.method, domain, said, told.decision.policies)


def _methods() -> Mapping[str, Sequence[Action]]:
    """All methods: by their name, and by that with the name of their service."""
    found: dict[str, list[Action]] = {}
    for action in cedar.known_actions():
        service, _, method = action.method.rpartition("/")
        for name in (method, f"{service.rpartition('.')[2]}/{method}"):
            found.setdefault(name, []).append(action)
    return found


def _faults(row: Any, methods: Mapping[str, Sequence[Action]]) -> Iterator[str]:
    if not isinstance(row, dict):
        yield "must be a table"
        return
    for name in sorted(row.keys() - _FIELDS):
        yield f"{name!r} is not one of {', '.join(_FIELDS)}"
    for name in _NEEDED:
        if not row.get(name):
            yield f"{name} is missing"
    for name, kind in _FIELDS.items():
        if name in row and type(row[name]) is not kind:
            yield f"{name} must be {_KINDS[kind]}"
    for name, words in _WORDS.items():
        if isinstance(row.get(name), str) and row[name] not in ("", *words):
            yield f"{name} must be one of {', '.join(words)}"
    calls = row.get("calls")
    for call in calls if isinstance(calls, list) else ():
        yield from _call_faults(call, methods, row.get("domain", ""))


def _call_faults(call: Any, methods: Mapping[str, Sequence[Action]], domain: Any) -> Iterator[str]:
    actions = methods.get(call, ()) if isinstance(call, str) else ()
    if not actions:
        yield f"there is no method {call!r}"
    elif len(actions) > 1:
        names = " or ".join(action.method.rpartition(".")[2] for action in actions)
        yield f"{call} may be {names}: say which"
    elif domain in PORTS and domain not in actions[0].domains:
        yield f"{call} is not served at the door of {domain}"


def _case(
    row: Mapping[str, Any], line: int, methods: Mapping[str, Sequence[Action]], trust_domain: str
) -> Case:
    who = row["who"]
    return Case(
        line,
        who if who.startswith("local/") else str(Identity.of(who, trust_domain)),
        tuple(methods[call][0] for call in row["calls"]),
        row["expect"],
        row.get("on", ""),
        row.get("domain", ""),
        row.get("plan", False),
    )
