"""Access annotations: every method of every proto has one that fits."""

import importlib
from itertools import count
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from hostler.api.common.v1 import access_pb2, change_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostlerd.runtime.access import AnnotationInvalid, resources, table

COUNT = count()
PROTOS = Path(__file__).parents[2] / "protos"


def all_services():
    for path in sorted(PROTOS.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        yield from importlib.import_module(name).DESCRIPTOR.services_by_name.values()


def test_every_method_of_the_api_is_annotated():
    methods = table(all_services())
    assert len(methods) >= 37
    assert {m.access_class for m in methods.values()} <= {
        "READ",
        "CHANGE",
        "DESTROY",
        "ROOT_EQUIVALENT",
    }


# Kept by hand on purpose: derived from the annotations, it would check nothing.
ROOT_EQUIVALENT = {
    *("RunProcess", "StartProcess"),
    *("StartPayloadTrace", "StreamPayloadTrace", "QueryPayloadCapture"),
    "IssueIdentity",
    *("ApplyBackup", "RestoreBackup"),
    *("ReadFiles", "WriteFiles"),
    "ApplyMount",
    *("ApplyMount", "ApplyExport"),
}
CHANGE = {
    *("CreateNamespace", "DeleteNamespace", "ApplyNamespaces"),
    *("StopProcess", "SignalProcess"),
    *("ApplyRuleset", "ApplyRulesets", "DeleteRuleset", "PushBundle"),
    *("AddElements", "RemoveElements", "ReplaceElements"),
    *("StartShadow", "StopShadow", "FlushConnections"),
    *("ConfirmPending", "RevertPending", "CancelJob"),
    *("ApproveChange", "WithdrawApproval"),
    "DeleteCapture",
    *("InitAuthority", "CompleteAuthority", "IssueCertificate", "RevokeCertificate"),
    *("ApplyDeployment", "DeleteDeployment", "CreateSigningRequest", "InstallCertificate"),
    *("InstallCertificates", "RenewDeployment", "RevokeDeployedCertificate", "WriteChain"),
    *("SetLabel", "GrowFilesystem"),
    *("DeleteBackup", "RunBackup", "DrillBackup"),
    *("CopyFiles", "VerifyFiles", "BurnIn"),
    *("DeleteMount", "ApplySwap", "DeleteSwap"),
    *("FailMember", "RemoveMember", "LocateDisk", "CheckArray", "RepairArray", "SetSyncSpeed"),
    *("DeleteExport", "ApplyAttachment", "DeleteAttachment"),
    *("StopArray", "AssembleArray"),
    *("ScrubBtrfs", "ResetErrorCounters", "RemoveDevice", "BalanceBtrfs"),
    *("CreateSubvolume", "CreateSnapshot"),
    *("OpenLuks", "CloseLuks", "BackupLuksHeader"),
    *("ReduceVolumeGroup", "MovePhysicalVolume", "CreateVolume", "GrowVolume", "RenameVolume"),
    *("ActivateVolume", "DeactivateVolume", "CreateVolumeSnapshot", "CloneVolume"),
}
DESTROY = {
    *("MakeFilesystem", "WipeSignatures", "RestoreSaved"),
    *("CreateArray", "AddMember", "ReplaceMember", "GrowArray", "DeleteArray"),
    *("ApplyTable", "RestoreTable", "CopyTable", "ReplaceDisk", "BurnInDisk"),
    *("AddDevice", "ReplaceDevice", "DeleteSubvolume"),
    *("CreateVolumeGroup", "ExtendVolumeGroup", "DeleteVolumeGroup", "RestoreGroup"),
    *("MergeVolumeSnapshot", "DeleteVolume", "ReplaceVolumeDevice"),
    "ForgetSnapshots",
}


def test_what_changes_says_so():
    classes = {m.name.split("/")[2]: m.access_class for m in table(all_services()).values()}
    assert {n for n, c in classes.items() if c == "ROOT_EQUIVALENT"} == ROOT_EQUIVALENT
    assert {n for n, c in classes.items() if c == "CHANGE"} == CHANGE
    assert {n for n, c in classes.items() if c == "DESTROY"} == DESTROY


def service_of(access=None, request_change=True, fields=()):
    """Make a service with one method, annotated as said, under a name that is used once."""
    package = f"t{next(COUNT)}"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    for module in (access_pb2, change_pb2):
        file.dependency.append(module.DESCRIPTOR.name)
    request = file.message_type.add(name="Q")
    request.field.add(name="name", number=1, type=9, label=1)
    if request_change:
        options = ".hostler.api.common.v1.ChangeOptions"
        request.field.add(name="change", number=2, type=11, label=1, type_name=options)
    change = ".hostler.api.common.v1.Change"
    answer = file.message_type.add(name="A")
    answer.field.add(name="change", number=2, type=11, label=1, type_name=change)
    method = file.service.add(name="S").method.add(
        name="Do", input_type=f".{package}.Q", output_type=f".{package}.A"
    )
    if access is not None:
        note = method.options.Extensions[access_pb2.access]
        setattr(note, "class", access)
        note.resource_fields.extend(fields)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName(f"{package}.S")


def test_a_method_without_annotation_is_refused():
    with pytest.raises(AnnotationInvalid, match="no access annotation"):
        table([service_of()])


def test_an_unspecified_class_is_refused():
    with pytest.raises(AnnotationInvalid, match="no access annotation"):
        table([service_of(access=0)])


def test_a_resource_field_that_is_not_there_is_refused():
    with pytest.raises(AnnotationInvalid, match="no field nam to name"):
        table([service_of(access=1, fields=["nam"])])


def test_a_change_must_take_options():
    service = service_of(access=2, request_change=False)
    with pytest.raises(AnnotationInvalid, match="no field change of ChangeOptions"):
        table([service])


def test_resources_are_named_by_their_fields():
    many = namespace_pb2.ApplyNamespacesRequest(
        namespaces=[namespace_pb2.Namespace(name=n) for n in ("b", "a", "b")]
    )
    assert resources(many, ["namespaces.name"]) == ("b", "a")
    stop = process_pb2.StopProcessRequest(namespace="web", name="main")
    assert resources(stop, ["namespace", "name"]) == ("web/main",)
    assert resources(stop, []) == ()
    both = ruleset_pb2.ApplyRulesetsRequest(
        rulesets=[ruleset_pb2.Ruleset(name=n) for n in ("web", "base")], delete_names=["db", "web"]
    )
    fields = ["rulesets.name", "delete_names"]
    assert resources(both, fields) == ("web", "base", "db")
    assert resources(ruleset_pb2.ApplyRulesetsRequest(), fields) == ()
