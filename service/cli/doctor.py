"""What a service needs, looked at one by one."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from typing import Any

from prompts.errors import BadInput, TurnoutError
from service.child import missing_local_packages
from service.settings import LocalSpec, OpenAISpec, Settings

LEAST_FREE_BYTES = 2 * 1024**3


def examine(settings: Settings) -> list[dict[str, Any]]:
    """Findings, each `{what, state: ok | note | bad, detail}`."""
    checks = (_python, _home, _database, _local_extra, _models, _port)
    return [finding for check in checks for finding in check(settings)]


def _finding(what: str, state: str, detail: str) -> dict[str, Any]:
    return {"what": what, "state": state, "detail": detail}


def _python(_: Settings) -> list[dict[str, Any]]:
    return [_finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")]


def _home(settings: Settings) -> list[dict[str, Any]]:
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return [
            _finding("home", "bad", f"{settings.home}: {error.strerror}; set TURNOUT_HOME to a folder you may write")
        ]
    if not os.access(settings.home, os.W_OK):
        return [_finding("home", "bad", f"{settings.home} is not writable; set TURNOUT_HOME to a folder you may write")]
    free = shutil.disk_usage(settings.home).free
    state = "ok" if free >= LEAST_FREE_BYTES else "bad"
    return [
        _finding("home", state, f"{settings.home}, {free / 1024**3:.1f} GiB free of the 2 GiB that a fine-tune wants")
    ]


def _database(settings: Settings) -> list[dict[str, Any]]:
    from service.opening import prepare
    from service.store.database import Database

    kind = "SQLite" if settings.database_url.startswith("sqlite") else "PostgreSQL"
    try:
        database = Database(settings.database_url)
        prepare(database, settings)
        database.close()
    except TurnoutError as error:
        return [_finding("database", "bad", str(error))]
    return [_finding("database", "ok", kind)]


def _local_extra(_: Settings) -> list[dict[str, Any]]:
    missing = missing_local_packages()
    if missing:
        return [_finding("local models", "note", f"{', '.join(missing)} not installed: pip install 'turnout[local]'")]
    return [_finding("local models", "ok", "torch, transformers, peft and gguf are installed")]


def _models(settings: Settings) -> list[dict[str, Any]]:
    found = []
    for alias, spec in sorted(settings.models.items()):
        if isinstance(spec, LocalSpec):
            found.append(_local_model(alias, spec))
        elif isinstance(spec, OpenAISpec) and spec.api_key_env and not os.environ.get(spec.api_key_env):
            found.append(
                _finding(f"model {alias}", "bad", f"its key is not in the environment: set {spec.key_variable(alias)}")
            )
        else:
            found.append(_finding(f"model {alias}", "ok", spec.engine))
    return found


def _local_model(alias: str, spec: LocalSpec) -> dict[str, Any]:
    from service.engine import weights

    try:
        here = weights.find(weights.Source.parse(spec.source, spec.chat_template), weights.default_cache_dir())
    except (BadInput, OSError) as error:
        return _finding(f"model {alias}", "bad", str(error))
    detail = str(here) if here else f"not pulled yet: `turnout models pull {alias}`"
    return _finding(f"model {alias}", "ok" if here else "note", detail)


def _port(settings: Settings) -> list[dict[str, Any]]:
    address = (settings.server.host, settings.server.port)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.settimeout(0.5)
        try:
            taken = probe.connect_ex(address) == 0
        except OSError as error:
            return [
                _finding(
                    "port", "bad", f"{address[0]}: {error.strerror}; set server.host to an address of this machine"
                )
            ]
    detail = "something listens there: a running service, or choose another port" if taken else "free"
    return [_finding(f"port {address[0]}:{address[1]}", "note" if taken else "ok", detail)]
