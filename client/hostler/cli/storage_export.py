"""`hostler storage export` and `hostler storage attachment`: devices of one host at another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import export_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

EXPORTS, ATTACHMENTS = "ExportService", "AttachmentService"


@click.group()
def export() -> None:
    """Let other hosts have devices of a host, by iSCSI: those that are named, with CHAP.

    Nothing on the host itself uses a device as long as it is exported.
    """


@export.command(name="list", epilog=examples("hostler -H all storage export list"))
@pass_state
def list_exports(state: State) -> None:
    """List what is exported, and who has it now."""
    state.tell(rpc(pb, EXPORTS, "ListExports"), pb.ListExportsRequest(), _EXPORTS)


def _exports(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.exports:
        yield (
            one.export.name,
            one.export.device,
            one.export.portal,
            one.target,
            ", ".join(one.export.initiators),
            "up" if one.up else f"not up: {one.message}",
            ", ".join(one.sessions) or "-",
        )


_EXPORTS = Table(
    ("EXPORT", "DEVICE", "PORTAL", "TARGET", "FOR", "STATE", "IN USE BY"),
    _exports,
)


@export.command(
    name="apply",
    epilog=examples(
        "hostler -H h2 --plan storage export apply leg WD-WX11A1234567 --portal 10.0.0.12:3260 "
        "--initiator iqn.2026-01.example.hostler:h1",
        "hostler -H h2 storage export apply leg WD-WX11A1234567 --portal 10.0.0.12:3260 "
        "--initiator iqn.2026-01.example.hostler:h1 --chap-secret-file /etc/hostler/leg.secret",
    ),
)
@click.argument("name")
@click.argument("device")
@click.option("--portal", required=True, help="One address and a port of the host.")
@click.option("--initiator", "initiators", multiple=True, required=True, help="Who may have it.")
@click.option("--chap-user", default="", help="Who they are. Default: the export's name.")
@click.option("--chap-secret-file", default="", help="On the host, root's alone.")
@click.option("--new-secret", is_flag=True, help="Make a new secret; the old one is good no more.")
@click.option("--force", is_flag=True, help="Even though it is in use: sessions end.")
@pass_state
def apply_export(state: State, /, name: str, device: str, **options: Any) -> None:
    """Export DEVICE as NAME, now and after each boot; or change how.

    Without a file the host makes a secret, and this prints it once.
    """
    wanted = pb.Export(
        name=name,
        device=device,
        portal=options["portal"],
        initiators=options["initiators"],
        chap_user=options["chap_user"],
        chap_secret_file=options["chap_secret_file"],
    )
    request = pb.ApplyExportRequest(
        export=wanted, new_secret=options["new_secret"], force=options["force"]
    )
    state.change(RpcChange(rpc(pb, EXPORTS, "ApplyExport"), request), _told)


def _told(answer: Any) -> str:
    words = f"{answer.target} as {answer.wwn}"
    return f"{words}, with the secret {answer.chap_secret}" if answer.chap_secret else words


@export.command(name="delete", epilog=examples("hostler -H h2 storage export delete leg"))
@click.argument("name")
@click.option("--force", is_flag=True, help="Even though it is in use: who has it loses it.")
@pass_state
def delete_export(state: State, name: str, force: bool) -> None:
    """Export NAME no more. What is on the device stays as it is."""
    request = pb.DeleteExportRequest(name=name, force=force)
    state.change(RpcChange(rpc(pb, EXPORTS, "DeleteExport"), request))


@click.group()
def attachment() -> None:
    """Have devices of other hosts here, by iSCSI: now, and after each boot."""


@attachment.command(name="list", epilog=examples("hostler -H all storage attachment list"))
@pass_state
def list_attachments(state: State) -> None:
    """List what is attached, and as which device."""
    method = rpc(pb, ATTACHMENTS, "ListAttachments")
    state.tell(method, pb.ListAttachmentsRequest(), _ATTACHMENTS)


def _attachments(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.attachments:
        yield (
            one.attachment.name,
            one.attachment.target,
            one.attachment.portal,
            one.session or "no session",
            one.device or "-",
            size(one.size_bytes) if one.device else "-",
            "running" if one.running else "not running",
        )


_ATTACHMENTS = Table(
    ("ATTACHMENT", "TARGET", "PORTAL", "SESSION", "DEVICE", "SIZE", "STATE"), _attachments
)


@attachment.command(
    name="apply",
    epilog=examples(
        "hostler -H h1 storage attachment apply leg iqn.2026-01.example.hostler:h2:leg "
        "--portal 10.0.0.12:3260 --chap-user leg --chap-secret-file /etc/hostler/leg.secret",
        "hostler -H h1 storage attachment apply leg iqn.2026-01.example.hostler:h2:leg "
        "--portal 10.0.0.12:3260 --chap-user leg --ask-secret",
    ),
)
@click.argument("name")
@click.argument("target")
@click.option("--portal", required=True, help="Where it is to be had: address and port.")
@click.option("--chap-user", required=True, help="Who this host is there.")
@click.option("--chap-secret-file", default="", help="On the host, root's alone.")
@click.option("--ask-secret", is_flag=True, help="Ask for the secret, or read it from stdin.")
@click.option("--initiator", default="", help="What the host calls itself. Default: by its name.")
@click.option("--timeout", default=0, help="Seconds until reads and writes fail. Default: 10.")
@pass_state
def apply_attachment(state: State, /, name: str, target: str, **options: Any) -> None:
    """Attach TARGET as NAME; log in again if its session has ended."""
    wanted = pb.Attachment(
        name=name,
        target=target,
        portal=options["portal"],
        initiator=options["initiator"],
        chap_user=options["chap_user"],
        chap_secret_file=options["chap_secret_file"],
        replacement_timeout_seconds=options["timeout"],
    )
    secret = ""
    if options["ask_secret"]:
        # Never as an argument: arguments show to everybody on this machine.
        secret = click.prompt("Secret", hide_input=True, err=True)
    request = pb.ApplyAttachmentRequest(attachment=wanted, chap_secret=secret)
    method = rpc(pb, ATTACHMENTS, "ApplyAttachment")
    state.change(RpcChange(method, request), lambda answer: answer.device)


@attachment.command(name="delete", epilog=examples("hostler -H h1 storage attachment delete leg"))
@click.argument("name")
@pass_state
def delete_attachment(state: State, name: str) -> None:
    """Log out of NAME, if nobody uses it here."""
    request = pb.DeleteAttachmentRequest(name=name)
    state.change(RpcChange(rpc(pb, ATTACHMENTS, "DeleteAttachment"), request))
