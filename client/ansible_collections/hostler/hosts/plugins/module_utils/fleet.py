"""What the modules of this collection share: one host of a fleet, and changes in two phases."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from hostler import sync
    from hostler.config import ConfigError
    from hostler.desired import Document, Problems, fill
    from hostler.fleet import Host, SelectionError
    from hostler.plans import Change, Planned
    from hostler.results import HostError, HostResult
    from hostler.rollout import Rollout
    from hostler.runs_model import RunsError
except ImportError:
    MISSING = traceback.format_exc()
else:
    MISSING = ""

_ARGUMENTS = {
    "host": {"type": "str", "required": True},
    "config": {"type": "path"},
    "context": {"type": "str"},
    "timeout": {"type": "float", "default": 30.0},
    "confirm_within": {"type": "float"},
}


def module_of(arguments: dict[str, Any], **rules: Any) -> Any:
    """A module with these parameters and those that all have. Ends if hostler is not there."""
    module = AnsibleModule({**_ARGUMENTS, **arguments}, supports_check_mode=True, **rules)
    if MISSING:
        module.fail_json(msg=missing_required_lib("hostler"), exception=MISSING)
    return module


def within(path: str, table: dict[str, Any]) -> Any:
    """What a parameter holds, as a document whose mistakes are told by the parameter's name."""

    class Parameter(Document):
        """A value of the playbook, which has no lines of its own."""

        def place(self, key_path: str) -> str:
            """The parameter."""
            return str(self.path)

    return Parameter(Path(path), "", table)


def message_within(path: str, table: dict[str, Any], message: Any) -> Any:
    """Fill a message from a parameter; answer it. Raises ConfigError that lists every mistake."""
    problems = Problems(within(path, table))
    fill(message, table, problems)
    problems.check()
    return message


def carry_out(
    module: Any,
    make: Callable[[Host], Sequence[Change]],
    confirm_s: Callable[[HostResult[Planned]], float | None] = lambda _plan: None,
) -> NoReturn:
    """Carry out changes on the module's host one after the other, and end the module.

    `make` answers the changes of a host; it may raise ConfigError. `confirm_s` answers after the
    plan within which time a change is to be confirmed for which the task names none. In check mode
    they are planned alone, and those after the first that has anything to do are not: their plans
    would be of a host as it is not yet.
    """
    params = module.params
    try:
        config = Path(params["config"]) if params["config"] else None
        client = sync.connect(params["context"], config=config, timeout_s=params["timeout"])
        found = client.select(params["host"])
        if len(found) != 1:
            raise ConfigError(f"{params['host']}: is {len(found)} hosts; a task is for one")
        changes = make(found[0])
        _Work(module, client, found[0], confirm_s).do(changes)
    except (ConfigError, SelectionError, RunsError) as error:
        module.fail_json(msg=str(error))
    raise AssertionError("a module ends by exit_json or fail_json")


class _Work:
    def __init__(
        self,
        module: Any,
        client: sync.Client,
        host: Host,
        confirm_s: Callable[[HostResult[Planned]], float | None],
    ) -> None:
        self._module, self._client, self._host = module, client, host
        self._confirm_s = confirm_s
        self._told: dict[str, Any] = {"changed": False, "plan": [], "outcomes": [], "runs": []}

    def do(self, changes: Sequence[Change]) -> None:
        for number, change in enumerate(changes, start=1):
            self._one(change)
            if self._module.check_mode and self._told["changed"] and number < len(changes):
                self._module.warn("what comes after the first change is planned when it is there")
                break
        if self._module._diff:
            self._told["diff"] = {"prepared": "".join(f"{s}\n" for s in self._told["plan"])}
        self._module.exit_json(**self._told)

    def _one(self, change: Change) -> None:
        (plan,) = self._client.plan(change, (self._host,))
        if plan.error is not None:
            self._fail(plan.error)
        planned = plan.value()
        for words in planned.warnings:
            self._module.warn(words)
        self._told["plan"] += [step.description for step in planned.steps]
        if self._module.check_mode:
            self._told["changed"] |= bool(planned.steps)
            return
        within_s = self._module.params["confirm_within"]
        if within_s is None:
            within_s = self._confirm_s(plan)
        options = Rollout(confirm_within_s=within_s)
        rolled = self._client.roll_out(change, (self._host,), (plan,), options=options)
        (result,) = rolled.results
        self._told["outcomes"].append(str(result.outcome))
        self._told["runs"].append(rolled.run)
        if result.error is not None:
            self._fail(result.error, changed=self._told["changed"] or result.error.uncertain)
        self._told["changed"] |= result.outcome != "unchanged"

    def _fail(self, error: HostError, *, changed: bool = False) -> NoReturn:
        told = {**self._told, "changed": changed}
        self._module.fail_json(msg=str(error), error=error.as_dict(), **told)
        raise AssertionError("a module ends by exit_json or fail_json")
