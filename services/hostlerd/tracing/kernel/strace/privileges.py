"""Giving up all privileges for good, before text of others is read."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION = 0x20080522
_MEMORY_BYTES = 4 << 30


def check() -> None:
    """Raise OSError if capabilities cannot be given up here. Gives up nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    had = (ctypes.c_uint32 * 6)()
    if libc.capget(ctypes.byref(head), ctypes.byref(had)) or libc.capset(
        ctypes.byref(head), ctypes.byref(had)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def drop() -> None:
    """Become nobody, without capabilities and a way to new ones. Raises OSError.

    Source: capabilities(7), capset(2), prctl(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    for what, failed in (
        ("capset", libc.capset(ctypes.byref(head), ctypes.byref(none))),
        ("no_new_privs", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
        # A change of identity has cleared it.
        ("pdeathsig", libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)),
    ):
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
