"""The codec: every step of every domain there and back, and nothing that is not a step."""

import json
import typing
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from types import NoneType, UnionType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.firewall import kernel as firewall
from hostlerd.firewall.model import address_set, connection
from hostlerd.firewall.model import steps as firewall_steps
from hostlerd.netns import kernel as netns
from hostlerd.netns.kernel.handles import DirectHandles
from hostlerd.netns.kernel.launcher_client import Launcher
from hostlerd.netns.kernel.process import Processes
from hostlerd.netns.model import link_steps, process_steps
from hostlerd.netns.model import steps as netns_steps
from hostlerd.runtime import pushing
from hostlerd.runtime.codec import CodecInvalid, Registry
from hostlerd.runtime.steps import Step
from hostlerd.ssl.kernel import signer
from hostlerd.ssl.kernel.deployments import Deployments, Settings
from hostlerd.ssl.kernel.installer_client import Installer
from hostlerd.ssl.model import authority, chain, deployment_steps
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model import (
    array_steps,
    backup_steps,
    btrfs_steps,
    copy_steps,
    disk_steps,
    filesystem_steps,
    iscsi_steps,
    luks_steps,
    lvm_steps,
    lvm_volume_steps,
    mount_steps,
    table_steps,
)
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.model import stored
from hostlerd.tracing.model.stored import Bounds
from hostlerd.tracing.plan.stored import making_room

NOWHERE = Path("/nonexistent")
STEPS = Processes(NOWHERE, NOWHERE, Launcher()).steps()
KERNELS = {
    "netns": netns.Kernel(NOWHERE, NOWHERE, handles=DirectHandles(), others=STEPS),
    "firewall": firewall.Kernel({}, NOWHERE, NOWHERE),
    "tracing": Store(NOWHERE, Bounds(), making_room),
    "ssl": Deployments(NOWHERE, Installer(), Settings()),
    "storage": Changing(Worker()),
    "bundle": pushing.BundleKernel.__new__(pushing.BundleKernel),
    "authority": signer.AuthorityKernel(signer.Signer(NOWHERE)),
}
MODULES = {
    "netns": (netns_steps, link_steps, process_steps),
    "firewall": (firewall_steps, address_set, connection),
    "tracing": (stored,),
    "ssl": (deployment_steps, chain),
    "storage": (
        *(filesystem_steps, array_steps, backup_steps, table_steps, btrfs_steps),
        *(
            mount_steps,
            copy_steps,
            disk_steps,
            lvm_steps,
            lvm_volume_steps,
            luks_steps,
            iscsi_steps,
        ),
    ),
    "bundle": (pushing,),
    "authority": (authority,),
}
REGISTRIES = {name: Registry(kernel.kinds) for name, kernel in KERNELS.items()}


def steps_in(module):
    """Every class of a module that looks like a step, whether somebody has listed it or not."""
    own = (x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__)
    return {x for x in own if is_dataclass(x) and hasattr(x, "inverse")}


@pytest.mark.parametrize("domain", KERNELS)
def test_every_step_of_a_domain_is_listed(domain):
    assert set(KERNELS[domain].kinds) == set().union(*map(steps_in, MODULES[domain]))
    assert set(KERNELS[domain].one_way) <= set(KERNELS[domain].kinds)
    assert set(KERNELS[domain].unrepeatable) <= set(KERNELS[domain].kinds)


