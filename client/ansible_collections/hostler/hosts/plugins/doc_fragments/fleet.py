"""What is said of the parameters that all modules of this collection have."""

from __future__ import annotations


class ModuleDocFragment:
    """The parameters that name a host of the fleet and how to reach it."""

    DOCUMENTATION = r"""
options:
  host:
    description: The host, by its name in the fleet file.
    type: str
    required: true
  config:
    description: The client's configuration. Without it C(HOSTLER_CONFIG), or the user's.
    type: path
  context:
    description: Which context of the configuration; without it the current one.
    type: str
  timeout:
    description: How long one call may take, in seconds.
    type: float
    default: 30.0
  confirm_within:
    description:
      - The host takes the change back after so many seconds, unless it can still be reached then.
      - This module confirms it, over new connections to every door.
    type: float
requirements:
  - The hostler package, for the Python that runs the module.
attributes:
  check_mode:
    support: full
    description: The host is asked for its plan, which changes nothing.
  diff_mode:
    support: partial
    description: The steps of the plan are shown.
notes:
  - Runs on the machine that has the client; use C(connection=local).
"""
