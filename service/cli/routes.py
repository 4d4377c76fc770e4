"""The command of routes: shares, rollouts, schedules, history, and why somebody gets what they get."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.cli.calling import client
from service.cli.options import Json, Local, Reason

POLL_S = 1.0
_STEPPED = ("promote", "abort", "pause", "resume", "undo")
_ENDED = ("none", "finished", "rolled_back", "aborted")
Texts = list[str] | None


def route(
    name: str,
    action: Annotated[
        str,
        typer.Argument(
            help="show, status, history, set, rollout, promote, abort, pause, resume, undo, explain or shadows"
        ),
    ] = "show",
    given: Annotated[
        Texts, typer.Argument(help="For set: VARIANT=PERCENT, once for each variant. For rollout: the VARIANT.")
    ] = None,
    fallback: Annotated[
        Texts, typer.Option("--fallback", help="set: asked where a variant cannot answer; `none` for none.")
    ] = None,
    shadow: Annotated[
        Texts, typer.Option("--shadow", help="set: asked beside every answer, never answered from; `none` for none.")
    ] = None,
    sticky: Annotated[
        str | None, typer.Option("--sticky", help="set: user, session, variables:a,b or default.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="set: plan these shares for a time, 2026-12-24T08:00Z.")
    ] = None,
    steps: Annotated[str, typer.Option("--steps", help="rollout: percents that rise to 100.")] = "5,25,100",
    rule: Annotated[
        Texts, typer.Option("--rule", help="rollout: NAME=VALUE, such as margin=0.01 or latency_budget_ms=2000.")
    ] = None,
    user: Annotated[str, typer.Option("--user", help="explain: who asks.")] = "",
    session: Annotated[str, typer.Option("--session", help="explain: in which conversation.")] = "",
    variables: Annotated[Texts, typer.Option("-v", "--var", help="explain: key=value, once a variable.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="show: stay until the rollout has ended.")] = False,
    reason: Reason = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Show or change the route of a prompt: set VARIANT=PERCENT…, rollout VARIANT, promote, abort, pause, resume, undo, explain."""
    from prompts.errors import BadInput
    from prompts.names import check_name

    service, path = client(local), f"/api/routes/{check_name(name)}"
    if action == "show" and watch:
        return _watch(service, path, as_json)
    if action == "show":
        found = service.call("GET", path)
        return _print(found if as_json else (found, service.call("GET", f"{path}/rollout")), as_json)
    if action == "status":
        return _print_status(service.call("GET", f"{path}/rollout"), as_json)
    if action == "shadows":
        return _print_shadows(service.call("GET", f"{path}/shadows"), as_json)
    if action == "history":
        return _print(service.call("GET", f"{path}/history"), as_json)
    if action == "set":
        how = _how(fallback, shadow, sticky)
        return _print(_set(service, path, _weights(given or []), how, at, reason or ""), as_json)
    if action == "rollout":
        return _print(service.call("POST", f"{path}/rollout", body=_rollout(given or [], steps, rule, reason)), as_json)
    if action == "explain":
        params = {"user": user, "session": session, "variables": _variables(service, path, variables, local)}
        return _explain(service.call("GET", f"{path}/explain", params=params), as_json)
    if action in _STEPPED:
        return _print(service.call("POST", f"{path}/{action}", body={"reason": reason}), as_json)
    raise BadInput(
        f"no action {action!r}: show, status, history, set, rollout, {', '.join(_STEPPED)}, explain or shadows",
        param="action",
    )


# ---------------------------------------------------------------------------- what is sent


def _set(
    service: Any, path: str, weights: Mapping[str, float], how: Mapping[str, Any], at: str | None, reason: str
) -> Any:
    if at is None:
        return service.call("PUT", path, body={"variants": weights, "reason": reason, **how})
    now = service.call("GET", path)
    steps = [{"at": step["at"], "variants": _shares(step)} for step in now.get("schedule", ())]
    planned = sorted([*steps, {"at": _utc(at), "variants": weights}], key=lambda step: str(step["at"]))
    body = {"variants": _shares(now), "reason": reason, "schedule": planned, **how}
    return service.call("PUT", path, body=body, headers={"if-match": f'"{now["revision"]}"'})


def _shares(state: Mapping[str, Any]) -> dict[str, float]:
    return {item["variant"]: item["percent"] for item in state["variants"]}


