"""Which version a command means, and the variables given to it: shared by the commands of authors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.cli.client import Client


_BETWEEN = str.maketrans("", "", "_-:")  # what stands in ids beside letters and digits
IDS = {  # how ids look, or where they come from
    "advice": "an id is such as adv_4f1c9a0b7d2e, or that of its job; `turnout jobs` lists these",
    "dataset": "give its digest or the beginning of it; `turnout dataset list` shows them",
    "evidence": "a gate says the id of its evidence (ev_…), and `turnout route NAME` that of a promotion",
    "example": "`turnout review list` shows their ids",
    "job": "an id is such as job_4f1c9a0b7d2e or ftjob-4f1c9a0b7d2e; `turnout jobs` lists them",
    "key": "an id is such as key_4f1c9a0b7d2e; `turnout key list` shows them",
    "run": "an id is such as run_4f1c9a0b7d2e; `turnout run` says that of its own",
}


def pairs(given: list[str], option: str = "-v") -> dict[str, str]:
    """`key=value` texts as given with `option`; raises BadInput where one is not."""
    from prompts.errors import BadInput

    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"{option} {text}: write key=value", param=option)
        if not is_text(value):
            raise BadInput(f"{option} {name}: the value is not UTF-8: give it as UTF-8 text", param=option)
        if name in pairs:
            raise BadInput(
                f"{option} {name} is given twice, as {pairs[name]!r} and {value!r}: give it once", param=option
            )
        pairs[name] = value
    return pairs


def id_in_path(what: str, text: str) -> str:
    """An id of one of `IDS` as it may stand in a path.

    Raises BadInput for what is none: with a slash or a dot it would be another path.
    """
    from prompts.errors import BadInput

    if not is_text(text):
        raise BadInput(f"{what} {text[:80]!r}: not UTF-8: give it as UTF-8 text", param="id")
    if not text.translate(_BETWEEN).isalnum():
        raise BadInput(f"{what} {text[:80]!r}: {IDS[what]}", param="id")
    return text


def is_text(value: str) -> bool:
    """Whether what was given on the command line is UTF-8: Python holds other bytes as half characters."""
    return value.isascii() or value.encode("utf-8", "replace").decode() == value


def typed(given: dict[str, str], schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Values of variables that are no strings are read as JSON."""
    import json

    from prompts.errors import BadInput

    values: dict[str, Any] = {}
    for name, text in given.items():
        if schemas.get(name, {}).get("type", "string") == "string":
            values[name] = text
            continue
        try:
            values[name] = json.loads(text)
        except ValueError as error:
            raise BadInput(f"-v {name}={text}: not JSON, and {name!r} is no string: {error}", param=name) from error
    return values


def fetch_version(selector: str, local: bool) -> dict[str, Any]:
    """The version that NAME (production), NAME@LABEL or NAME@N means now. Raises NotFound."""
    from service.cli.calling import client

    return version_in(client(local), selector)


def version_in(service: Client, selector: str) -> dict[str, Any]:
    """The same, of a service that is known."""
    from prompts.names import parse_selector

    chosen = parse_selector(selector)
    params = {"version": chosen.version, "label": chosen.label}
    found: dict[str, Any] = service.call(
        "GET", f"/api/prompts/{chosen.name}", params={key: value for key, value in params.items() if value}
    )
    return found
