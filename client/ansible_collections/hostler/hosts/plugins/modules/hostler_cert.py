#!/usr/bin/python
"""Ansible module: certificates of a host, and the servers that use them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hostler_cert
short_description: Have a certificate in place and served
description:
  - Declares a deployment, which says where certificate and key are and which servers use them.
  - Installs a certificate for a key that is on the host, or has the host renew it by ACME.
  - A server's syntax is checked, it is reloaded, and what it serves then is looked at; if that is
    not the new certificate, everything is as it was before. Private keys never leave the host.
extends_documentation_fragment: [hostler.hosts.fleet]
options:
  name:
    description: The deployment.
    type: str
    required: true
  deployment:
    description: What it is, in the names of the API, without its name.
    type: dict
  src:
    description: A file with the certificate and its issuers, as PEM, which is installed.
    type: path
  renew:
    description: Have the host get a new certificate by ACME, if it is due.
    type: bool
    default: false
  absent:
    description: Forget the deployment. Its files stay, and are served on.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A certificate that renews itself
  hostler.hosts.hostler_cert:
    host: "{{ inventory_hostname }}"
    name: web
    deployment:
      subject_names: [www.example.net]
      key: {path: /etc/ssl/hostler/key.pem}
      full_chain: {path: /etc/ssl/hostler/full.pem}
      servers: [{kind: nginx, listeners: ["127.0.0.1:443"]}]
      acme: {directory_url: "https://ca.example.net/directory"}
    renew: true

- name: One that somebody else has issued
  hostler.hosts.hostler_cert: {host: web1, name: web, src: chain.pem}
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
            "name": {"type": "str", "required": True},
            "deployment": {"type": "dict"},
            "src": {"type": "path"},
            "renew": {"type": "bool", "default": False},
            "absent": {"type": "bool", "default": False},
        },
    )
    params = module.params
    others = [key for key in ("deployment", "src", "renew") if params[key]]
    if params["absent"] and others:
        module.fail_json(msg=f"absent and {others[0]} are mutually exclusive")
    if params["src"] and params["renew"]:
        module.fail_json(msg="src and renew are mutually exclusive")
    if not (params["absent"] or others):
        module.fail_json(msg="one of deployment, src, renew and absent is needed")
    carry_out(module, lambda _host: _changes(params))


def _changes(params: dict[str, Any]) -> list[Any]:
    """The deployment first, then the certificate. Raises ConfigError."""
    from pathlib import Path

    from hostler.api.ssl.v1 import deployment_pb2 as pb
    from hostler.channel import rpc
    from hostler.plans import RpcChange
    from hostler.ssl_install import read_certificates

    def change(method: str, request: Any) -> Any:
        return RpcChange(rpc(pb, "DeploymentService", method), request)

    name = params["name"]
    if params["absent"]:
        return [change("DeleteDeployment", pb.DeleteDeploymentRequest(name=name))]
    changes = []
    if params["deployment"]:
        wanted = message_within("deployment", params["deployment"], pb.Deployment(name=name))
        changes.append(change("ApplyDeployment", pb.ApplyDeploymentRequest(deployment=wanted)))
    if params["src"]:
        pem = read_certificates(Path(params["src"]))
        request = pb.InstallCertificateRequest(name=name, pem=pem)
        changes.append(change("InstallCertificate", request))
    if params["renew"]:
        changes.append(change("RenewDeployment", pb.RenewDeploymentRequest(name=name)))
    return changes


if __name__ == "__main__":
    main()
