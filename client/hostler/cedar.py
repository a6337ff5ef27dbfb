"""What Cedar itself says about policies, where `cedarpy` is installed; daemons always have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pkgutil import walk_packages
from typing import Any

from hostler.core.bundle import Policy
from hostler.fleet import PORTS
from hostler.policy import PolicyError

_CONTEXT = {
    "local": {"type": "Boolean", "required": True},
    "peer": {"type": "String", "required": True},
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


def schema() -> dict[str, Any]:
    """Make the Cedar schema of Hostler's API from its protos. Source: Cedar schema, JSON form."""
    groups = [f"class/{name}" for name in ("READ", "CHANGE", "DESTROY", "ROOT_EQUIVALENT")]
    groups += [f"domain/{domain}" for domain in PORTS]
    applies = {
        "principalTypes": ["Identity"],
        "resourceTypes": ["Resource"],
        "context": {"type": "Record", "attributes": _CONTEXT},
    }
    # A group applies as an action does: no method may be in it yet.
    actions: dict[str, Any] = {group: {"appliesTo": applies} for group in groups}
    for name, access_class, domains in _methods():
        parents = [f"class/{access_class}", *(f"domain/{domain}" for domain in domains)]
        actions[name] = {"memberOf": [{"id": parent} for parent in parents], "appliesTo": applies}
    entities = {
        "Group": {},
        "Identity": {"memberOfTypes": ["Group"]},
        "Resource": {"shape": {"type": "Record", "attributes": _RESOURCE}},
    }
    return {"": {"entityTypes": entities, "actions": actions}}


def _methods() -> Iterable[tuple[str, str, Sequence[str]]]:
    """Answer each annotated method's name and class, and the domains at whose doors it is."""
    from hostler.api.common.v1 import access_pb2

    for module in _modules():
        domain = module.DESCRIPTOR.package.split(".")[2]
        domains = tuple(PORTS) if domain == "common" else (domain,)
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                access = method.GetOptions().Extensions[access_pb2.access]
                kind = getattr(access, "class")
                name = access_pb2.AccessClass.Name(kind).removeprefix("ACCESS_CLASS_")
                yield f"/{service.full_name}/{method.name}", name, domains


def _modules() -> Iterable[Any]:
    import hostler.api

    for found in walk_packages(hostler.api.__path__, "hostler.api."):
        if found.name.endswith("_pb2"):
            yield import_module(found.name)
