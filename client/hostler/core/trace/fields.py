"""The fields of the filter language, by name: those of sysdig that our events answer, and ours.

They mean what they mean in sysdig 0.29. What it has and we have not is known, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from hostler.core.trace import (
    fields_args,
    fields_container,
    fields_evt,
    fields_fd,
    fields_proc,
    fields_syslog,
    fields_user,
)
from hostler.core.trace.field import ArgumentInvalid, Family, Field
from hostler.core.trace.nearest import suggestion


class FieldUnknown(ValueError):
    """There is no such field, or not here; the message says what may have been meant or why."""


@cache
def all_fields() -> Mapping[str, Field]:
    """All fields that take no argument, by name, class by class."""
    each = (
        *(fields_evt.FIELDS, fields_args.FIELDS, fields_proc.FIELDS, fields_fd.FIELDS),
        *(fields_user.FIELDS, fields_syslog.FIELDS, fields_container.FIELDS),
    )
    return {field.name: field for fields in each for field in fields}


@cache
def all_families() -> Mapping[str, Family]:
    """All fields that take an argument, by name."""
    each = (fields_evt.FAMILIES, fields_args.FAMILIES, fields_proc.FAMILIES)
    return {family.name: family for families in each for family in families}


def find(name: str) -> Field:
    """The field of a name, such as fd.name, evt.arg.flags or proc.apid[2]. Raises FieldUnknown."""
    field = all_fields().get(name)
    if field is not None:
        return field
    family, argument = _split(name)
    if family is not None:
        try:
            return family.make(argument)
        except ArgumentInvalid as e:
            raise FieldUnknown(f"{name[:80]}: {e}") from None
    if (reason := why_not_served(name)) is not None:
        raise FieldUnknown(f"{name} is known to sysdig and not served: {reason}")
    if name in all_families():
        raise FieldUnknown(f"{name} takes an argument: {name}{all_families()[name].argument}")
    raise FieldUnknown(f"there is no field {name[:80]!r}{suggestion(name, _suggestible())}")


def _split(name: str) -> tuple[Family | None, str]:
    bracket = re.fullmatch(r"([a-z0-9_.]+)\[([^\[\]]*)\]", name)
    if bracket is not None:
        family = all_families().get(bracket[1])
        return (family, bracket[2]) if family and "[" in family.argument else (None, "")
    for family in all_families().values():
        if "." in family.argument and name.startswith(f"{family.name}."):
            return family, name.removeprefix(f"{family.name}.")
    return None, ""


@cache
def _suggestible() -> frozenset[str]:
    return frozenset(all_fields()) | frozenset(all_families())


_NO_PLUGINS = "there are no plugins"
_ONE_EVENT = "a call is one event here, so that there is no event before it to measure from"
_NO_RESOLVER = "names are not asked for while tracing; say the address"
_NO_SERVICES = "names of ports differ from host to host; say the number"
_NOT_KEPT = "an event keeps what a call told, and no state of its process beside it"
_NOT_COUNTED = "only calls are traced, and not the scheduler"
_NO_IMAGES = "container engines are not asked"
_NO_CLUSTER = "no cluster is asked"
_NO_POLLS = "the list that a poll points to is not read"
_NO_SPANS = "there are no tracers"

_NOT_SERVED: Mapping[str, str] = {
    **dict.fromkeys(("evt.pluginname", "evt.plugininfo"), _NO_PLUGINS),
    **dict.fromkeys(("evt.deltatime", "evt.deltatime.s", "evt.deltatime.ns"), _ONE_EVENT),
    **{f"fd.{side}ip.name": _NO_RESOLVER for side in "cslr"},
    **{f"fd.{side}proto": _NO_SERVICES for side in ("", *"cslr")},
    "fd.name_changed": _NOT_KEPT,
    **{f"proc.{name}": _NOT_KEPT for name in ("nthreads", "nchilds", "vpgid")},
    **{f"proc.{name}": _NOT_KEPT for name in ("fdopencount", "fdlimit", "fdusage")},
    **{f"proc.{name}": _NOT_KEPT for name in ("vmsize", "vmrss", "vmswap", "is_exe_writable")},
    **{f"thread.{name}": _NOT_KEPT for name in ("pfmajor", "pfminor", "vmsize", "vmrss", "vtid")},
    **{f"thread.{name}": _NOT_COUNTED for name in ("exectime", "totexectime")},
    **{f"thread.{name}": _NOT_COUNTED for name in ("cpu", "cpu.user", "cpu.system")},
    **{f"container.{name}": _NO_IMAGES for name in ("image", "type", "privileged", "mounts")},
    **{f"container.{name}": _NO_IMAGES for name in ("mount", "healthcheck")},
    **{f"container.{name}_probe": _NO_IMAGES for name in ("liveness", "readiness")},
    **{f"user.{name}": "it is no part of a trace" for name in ("homedir", "shell")},
}
_CLASSES_NOT_SERVED: Mapping[str, str] = {
    "container.image.": _NO_IMAGES,
    "container.mount.": _NO_IMAGES,
    "container.mount[": _NO_IMAGES,
    "proc.is_container_": _NO_IMAGES,
    "thread.cgroup.": "in the unified hierarchy there is one cgroup: thread.cgroup",
    "fdlist.": _NO_POLLS,
    "k8s.": _NO_CLUSTER,
    "mesos.": _NO_CLUSTER,
    "marathon.": _NO_CLUSTER,
    "span.": _NO_SPANS,
    "evtin.": _NO_SPANS,
}


def why_not_served(name: str) -> str | None:
    """Why a field that sysdig has is not served here; None if sysdig has no such field either."""
    if name in _NOT_SERVED:
        return _NOT_SERVED[name]
    return next((why for start, why in _CLASSES_NOT_SERVED.items() if name.startswith(start)), None)
