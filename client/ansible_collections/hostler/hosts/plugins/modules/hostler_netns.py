#!/usr/bin/python
"""Ansible module: network namespaces of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostler_netns
short_description: Have network namespaces on a host
description:
  - Makes a host have namespaces with their links, addresses, routes and resolvers.
  - All are checked before the first is touched. One that is as it should be is left alone.
extends_documentation_fragment: [hostler.hosts.fleet]
options:
  src:
    description: A file of namespaces, as TOML.
    type: path
  namespaces:
    description: Namespaces in the names of the API, as the TOML file has them.
    type: list
    elements: dict
  absent:
    description: Names of namespaces that the host is not to have.
    type: list
    elements: str
    default: []
  delete_unlisted:
    description: Delete those that Hostler made and that are not listed.
    type: bool
    default: false
  stop_processes:
    description: End the processes in namespaces that are C(absent).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A namespace with an address of the host's pool
  hostler.hosts.hostler_netns:
    host: "{{ inventory_hostname }}"
    namespaces:
      - name: web
        persistent: true
        interfaces: [{veth: {}, ipv4_pool: default, default_route: true}]

- name: One that is not used any more
  hostler.hosts.hostler_netns: {host: h1, absent: [old]}
"""

RETURN = r"""
plan:
  description: What was to be done, or would be, step by step.
  type: list
  elements: str
  returned: always
outcomes:
  description: What became of each change, such as C(applied), C(unchanged) or C(rolled_back).
  type: list
  elements: str
  returned: always
runs:
  description: The runs in which it was carried out, for C(hostler runs show).
  type: list
  elements: str
  returned: always
error:
  description: Why the host refused, with code, reason, metadata and violations.
  type: dict
  returned: on failure
"""

from typing import Any  # noqa: E402

from ansible_collections.hostler.hosts.plugins.module_utils.fleet import (  # noqa: E402
    carry_out,
    message_within,
    module_of,
)


def main() -> None:
    """Run the module."""
    module = module_of(
        {
            "src": {"type": "path"},
            "namespaces": {"type": "list", "elements": "dict"},
            "absent": {"type": "list", "elements": "str", "default": []},
            "delete_unlisted": {"type": "bool", "default": False},
            "stop_processes": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("src", "namespaces")],
        required_one_of=[("src", "namespaces", "absent")],
    )
    params = module.params
    if params["delete_unlisted"] and params["src"] is None and params["namespaces"] is None:
        module.fail_json(msg="delete_unlisted needs src or namespaces: else all would go")
    carry_out(module, lambda _host: _changes(params))


def _changes(params: dict[str, Any]) -> list[Any]:
    """Those that go, then those that are to be there. Raises ConfigError."""
    from pathlib import Path

    from hostler.api.netns.v1 import namespace_pb2 as pb
    from hostler.channel import rpc
    from hostler.config import ConfigError
    from hostler.desired import load_message
    from hostler.plans import RpcChange

    delete = rpc(pb, "NamespaceService", "DeleteNamespace")
    stop = params["stop_processes"]
    changes = [
        RpcChange(delete, pb.DeleteNamespaceRequest(name=name, stop_processes=stop))
        for name in params["absent"]
    ]
    if params["src"] is None and params["namespaces"] is None:
        return changes
    request = pb.ApplyNamespacesRequest(delete_unlisted=params["delete_unlisted"])
    if params["src"] is not None:
        load_message(Path(params["src"]), request)
        if request.HasField("change"):
            raise ConfigError(f"{params['src']}: change: is not for the file to say")
    for number, table in enumerate(params["namespaces"] or ()):
        message_within(f"namespaces[{number}]", table, request.namespaces.add())
    return [*changes, RpcChange(rpc(pb, "NamespaceService", "ApplyNamespaces"), request)]


if __name__ == "__main__":
    main()
