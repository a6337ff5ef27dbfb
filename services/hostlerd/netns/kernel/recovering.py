"""Carries out steps of a change that was cut off: what is so already, or has gone, is no error.

A namespace without a handle goes with the process that made it, and with it the other ends of its
links, some time later.
"""

from __future__ import annotations

import errno
import time
from contextlib import suppress

from hostlerd.netns.errors import NamespaceNotFound, ProcessDiffers
from hostlerd.netns.kernel import handles, messages
from hostlerd.netns.kernel.session import GONE, Session, unless
from hostlerd.netns.model import link_steps
from hostlerd.netns.model import steps as s
from hostlerd.netns.model.process_steps import EvictTasks, StartProcess
from hostlerd.runtime.steps import Step

_PATIENCE_S = 5.0
_POLL_S = 0.02
# What adjusts a thing has nothing to do where the thing has gone.
_ADJUSTING = (
    link_steps.JoinBridge,
    link_steps.SetLinkUp,
    link_steps.SetMtu,
    link_steps.SetSysctl,
)


class Recovering(Session):
    """A session that takes a step for done if that is how things are."""

    def apply(self, step: Step) -> None:
        """Carry out one step. Raises OSError or DomainError."""
        if isinstance(step, _ADJUSTING):
            unless(GONE, lambda: Session.apply(self, step))
            return
        if isinstance(step, (link_steps.AddAddress, link_steps.AddRoute)):
            with suppress(_NamespaceGone):
                super().apply(step)
            return
        try:
            super().apply(step)
        except ProcessDiffers:
            # It was started before the cut.
            if not isinstance(step, StartProcess):
                raise
        except NamespaceNotFound:
            if not isinstance(step, EvictTasks):
                raise

    def _fd(self, where: str) -> int:
        if where not in self._fds and not _is_there(where):
            raise _NamespaceGone(errno.ENOENT, "the namespace has gone", where)
        return super()._fd(where)

    def _create_netns(self, step: s.CreateNetns) -> None:
        if not _is_there(step.name):
            super()._create_netns(step)

    def _publish(self, step: s.PublishNetns) -> None:
        missing = tuple(name for name in step.names if not _is_there(name))
        if missing:
            super()._publish(s.PublishNetns(missing))

    def _withdraw(self, step: s.WithdrawNetns) -> None:
        for name in step.names:
            if _is_there(name):
                super()._withdraw(s.WithdrawNetns((name,)))
            elif handles.exists(name):
                self._handles.detach(name)

    def _create_veth(self, step: link_steps.CreateVeth) -> None:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return super()._create_veth(step)
            except OSError as e:
                if e.errno != errno.EEXIST or time.monotonic() > end:
                    raise
            if self._is_inside(step.where, step.ifname):
                # It may have been about to be removed with others: see link_group.
                group = messages.number_attribute(messages.IFLA_GROUP, 0)
                index = self._index("", step.host_ifname)
                return self._change_link("", messages.link_change(index, group))
            # An end whose namespace is about to go.
            self._remove_link(link_steps.RemoveLink("", step.host_ifname))
            time.sleep(_POLL_S)

    def _create_macvlan(self, step: link_steps.CreateMacvlan) -> None:
        unless({errno.EEXIST}, lambda: Session._create_macvlan(self, step))

    def _is_inside(self, where: str, ifname: str) -> bool:
        self._forget_index(where, ifname)
        try:
            return bool(self._index(where, ifname))
        except OSError as e:
            if e.errno not in GONE:
                raise
            return False


class _NamespaceGone(FileNotFoundError):
    """There is no namespace of that name any more."""


def _is_there(name: str) -> bool:
    """Whether a namespace is mounted at a handle."""
    try:
        return bool(handles.inode(name))
    except FileNotFoundError:
        return False
