"""What a newer caller sends and this version does not know: no change of the API drops it."""

import importlib
from pathlib import Path

import pytest
from google.protobuf.message_factory import GetMessageClass

from hostler.api.common.v1 import bundle_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostlerd.runtime.access import table
from hostlerd.runtime.errors import Code
from hostlerd.runtime.unknown import NotKnownHere, refuse_unknown

PROTOS = Path(__file__).parents[2] / "protos"
NEW = b"\xf8\xe1\x09\x01"  # A varint in field 19999, which nobody has.
STRANGE = 19_999


def services():
    for path in sorted(PROTOS.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        yield from importlib.import_module(name).DESCRIPTOR.services_by_name.values()


def requests():
    """Every method of the API with the class of its request, and whether it changes anything."""
    methods = table(services())
    for service in services():
        for method in service.methods:
            known = methods[f"/{service.full_name}/{method.name}"]
            yield pytest.param(GetMessageClass(method.input_type), known.changes, id=known.name)


def inner(message, field):
    """One message in a message's field, made if need be."""
    value = getattr(message, field.name)
    if field.message_type.GetOptions().map_entry:
        return value["key"]
    if field.is_repeated:
        return value.add()
    value.SetInParent()
    return value


def is_map_of_scalars(field):
    entry = field.message_type
    return entry.GetOptions().map_entry and entry.fields_by_name["value"].message_type is None


def places(descriptor, seen=()):
    """The ways to every message that can be in one, as fields; a kind that holds itself ends it."""
    yield ()
    for field in descriptor.fields:
        kind = field.message_type
        if kind is None or is_map_of_scalars(field):
            continue
        if kind.GetOptions().map_entry:
            kind = kind.fields_by_name["value"].message_type
        if kind.full_name not in seen:
            for rest in places(kind, (*seen, kind.full_name)):
                yield (field, *rest)


def at(message, way):
    for field in way:
        message = inner(message, field)
    return message


@pytest.mark.parametrize(("kind", "changes"), list(requests()))
def test_a_field_that_came_later_is_refused_wherever_it_is(kind, changes):
    for way in places(kind.DESCRIPTOR):
        request = kind()
        refuse_unknown(request, changes=changes)
        of = at(request, way)
        of.MergeFromString(NEW)
        if not changes:
            refuse_unknown(request, changes=changes)
            continue
        with pytest.raises(NotKnownHere) as caught:
            refuse_unknown(request, changes=changes)
        (fault,) = caught.value.violations
        assert fault.field.endswith(str(STRANGE))
        assert fault.field.count(".") == len(way)
        assert of.DESCRIPTOR.full_name in fault.description


@pytest.mark.parametrize(("kind", "changes"), list(requests()))
def test_a_value_that_came_later_is_refused_wherever_it_is(kind, changes):
    for way in places(kind.DESCRIPTOR):
        for field in at(kind(), way).DESCRIPTOR.fields:
            if field.enum_type is None or "google.protobuf" in field.full_name:
                continue
            request = kind()
            of = at(request, way)
            if field.is_repeated:
                getattr(of, field.name).append(STRANGE)
            else:
                setattr(of, field.name, STRANGE)
            with pytest.raises(NotKnownHere) as caught:
                refuse_unknown(request, changes=changes)
            (fault,) = caught.value.violations
            assert f".{field.name}" in f".{fault.field}"
            assert field.enum_type.full_name in fault.description


def test_what_is_refused_is_said_with_place_and_version():
    request = namespace_pb2.CreateNamespaceRequest()
    request.namespace.interfaces.add()
    request.namespace.interfaces.add().macvlan.MergeFromString(NEW)
    request.change.MergeFromString(NEW)
    with pytest.raises(NotKnownHere) as caught:
        refuse_unknown(request, changes=True)
    error = caught.value
    assert error.code is Code.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [
        "namespace.interfaces[1].macvlan.19999",
        "change.19999",
    ]
    assert error.metadata["daemon_version"] in error.message
    assert "upgrade the host's packages" in error.message


def test_in_maps_the_key_names_the_place():
    bundle = bundle_pb2.Bundle()
    bundle.members["user/alice"].MergeFromString(NEW)
    with pytest.raises(NotKnownHere) as caught:
        refuse_unknown(bundle, changes=True)
    assert [v.field for v in caught.value.violations] == ["members[user/alice].19999"]


def test_of_many_faults_some_are_told():
    request = ruleset_pb2.ApplyRulesetRequest()
    for _ in range(5000):
        request.ruleset.rules.add().MergeFromString(NEW)
    with pytest.raises(NotKnownHere) as caught:
        refuse_unknown(request, changes=True)
    assert len(caught.value.violations) == 20
    assert len(caught.value.message) < 2000
