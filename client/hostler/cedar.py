"""What Cedar itself says about policies, where `cedarpy` is installed; daemons always have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pkgutil import walk_packages
from typing import Any

from hostler.core import decision
from hostler.core.bundle import Bundle, Policy
from hostler.core.decision import CLASSES, ROOT_EQUIVALENT, Action, Decision, Policies, Question
from hostler.fleet import PORTS
from hostler.policy import PolicyError

_PUSH = "/hostler.api.common.v1.BundleService/PushBundle"
_CONTEXT = {
    "local": {"type": "Boolean", "required": True},
    "peer": {"type": "String", "required": True},
    "validate_only": {"type": "Boolean", "required": True},
    "approvals": {"type": "Long", "required": True},
}
_RESOURCE = {
    "domain": {"type": "String", "required": True},
    "names": {"type": "Set", "element": {"type": "String"}, "required": True},
}


def is_available() -> bool:
    """Tell whether policies can be checked on this machine."""
    return find_spec("cedarpy") is not None


def check_syntax(policies: Iterable[Policy]) -> None:
    """Parse each policy by itself; does nothing where Cedar is not installed.

    Raises PolicyError with the policy's id and Cedar's words.
    """
    if not is_available():
        return
    import cedarpy

    for policy in policies:
        try:
            parsed = cedarpy.PolicySet.from_str(policy.cedar)
        except ValueError as e:
            raise PolicyError(f'@id("{policy.id}"): {e}') from e
        if len(parsed) != 1:
            raise PolicyError(f'@id("{policy.id}"): must be one policy and no template')


def validate(policies: Iterable[Policy]) -> Sequence[str]:
    """Check policies against all actions that Hostler knows; answers what is wrong with which.

    Finds misspelt actions, types and attributes, which Cedar would silently never match. Needs
    Cedar. Raises PolicyError if one does not parse.
    """
    import cedarpy

    found = []
    known = schema()
    for policy in policies:
        check_syntax([policy])
        result = cedarpy.validate_policies(policy.cedar, known)
        found += [f'@id("{policy.id}"): {error.error}' for error in result.errors]
    return found


def too_wide(policies: Iterable[Policy]) -> Sequence[str]:
    """Answer which permits cover ROOT_EQUIVALENT methods without saying so; needs Cedar.

    Daemons do not count such a permit for those methods: whoever may call them owns the host, and
    that has to be written down in so many words.
    """
    found = []
    known = [action for action in known_actions() if action.access_class == ROOT_EQUIVALENT]
    for policy in policies:
        (parsed,) = decision.parsed(policy.cedar).values()
        (named,) = decision.named_actions(policy.cedar).values()
        covered = [action.method for action in known if _covers(parsed["action"], action)]
        unnamed = any(not decision.names(a, named) for a in known if a.method in covered)
        if parsed["effect"] == "permit" and unnamed:
            found.append(
                f'@id("{policy.id}"): covers {ROOT_EQUIVALENT} methods without naming '
                f'Action::"class/{ROOT_EQUIVALENT}", and does not count for them'
            )
    return found


def _covers(scope: Mapping[str, Any], action: Action) -> bool:
    """Tell whether the scope of a policy, as Cedar's JSON has it, takes in an action."""
    if scope["op"] == "All":
        return True
    entities = scope.get("entities") or [scope["entity"]]
    wanted = {entity["id"] for entity in entities}
    within = {action.method, *action.parents} if scope["op"] == "in" else {action.method}
    return bool(wanted & within)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What policies say to a call, and what they would say had somebody else approved it."""

    decision: Decision
    approved: Decision

    @property
    def approval_needed(self) -> bool:
        """Whether only the approval of another is missing."""
        return not self.decision.allowed and self.approved.allowed


class Judge:
    """A bundle whose policies are parsed, to be asked many questions. Needs Cedar."""

    def __init__(self, bundle: Bundle) -> None:
        """Parse the policies. Raises ValueError if they do not parse."""
        self._bundle = bundle
        self._policies = Policies(bundle.cedar(), known_actions())

    def explain(self, question: Question) -> Explanation:
        """Answer why a call is allowed or denied; the question's groups are the bundle's."""
        asked = replace(question, groups=self._bundle.groups_of(question.identity))
        now = self._policies.decide(replace(asked, approvals=0))
        if not decision.can_be_approved(question.action):
            return Explanation(now, now)
        return Explanation(now, self._policies.decide(replace(asked, approvals=1)))

    def locked_out(self) -> tuple[str, ...]:
        """The domains at whose doors no user who is in a group could push the next bundle.

        Whether any of them has a certificate that is good, a bundle does not know.
        """
        (push,) = (a for a in known_actions() if a.method == _PUSH)
        prefix = f"spiffe://{self._bundle.trust_domain}/user/"
        users = [identity for identity in self._bundle.members if identity.startswith(prefix)]
        return tuple(
            domain
            for domain in push.domains
            if not any(self._may_push(user, push, domain) for user in users)
        )

    def _may_push(self, user: str, push: Action, domain: str) -> bool:
        told = self.explain(Question(user, (), push, domain))
        return told.decision.allowed or told.approval_needed


def schema() -> dict[str, Any]:
    """Make the Cedar schema of Hostler's API from its protos. Source: Cedar schema, JSON form."""
    groups = [f"class/{name}" for name in CLASSES]
    groups += [f"domain/{domain}" for domain in PORTS]
    applies = {
        "principalTypes": ["Identity"],
        "resourceTypes": ["Resource"],
        "context": {"type": "Record", "attributes": _CONTEXT},
    }
    # A group applies as an action does: no method may be in it yet.
    actions: dict[str, Any] = {group: {"appliesTo": applies} for group in groups}
    for action in known_actions():
        parents = [{"id": parent} for parent in action.parents]
        actions[action.method] = {"memberOf": parents, "appliesTo": applies}
    entities = {
        "Group": {},
        "Identity": {"memberOfTypes": ["Group"]},
        "Resource": {"shape": {"type": "Record", "attributes": _RESOURCE}},
    }
    return {"": {"entityTypes": entities, "actions": actions}}


def known_actions() -> Iterable[Action]:
    """Answer every annotated method, with its class and the domains at whose doors it is."""
    from hostler.api.common.v1 import access_pb2

    for module in _modules():
        domain = module.DESCRIPTOR.package.split(".")[2]
        domains = tuple(PORTS) if domain == "common" else (domain,)
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                access = method.GetOptions().Extensions[access_pb2.access]
                kind = getattr(access, "class")
                name = access_pb2.AccessClass.Name(kind).removeprefix("ACCESS_CLASS_")
                yield Action(f"/{service.full_name}/{method.name}", name, domains)


def _modules() -> Iterable[Any]:
    import hostler.api

    for found in walk_packages(hostler.api.__path__, "hostler.api."):
        if found.name.endswith("_pb2"):
            yield import_module(found.name)
