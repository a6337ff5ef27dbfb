"""`hostler policy test` and `explain`: what policies answer, before anybody asks a host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.authority import folder_option, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record, show_records
from hostler.fleet import PORTS

if TYPE_CHECKING:
    from hostler.cedar import Explanation


@click.command(
    epilog=examples(
        "hostler policy test ~/.config/hostler/pki/cases.toml",
        "hostler -o json policy test cases.toml",
    )
)
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@folder_option
@pass_state
def test(state: State, table: Path, folder: Path | None) -> None:
    """Try a TABLE of cases on the source of the bundle, before or after it is signed.

    TABLE is TOML. Each [[cases]] has `who`, `calls` (a list of methods) and `expect`: allow, deny
    or approval; it may have `on`, a resource, `domain`, and `plan = true`. Exit 1 if any answer is
    another.
    """
    from datetime import UTC, datetime

    from hostler.policy import collect_policies
    from hostler.policy_cases import answers, load_cases

    _need_cedar()
    authority = open_authority(state, folder)
    source = authority.policy_source()
    policies = collect_policies(source, authority.folder)
    cases = load_cases(table, authority.trust_domain)
    told = list(answers(cases, source.bundle(policies, datetime.now(UTC))))
    wrong = [answer for answer in told if not answer.as_expected]
    records = [
        {
            "line": answer.case.line,
            "identity": answer.case.identity,
            "method": answer.method,
            "domain": answer.domain,
            "resource": answer.case.resource,
            "expected": answer.case.expect,
            "answer": answer.said,
            "policies": list(answer.policies),
        }
        for answer in (wrong if state.output == "table" else told)
    ]
    columns = {
        name.upper(): name
        for name in ("line", "identity", "method", "domain", "expected", "answer", "policies")
    }
    if records:
        show_records(records, columns, state.output)
    if state.output == "table":
        click.echo(f"{len(cases)} cases, {len(told)} answers, {len(wrong)} not as expected")
    click.get_current_context().exit(1 if wrong else 0)


@click.command(
    epilog=examples(
        "hostler policy explain alice StartProcess web/main",
        "hostler policy explain host/web1 GetHost --domain netns",
        "hostler policy explain local/root DeleteNamespace web --local",
    )
)
@click.argument("user")
@click.argument("method")
@click.argument("resource", default="")
@click.option("--domain", type=click.Choice(list(PORTS)), help="At this door. [default: the first]")
@click.option("--local", is_flag=True, help="Through the host's unix socket.")
@click.option("--bare-plan", "validate_only", is_flag=True, help="Asking for the plan alone.")
@folder_option
@pass_state
def explain(state: State, /, user: str, method: str, folder: Path | None, **call: Any) -> None:
    """Say what the signed policies answer to USER calling METHOD on RESOURCE, and why.

    Exit 1 if it is denied.
    """
    from hostler import cedar
    from hostler.core.decision import Question
    from hostler.core.names import Identity

    _need_cedar()
    authority = open_authority(state, folder)
    bundle = authority.read_bundle()
    if bundle is None:
        raise click.ClickException("no bundle was signed yet; do it with: hostler policy sign")
    action = next((a for a in cedar.known_actions() if a.method.endswith(f"/{method}")), None)
    if action is None:
        raise click.UsageError(f"there is no method {method}")
    identity = user if call["local"] else str(Identity.of(user, authority.trust_domain))
    call["domain"] = call["domain"] or action.domains[0]
    told = cedar.Judge(bundle).explain(Question(identity, (), action, **call))
    record = {
        "identity": identity,
        "method": action.method,
        "class": action.access_class,
        "allowed": told.decision.allowed,
        "approval_needed": told.approval_needed,
        "policies": list(told.decision.policies),
        "why": _why(told),
    }
    show_record(record, state.output)
    click.get_current_context().exit(0 if told.decision.allowed else 1)


def _need_cedar() -> None:
    from hostler import cedar

    if not cedar.is_available():
        raise click.ClickException("Cedar is not installed here: pip install cedarpy")


def _why(told: Explanation) -> str:
    decision = told.decision
    if decision.errors:
        return f"a policy cannot be evaluated: {'; '.join(decision.errors)}"
    if decision.allowed:
        return "a policy permits it, and none forbids it"
    if told.approval_needed:
        return "somebody else has to approve it"
    if decision.unnamed:
        return "the policies that permit it do not name its class, or the method itself"
    return "a policy forbids it" if decision.policies else "no policy permits it"