LEAVES = {
    str: st.text(max_size=20),
    int: st.integers(-(2**40), 2**60),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=40),
    NoneType: st.none(),
    IPv4Address: st.ip_addresses(v=4),
    IPv6Address: st.ip_addresses(v=6),
    IPv4Interface: st.builds(
        lambda a, n: IPv4Interface((a, n)), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    IPv6Interface: st.builds(
        lambda a, n: IPv6Interface((a, n)), st.ip_addresses(v=6), st.integers(0, 128)
    ),
    IPv4Network: st.builds(
        lambda a, n: IPv4Network((a, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    IPv6Network: st.builds(
        lambda a, n: IPv6Network((a, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)
    ),
}


def values(kind, some_step):
    """Answer a strategy for whatever a field of that type may hold."""
    if kind in LEAVES:
        return LEAVES[kind]
    if kind is Step:
        return some_step
    args = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return st.one_of([values(a, some_step) for a in args])
    if typing.get_origin(kind) is tuple:
        if args[1:] == (Ellipsis,):
            return st.lists(values(args[0], some_step), max_size=3).map(tuple)
        return st.tuples(*(values(a, some_step) for a in args))
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: values(hints[f.name], some_step) for f in fields(kind)})


def steps_of(domain):
    kinds = sorted(KERNELS[domain].kinds, key=lambda k: k.__name__)
    flat = [k for k in kinds if k.__name__ not in {"Remake"}]
    simple = st.sampled_from([link_steps.SetLinkUp("a", "b"), netns_steps.CreateNetns("c")])
    return st.one_of([values(k, simple) for k in kinds or flat])


@pytest.mark.parametrize("domain", KERNELS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_there_and_back(domain, data):
    step = data.draw(steps_of(domain))
    written = json.loads(json.dumps(REGISTRIES[domain].encode(step)))
    back = REGISTRIES[domain].decode(written)
    assert back == step and type(back) is type(step)
    assert back.inverse() == step.inverse()


@dataclass(frozen=True, slots=True)
class Stranger:
    name: str

    def describe(self):
        return self.name

    def inverse(self):
        return None


def test_a_step_of_another_domain_is_refused():
    with pytest.raises(CodecInvalid):
        REGISTRIES["netns"].encode(Stranger("x"))
    with pytest.raises(CodecInvalid):
        REGISTRIES["firewall"].decode({"step": "CreateNetns", "name": "a"})


GOOD = {"step": "AddAddress", "where": "a", "ifname": "eth0", "address": "10.0.0.1/24"}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "AddAddress",
        {},
        {"step": ["AddAddress"]},
        {**GOOD, "step": "RunAnything"},
        {**GOOD, "more": 1},
        {k: v for k, v in GOOD.items() if k != "ifname"},
        {**GOOD, "ifname": None},
        {**GOOD, "ifname": 5},
        {**GOOD, "address": "10.0.0.1/99"},
        {**GOOD, "address": 10},
        {"step": "SetMtu", "where": "a", "ifname": "b", "mtu_bytes": True, "before_bytes": 1},
        {"step": "PublishNetns", "names": "abc"},
        {"step": "PublishNetns", "names": [1]},
        {"step": "Remake", "what": "a", "steps": [{"step": "RunAnything"}]},
        {"step": "CreateMacvlan", **dict.fromkeys(("where", "ifname", "parent"), "a")},
    ],
)
def test_what_is_no_step_is_refused(bad):
    REGISTRIES["netns"].decode(GOOD)
    with pytest.raises(CodecInvalid):
        REGISTRIES["netns"].decode(bad)


def test_a_link_of_unknown_kind_is_refused():
    link = {"is": "Vlan", "parent": "eth0"}
    interface = {"name": "a", "link": link}
    spec = {"name": "a", "interfaces": [interface]}
    with pytest.raises(CodecInvalid, match="Veth, Macvlan"):
        REGISTRIES["netns"].decode({"step": "SaveSpec", "spec": spec})


def test_base64_and_members_are_checked():
    with pytest.raises(CodecInvalid):
        REGISTRIES["bundle"].decode(
            {"step": "PushBundle", "signed": "?", "version": 1, "previous_version": 0}
        )
    made = {"where": "a", "ifname": "b", "parent": "c", "mtu_bytes": 1500}
    with pytest.raises(CodecInvalid, match="MacvlanMode"):
        REGISTRIES["netns"].decode({"step": "CreateMacvlan", **made, "mode": "SOURCE"})


@dataclass(frozen=True, slots=True)
class Unwritable:
    anything: object

    def describe(self):
        return ""

    def inverse(self):
        return None


def test_a_step_whose_fields_have_no_form_is_noticed_at_once():
    with pytest.raises(TypeError):
        Registry([Unwritable])
