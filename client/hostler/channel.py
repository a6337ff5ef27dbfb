"""Channels to the doors of hosts: mTLS with the context's certificate, or the local sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory

from hostler.config import ConfigError, Context
from hostler.fleet import Host

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_DETAILS_BYTES = 256 * 1024
# Tells the daemon how much room an error's details have; without it they fit into 8 KiB.
METADATA = (("hostler-details-bytes", str(_DETAILS_BYTES)),)
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Channels of one process would share connections, and outlive their close, without it.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy from the environment must never see, or stop, the way to a host.
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # Session retries, with one request id over all attempts.
    ("grpc.min_reconnect_backoff_ms", 5_000),  # How long an attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The daemons take a ping every 20 s; a server that was not told so counts them as an attack.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Rich errors travel in a header.
    ("grpc.max_metadata_size", _DETAILS_BYTES + 16 * 1024),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
)


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method of a service, and the domain whose door it is called at."""

    domain: str
    path: str
    request_type: Any
    response_type: Any

    def at(self, domain: str) -> Rpc:
        """The same method at another domain's door, for services that every daemon has."""
        return replace(self, domain=domain)


def rpc(module: Any, service: str, method: str) -> Rpc:
    """Find a method in a generated module, such as `rpc(namespace_pb2, "NamespaceService", …)`.

    The domain is the one in the package's name; for `common` say it with `Rpc.at`.
    """
    found = module.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    return Rpc(
        domain=module.DESCRIPTOR.package.split(".")[2],
        path=f"/{found.containing_service.full_name}/{found.name}",
        request_type=message_factory.GetMessageClass(found.input_type),
        response_type=message_factory.GetMessageClass(found.output_type),
    )


class Connector:
    """Opens channels with the certificates of one context; without a context only local ones.

    The files are read again once they have changed: a process lives on when its certificate is
    renewed, or the CA is another. What cannot be read then leaves the last good ones. Raises
    ConfigError if one cannot be read at first.
    """

    def __init__(self, context: Context | None) -> None:
        self._context = context
        self._stamp = _stamp(context)
        self._credentials = None if context is None else _credentials(context)

    def follow(self) -> _Stamp:
        """Read the files again if they have changed; what is answered changes with them."""
        stamp = _stamp(self._context)
        if self._context is None or stamp == self._stamp or None in stamp:
            return self._stamp
        try:
            credentials = _credentials(self._context)
        except ConfigError:
            return self._stamp
        # Key and certificate are replaced one after the other: only a pair that stays is one.
        if _stamp(self._context) == stamp:
            self._credentials, self._stamp = credentials, stamp
        return self._stamp

    def open(self, host: Host, domain: str) -> grpc.aio.Channel:
        """Open a channel to a domain's door. Must be called in the loop that will use it."""
        target = host.target(domain)
        self.follow()
        if host.is_local:
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        if self._credentials is None:
            raise ConfigError(f"host {host.name!r} needs a context with certificates")
        options = (*_OPTIONS, ("grpc.ssl_target_name_override", host.name))
        return grpc.aio.secure_channel(target, self._credentials, options=options)


async def accepts(host: Host, domain: str, timeout_s: float) -> bool:
    """Answer whether the socket of a door takes connections, whatever is behind it makes of them.

    systemd listens for a daemon that is still starting: one that takes long is not a dead host.
    """
    try:
        async with asyncio.timeout(timeout_s):
            if host.is_local:
                _, writer = await asyncio.open_unix_connection(host.socket(domain))
            else:
                _, writer = await asyncio.open_connection(host.address, host.port(domain))
    except OSError:  # TimeoutError is one.
        return False
    writer.close()
    return True


_Stamp = tuple[tuple[int, ...] | None, ...]


def _stamp(context: Context | None) -> _Stamp:
    """What changes with the files of a context; None stands for one that is not there."""
    if context is None:
        return ()
    return tuple(_stamp_of(path) for path in (context.ca, context.key, context.certificate))


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _credentials(context: Context) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(context.ca, "ca"),
        private_key=_read(context.key, "key"),
        certificate_chain=_read(context.certificate, "certificate"),
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the context's {what}, {path}: {error.strerror}") from error