def _utc(at: str) -> str:
    from datetime import UTC, datetime

    from prompts.errors import BadInput

    try:
        time_at = datetime.fromisoformat(at)
    except ValueError as error:
        raise BadInput(f"--at: {at!r} is no time: write 2026-12-24T08:00Z", param="at") from error
    if time_at.tzinfo is None:
        raise BadInput(f"--at: {at!r} has no time zone: end it with Z or +01:00", param="at")
    return time_at.astimezone(UTC).isoformat(timespec="microseconds")


def _how(fallback: Texts, shadow: Texts, sticky: str | None) -> dict[str, Any]:
    """What was said of how the route asks; what was not is left out."""
    lists = {"fallbacks": fallback, "shadows": shadow}
    found: dict[str, Any] = {name: _unless_none(texts) for name, texts in lists.items() if texts is not None}
    if sticky is not None:
        kind, _, names = sticky.partition(":")
        by_variables = {"variables": [name.strip() for name in names.split(",")]}
        found["sticky"] = by_variables if kind == "variables" and names else None if sticky == "default" else sticky
    return found


def _unless_none(texts: list[str]) -> list[str]:
    return [] if texts == ["none"] else texts


def _weights(given: list[str]) -> dict[str, float]:
    from prompts.errors import BadInput

    found = {}
    for text in given:
        variant, equals, percent = text.rpartition("=")
        try:
            found[variant] = float(percent)
        except ValueError:
            equals = ""
        if not equals:
            raise BadInput(f"{text!r}: write VARIANT=PERCENT", param="variants")
    return found


def _rollout(given: list[str], steps: str, rule: Texts, reason: str | None) -> dict[str, Any]:
    from prompts.errors import BadInput
    from suites.rollouts import Rules

    if len(given) != 1:
        raise BadInput(
            "name the one VARIANT that takes the traffic: turnout route NAME rollout VARIANT", param="candidate"
        )
    try:
        percents = [int(step) for step in steps.split(",")]
    except ValueError as error:
        raise BadInput(f"--steps {steps!r}: write 5,25,100", param="steps") from error
    rules = dict(_named(text) for text in rule or [])
    unknown = sorted(rules.keys() - Rules.model_fields.keys())
    if unknown:
        raise BadInput(
            f"--rule {unknown[0]}: there is no such rule; there are {', '.join(Rules.model_fields)}", param="rule"
        )
    return {"candidate": given[0], "steps": percents, "rules": rules, "reason": reason or ""}


def _named(text: str) -> tuple[str, Any]:
    from prompts.errors import BadInput

    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value) if equals else _no_rule(text)
    except ValueError:
        raise BadInput(f"{text!r}: write NAME=VALUE, such as margin=0.01", param="rule") from None


def _no_rule(text: str) -> Any:
    raise ValueError(text)


def _variables(service: Any, path: str, given: Texts, local: bool) -> str:
    """Values with the types that the served version gives them, as JSON."""
    if not given:
        return "{}"
    from service.cli.selecting import fetch_version, pairs, typed

    served = str(service.call("GET", path)["variants"][0]["variant"]).partition("+")[0]
    return json.dumps(typed(pairs(given), fetch_version(served, local)["variables"]))


# ---------------------------------------------------------------------------- what is shown


def _print(found: Any, as_json: bool) -> int:
    """One revision, with how its rollout stands where that is given along, or several revisions."""
    from service.cli.output import print_json

    if as_json:
        print_json(found)
        return 0
    record, status = found if isinstance(found, tuple) else (found, None)
    for one in record if isinstance(record, list) else [record]:
        _show_route(one)
    if status is not None and status["state"] != "none":
        _show_status(status)
    return 0


def _show_route(record: dict[str, Any]) -> None:
    from service.cli.output import out
    from service.times import shown_time

    why = f" because {record['reason']}" if record["reason"] else ""
    who = f"{record['action']} by {record['actor']} at {shown_time(record['at'])} UTC{why}"
    out().print(
        f"{record['prompt']} revision {record['revision']}: {who}, evidence {record['evidence_id']}", markup=False
    )
    for item in record["variants"]:
        out().print(f"  {item['percent']:>6.1f}%  {item['variant']}", markup=False)
    if not record["variants"]:
        out().print("  ended: its bare name is served by nobody until `production` points to a version", markup=False)
    for kind in ("fallbacks", "shadows"):
        if record.get(kind):
            out().print(f"  {kind}: {', '.join(record[kind])}", markup=False)
    if record.get("sticky"):
        out().print(f"  sticky: {json.dumps(record['sticky'])}", markup=False)
    for step in record.get("schedule", ()):
        shares = ", ".join(f"{item['percent']:g}% {item['variant']}" for item in step["variants"])
        out().print(f"  from {shown_time(step['at'])} UTC: {shares}", markup=False)


