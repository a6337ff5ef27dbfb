#!/usr/bin/python
"""Ansible module: rulesets of a host's firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostler_firewall
short_description: Have rulesets in a host's firewall
description:
  - Makes a host have rulesets, all of them in one transaction; counters and dynamic sets are kept.
  - A change that may touch the path between this machine and the host goes out under confirm.
extends_documentation_fragment: [hostler.hosts.fleet]
options:
  src:
    description: Files of one ruleset each, as TOML, or folders of them. Their C(hosts) are obeyed.
    type: list
    elements: path
  rulesets:
    description: Rulesets in the names of the API, as the TOML files have them.
    type: list
    elements: dict
  absent:
    description: Names of rulesets that the host is not to have.
    type: list
    elements: str
    default: []
  prune:
    description: The host has no other rulesets, whoever made them. Needs C(src) or C(rulesets).
    type: bool
    default: false
  cut_established:
    description: Cut connections that new drop and reject rules match.
    type: bool
    default: false
  no_confirm:
    description: Keep the change even if it may cut this machine off.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Base and role of a web server
  hostler.hosts.hostler_firewall:
    host: "{{ inventory_hostname }}"
    src: [rulesets/base.toml, rulesets/web.toml]
    prune: true

- name: A port for a while
  hostler.hosts.hostler_firewall:
    host: db1
    rulesets:
      - name: debug
        rules:
          - {id: pg, hook: input, action: accept, protocol: tcp, destination_ports: [5432]}
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
    module_of,
    within,
)

CONFIRM_S = 60.0


def main() -> None:
    """Run the module."""
    module = module_of(
        {
            "src": {"type": "list", "elements": "path"},
            "rulesets": {"type": "list", "elements": "dict"},
            "absent": {"type": "list", "elements": "str", "default": []},
            "prune": {"type": "bool", "default": False},
            "cut_established": {"type": "bool", "default": False},
            "no_confirm": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("src", "rulesets")],
        required_one_of=[("src", "rulesets", "absent")],
    )
    params = module.params
    if params["no_confirm"] and params["confirm_within"] is not None:
        module.fail_json(msg="confirm_within needs what no_confirm leaves out")
    if params["prune"] and not (params["src"] or params["rulesets"]):
        module.fail_json(msg="prune needs src or rulesets: without them nothing would be left")

    from hostler.firewall_apply import touching

    def confirm_s(plan: Any) -> float | None:
        return CONFIRM_S if touching([plan]) and not params["no_confirm"] else None

    carry_out(module, lambda host: [_change(params, host)], confirm_s)


def _change(params: dict[str, Any], host: Any) -> Any:
    """The change of a host. Raises ConfigError that lists every mistake."""
    from pathlib import Path

    from hostler.firewall_apply import ApplyFiles
    from hostler.firewall_files import load_rulesets, ruleset_of

    if params["src"]:
        files = load_rulesets([Path(each) for each in params["src"]])
    else:
        listed = enumerate(params["rulesets"] or ())
        files = tuple(ruleset_of(within(f"rulesets[{n}]", table)) for n, table in listed)
    mine = [each for each in files if each.is_for(host)]
    return ApplyFiles(
        {host.name: mine},
        cut_established=params["cut_established"],
        prune=params["prune"] and bool(mine),
        absent=params["absent"],
    )


if __name__ == "__main__":
    main()
