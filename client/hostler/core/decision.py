"""What the policies of a bundle say to a call: asked by daemons, and by whoever wants to know why.

Cedar decides; what it is told of caller, method and resource is put together here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_COMMON = "/hostler.api.common.v1."
_BUNDLE_SERVICE = f"{_COMMON}BundleService/"
ROOT_EQUIVALENT = "ROOT_EQUIVALENT"
CLASSES = ("READ", "CHANGE", "DESTROY", ROOT_EQUIVALENT)


@dataclass(frozen=True, slots=True)
class Action:
    """A method as policies see it: its full name, its class, and at whose doors it is served."""

    method: str
    access_class: str
    domains: tuple[str, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        """The groups of actions that it is in."""
        return (f"class/{self.access_class}", *(f"domain/{domain}" for domain in self.domains))


@dataclass(frozen=True, slots=True)
class Question:
    """A call on one resource; `resource` is empty if it names none.

    `approvals` is how many others have approved it.
    """

    identity: str
    groups: tuple[str, ...]
    action: Action
    domain: str
    resource: str = ""
    peer: str = ""
    local: bool = False
    validate_only: bool = False
    approvals: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies say. `policies` are the ids of those that spoke.

    `unnamed`: they would permit it, had any of them named what is ROOT_EQUIVALENT in so many words.
    `errors` are Cedar's: a policy that cannot be evaluated lets nothing through.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    unnamed: bool = False
    errors: tuple[str, ...] = ()


class Policies:
    """Policies that were parsed: parsing costs more than deciding."""

    def __init__(self, cedar: str, actions: Iterable[Action]) -> None:
        """Parse the text. Raises ValueError."""
        import cedarpy

        self._policies = cedarpy.PolicySet.from_str(cedar)
        # Actions alone. The caller joins them per question: with all members in it, a decision
        # would take the longer the more members there are.
        entities = [_entity("Action", a.method, a.parents, "Action") for a in actions]
        self._actions = cedarpy.Entities.from_json_str(json.dumps(entities))
        self._named = named_actions(cedar)

    def decide(self, question: Question) -> Decision:
        """Answer what they say."""
        import cedarpy

        uid = f"{question.domain}/{question.resource}" if question.resource else question.domain
        names = [question.resource] if question.resource else []
        entities = [
            _entity("Identity", question.identity, question.groups, "Group"),
            {**_entity("Resource", uid), "attrs": {"domain": question.domain, "names": names}},
        ]
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Identity", "id": question.identity},
                "action": {"type": "Action", "id": question.action.method},
                "resource": {"type": "Resource", "id": uid},
                "context": {
                    "peer": question.peer,
                    "local": question.local,
                    "validate_only": question.validate_only,
                    "approvals": question.approvals,
                },
            },
            self._policies,
            self._actions.with_added_json_str(json.dumps(entities)),
        )
        return self._decision(question.action, result)

    def _decision(self, action: Action, result: Any) -> Decision:
        spoke = result.diagnostics.id_annotations_by_reason or {}
        reasons = result.diagnostics.reasons
        policies = tuple(spoke.get(reason) or reason for reason in reasons)
        if result.diagnostics.errors:
            # Cedar passes over a policy that cannot be evaluated. If it was a forbid, that would
            # let the call through: what cannot be judged is not allowed.
            return Decision(False, policies, errors=tuple(map(str, result.diagnostics.errors)))
        if not result.allowed:
            return Decision(False, policies)
        named = any(names(action, self._named[reason]) for reason in reasons)
        return Decision(named, policies, unnamed=not named)


def names(action: Action, named: frozenset[str]) -> bool:
    """Tell whether a permit that names these actions says what it permits plainly enough.

    Whoever may call a method of ROOT_EQUIVALENT owns the host. Nobody shall be let do that by a
    policy whose writer only meant "everything in this domain".
    """
    if action.access_class != ROOT_EQUIVALENT:
        return True
    return f"class/{ROOT_EQUIVALENT}" in named or action.method in named


def can_be_approved(action: Action) -> bool:
    """Tell whether a call can wait for somebody's approval.

    Reads cannot, for they have no plan; nor can what approves, confirms and cancels: whoever may
    not do that alone may not do it at all.
    """
    runtimes_own = action.method.startswith(_COMMON) and not action.method.startswith(
        _BUNDLE_SERVICE
    )
    return action.access_class != "READ" and not runtimes_own


def named_actions(cedar: str) -> Mapping[str, frozenset[str]]:
    """Answer the actions that each policy names, by the ids that Cedar gives the policies.

    Raises ValueError if the text does not parse.
    """
    return {key: frozenset(_actions_in(policy)) for key, policy in parsed(cedar).items()}


def parsed(cedar: str) -> Mapping[str, Any]:
    """Answer the policies of a text as Cedar's JSON has them. Raises ValueError."""
    import cedarpy

    policies: Mapping[str, Any] = json.loads(cedarpy.policies_to_json_str(cedar))["staticPolicies"]
    return policies


def _actions_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("type") == "Action" and isinstance(value.get("id"), str):
            yield value["id"]
        for inner in value.values():
            yield from _actions_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _actions_in(inner)


def _entity(kind: str, name: str, parents: Iterable[str] = (), of: str = "") -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": {},
        "parents": [{"type": of, "id": parent} for parent in parents],
    }