def _print_shadows(found: list[dict[str, Any]], as_json: bool) -> int:
    from service.cli.output import out, print_json

    if as_json:
        print_json(found)
        return 0
    for line in shadow_lines(found):
        out().print(line, markup=False)
    if not found:
        out().print("no shadow was asked in the last 24 hours: turnout route NAME set … --shadow VARIANT", markup=False)
    return 0


def shadow_lines(found: list[dict[str, Any]]) -> list[str]:
    """How each shadow did, a few lines each: a table of all that is told would be wider than a window."""
    lines = []
    for one in found:
        lines.append(f"{one['shadow']} beside {one['answered']}: {one['requests']} requests")
        lines.append(
            f"  failed: both {one['both_failed']}, only the shadow {one['only_shadow_failed']}, only who answered"
            f" {one['only_answered_failed']} (p {one['p_value']:.4g})"
        )
        costs = (
            "" if one[f"{who}_usd"] is None else f", {one[f'{who}_usd']:.4g} USD" for who in ("shadow", "answered")
        )
        took = (f"{one[f'{who}_ms']:.4g} ms{cost}" for who, cost in zip(("shadow", "answered"), costs, strict=True))
        lines.append("  took: the shadow {}; who answered {}".format(*took))
        if one["compared"]:
            lines.append(f"  the same text: {one['same_output']} of {one['compared']} recorded")
    return lines


def _print_status(status: dict[str, Any], as_json: bool) -> int:
    from service.cli.output import print_json

    if as_json:
        print_json(status)
    else:
        _show_status(status)
    return 0


def _show_status(status: Mapping[str, Any]) -> None:
    from service.cli.output import out

    for line in status_lines(status):
        out().print(line, markup=False)


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """How a rollout stands, as it is told: its state, its step, both variants, the evidence for either way."""
    if status["state"] == "none":
        return ["  no rollout is under way"]
    lines = [f"  rollout {status['state'].replace('_', ' ')}" + (f": {status['reason']}" if status["reason"] else "")]
    if "steps" in status:
        steps = " → ".join(
            f"[{step}%]" if place == status["step"] else f"{step}%" for place, step in enumerate(status["steps"])
        )
        verified = ", verified by a request" if status["is_verified"] else ""
        lines.append(f"  step {status['step'] + 1} of {len(status['steps'])}: {steps}{verified}")
    for side, arm in status.get("units", {}).items():
        share = f" ({100 * arm['bad_share']:.1f}%)" if arm["bad_share"] is not None else ""
        lines.append(f"  {side:<9}  {arm['units']:>7} units  {arm['bad']:>6} bad{share}  {status[side]}")
    for told, name in (("to promote", "promote"), ("to roll back", "roll_back"), ("of a broken split", "split")):
        if f"e_{name}" in status:
            lines.append(f"  evidence {told}: {status[f'e_{name}']:.3g} of {status[f'{name}_at']:g}")
    return lines


def _explain(found: dict[str, Any], as_json: bool) -> int:
    from service.cli.output import out, print_json

    if as_json:
        print_json(found)
        return 0
    out().print(
        f"{found['variant'] or 'no variant in particular'} (revision {found['revision']}, by {found['by']})",
        markup=False,
    )
    out().print(f"  {found['why']}", markup=False)
    for span in found["spans"]:
        out().print(f"  {span['from']:>9.4f} to {span['to']:>9.4f}  {span['variant']}", markup=False)
    return 0


def _watch(service: Any, path: str, as_json: bool) -> int:
    """Until the rollout has ended; on a terminal in place, else a line whenever something has changed."""
    from service.cli.output import err, print_json

    shown: list[str] = []
    while True:
        status = service.call("GET", f"{path}/rollout")
        lines = [f"{status['prompt']} revision {status['revision']}", *status_lines(status)]
        if lines != shown:
            err().print("\n".join(lines) + "\n", markup=False)
            shown = lines
        if status["state"] in _ENDED and not (status["state"] == "finished" and _waits(status)):
            break
        time.sleep(POLL_S)
    if as_json:
        print_json(status)
    return 0


def _waits(status: Mapping[str, Any]) -> bool:
    """Whether a promotion that has just happened is still to be verified."""
    from datetime import UTC, datetime

    age_s = (datetime.now(UTC) - datetime.fromisoformat(status["since"])).total_seconds()
    return not status["is_verified"] and age_s < 15
