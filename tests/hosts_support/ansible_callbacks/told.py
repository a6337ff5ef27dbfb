"""An Ansible callback that prints what every task has told of every host, as one JSON object."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """The only output of a playbook of one task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "told"

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, Any] = {}

    def v2_runner_on_ok(self, result: Any) -> None:
        self._told[result._host.get_name()] = result._result

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._told[result._host.get_name()] = result._result

    def v2_playbook_on_stats(self, stats: Any) -> None:
        counts = {host: stats.summarize(host) for host in stats.processed}
        told = json.loads(self._dump_results(self._told))
        self._display.display(json.dumps({"stats": counts, "hosts": told}))
