"""Commands on keys and what they may take, and on the settings of a running service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local
from service.cli.selecting import id_in_path

key = typer.Typer(help="API keys: create, list, limit, revoke.", no_args_is_help=True, rich_markup_mode=None)
Requests = Annotated[int | None, typer.Option("--requests-per-minute", min=1, help="What it may ask in a minute.")]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", min=1, help="Tokens, in and out, in a minute.")]
Daily = Annotated[int | None, typer.Option("--tokens-per-day", min=1, help="Tokens from midnight to midnight, UTC.")]


@key.command("create")
def create(
    role: Annotated[str, typer.Option("--role", help="app, author, ci or admin")],
    note: Annotated[str | None, typer.Option("--note", help="What it is for.")] = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: Daily = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Make a key; it is shown this once."""
    from service.cli.output import out, print_json

    limits = _limits(requests_per_minute, tokens_per_minute, tokens_per_day)
    made = call(local, "POST", "/api/keys", body={"role": role, "note": note, **limits})
    if as_json:
        print_json(made)
    else:
        out().print(f"{made['key']}\n(id {made['id']}, role {made['role']}; it is not shown again)", markup=False)
    return 0


@key.command("list")
def list_keys(as_json: Json = False, local: Local = False) -> int:
    """Keys with what they may take, without their secrets."""
    from service.cli.output import print_json, table

    found = call(local, "GET", "/api/keys")
    if as_json:
        print_json(found)
    else:
        limits = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")
        used = [name for name in limits if any(one[name] is not None for one in found)]
        table(found, ("id", "role", "note", *used, "created_at", "revoked_at"))
    return 0


@key.command("limit")
def limit(
    key_id: str,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    tokens_per_day: Daily = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Set all that a key may take; what is not given is lifted."""
    from service.cli.output import out, print_json

    limits = _limits(requests_per_minute, tokens_per_minute, tokens_per_day)
    found = call(local, "PUT", f"/api/keys/{id_in_path('key', key_id)}/limits", body=limits)
    if as_json:
        print_json(found)
    else:
        given = [f"{value:,} {name.replace('_', ' ')}" for name, value in limits.items() if value is not None]
        out().print(f"{key_id} may take {', '.join(given) or 'whatever it asks for'}", markup=False)
    return 0


@key.command("revoke")
def revoke(key_id: str, as_json: Json = False, local: Local = False) -> int:
    """End a key: it is refused at once."""
    from service.cli.output import out, print_json

    call(local, "DELETE", f"/api/keys/{id_in_path('key', key_id)}")
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        out().print(f"{key_id} is revoked", markup=False)
    return 0


def reload(as_json: Json = False) -> int:
    """Let the running service read turnout.yaml anew; no request notices. Workers start anew, and go on with their jobs."""
    from service.cli.output import out, print_json

    found = call(False, "POST", "/api/reload")
    if as_json:
        print_json(found)
    else:
        changed = ", ".join(found["changed"])
        out().print(f"taken: {changed}" if changed else "nothing has changed", markup=False)
    return 0


def _limits(
    requests_per_minute: int | None, tokens_per_minute: int | None, tokens_per_day: int | None
) -> dict[str, Any]:
    return {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
    }
