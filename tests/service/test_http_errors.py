"""The error tree is total: every class of it has a status and an exit code, and every answer is in its path's form."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path
from typing import Any

import pytest

from prompts import errors as prompt_errors
from prompts.errors import BadFile, BadInput, Fault, ModelRefused, TurnoutError
from service import errors
from service.api.http_errors import STATUS, answer_to, body_of, shape, status_of
from service.cli import exits
from service.errors import NotFound, RateLimited

ROOT = Path(__file__).parents[2]
STATUSES: dict[str, int] = {
    "BadInput": 400, "BadFile": 400, "BadName": 400, "BadSetting": 400, "RenderError": 400, "MissingVariable": 400,
    "UnexpectedVariable": 400, "InvalidVariable": 400, "TemplateRefused": 400, "BudgetExceeded": 400,
    "IncludeError": 400, "ModelNotAvailable": 400,
    "TooLarge": 413,
    "Unauthenticated": 401,
    "Forbidden": 403, "NeedsEvidence": 403,
    "RateLimited": 429,
    "NotFound": 404, "NoSuchFile": 404, "FineTuneNotFound": 404, "NotServed": 404,
    "Conflict": 409, "IdempotencyMismatch": 409, "RevisionMismatch": 412,
    "ModelError": 502, "ModelUnavailable": 502, "ModelRefused": 502, "EngineFailed": 502, "SchemaMismatch": 502,
    "ModelOverloaded": 429,
    "StorageFailed": 503, "CannotRun": 503,
    "ModelTimeout": 504,
    "TurnoutError": 500,
}  # fmt: skip
EXITS: dict[str, int] = {
    "BadInput": 2, "BadFile": 2, "BadName": 2, "BadSetting": 2, "TooLarge": 2, "RenderError": 2, "MissingVariable": 2,
    "UnexpectedVariable": 2, "InvalidVariable": 2, "TemplateRefused": 2, "BudgetExceeded": 2, "IncludeError": 2,
    "ModelNotAvailable": 2,
    "NotFound": 2, "NoSuchFile": 2, "FineTuneNotFound": 2, "NotServed": 2,
    "Conflict": 2, "IdempotencyMismatch": 2, "RevisionMismatch": 2, "NeedsEvidence": 2,
    "Unauthenticated": 4, "Forbidden": 2, "ModelError": 4, "ModelUnavailable": 4, "ModelRefused": 4, "EngineFailed": 4,
    "SchemaMismatch": 4, "RateLimited": 4,
    "ModelOverloaded": 4, "ModelTimeout": 4, "StorageFailed": 4, "CannotRun": 4, "TurnoutError": 4,
}  # fmt: skip


def tree_of(kind: type[TurnoutError]) -> list[type[TurnoutError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in tree_of(child))]


PUBLIC = sorted(
    {kind for kind in tree_of(TurnoutError) if kind.__module__ in ("prompts.errors", "service.errors")},
    key=lambda kind: kind.__name__,
)


def instance(kind: type[TurnoutError]) -> TurnoutError:
    if kind is BadFile:
        return BadFile([Fault("a.yml", 3, "unknown key", "remove it")])
    if kind is RateLimited:
        return RateLimited("what was wrong", retry_after_s=2.0)
    return kind("prompt", "a") if issubclass(kind, NotFound) else kind("what was wrong")


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = {
        word
        for module in (prompt_errors, errors)
        for line in (module.__doc__ or "").splitlines()
        for word in line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()[:1]
        if word in STATUSES
    }

    assert drawn == {kind.__name__ for kind in PUBLIC}


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_error_has_its_status_and_its_exit_code(kind: type[TurnoutError]) -> None:
    error = instance(kind)

    assert status_of(error) == STATUSES[kind.__name__]
    assert exits.of_error(error) == EXITS[kind.__name__]


def test_no_error_is_made_outside_the_tree() -> None:
    """Read from the sources: to import all of them takes seconds."""
    builtin = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    has_builtin_base = re.compile(rf"class \w+\([^)]*\b({'|'.join(builtin)})\b")
    strays = {
        f"{file.relative_to(ROOT)}:{found.name}"
        for package in ("prompts", "suites", "finetune", "service")
        for file in (ROOT / package).rglob("*.py")
        if has_builtin_base.search(text := file.read_text())
        for found in ast.walk(ast.parse(text))
        if isinstance(found, ast.ClassDef) and not found.name.startswith("_")
        and any(isinstance(base, ast.Name) and base.id in builtin for base in found.bases)
    }  # fmt: skip

    assert strays == {
        "prompts/errors.py:TurnoutError",
        "service/advising/editing.py:NotEditable",  # becomes a BadInput that names the file
        "service/client/turnout/errors.py:BadSelector",  # what users import has a tree of its own
        "service/client/turnout/errors.py:TurnoutError",
        "finetune/data/inversion.py:NotInvertibleError",  # becomes a fault of its file
        "service/upstream/http.py:ConnectTimeout",  # of a connection: each becomes a ModelError of its alias
        "service/upstream/limiter.py:QueueRefused",
        "service/upstream/sse.py:EventTooLong",
        "service/upstream/wire.py:Broken",
        "service/upstream/wire.py:Lost",
        "service/tuning/claim.py:Cancelled",  # signals within a job and within a case: counted there, they leave neither
        "service/workflow.py:StepFailed",
        "suites/assertions/children.py:ScriptDied",
        "suites/assertions/children.py:ScriptTimedOut",
        "suites/assertions/spec.py:AssertionErrored",
        "suites/assertions/spec.py:AssertionWaits",
        "suites/foreign/promptfoo_asserts.py:NotHere",  # becomes a line of what was left out
        "suites/judges.py:Unreadable",
        "suites/short_form.py:BadCell",  # becomes a fault with the line of its row
    }


@pytest.mark.parametrize("kind", PUBLIC)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/prompts", "/metrics"])
def test_every_error_is_told_in_the_form_of_its_path(kind: type[TurnoutError], path: str) -> None:
    error = instance(kind)
    body, media_type = body_of(error, path)

    if path.startswith("/v1"):
        assert media_type == "application/json"
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["message"] == str(error)
    else:
        assert media_type == "application/problem+json"
        assert body.keys() >= {"type", "title", "status", "detail"}
        assert (body["status"], body["detail"]) == (STATUSES[kind.__name__], str(error))


def test_a_bad_file_tells_all_its_faults() -> None:
    body, _ = body_of(BadFile([Fault("a.yml", 3, "unknown key", "remove it")]), "/api/push")

    assert body["faults"] == [{"path": "a.yml", "line": 3, "message": "unknown key", "fix": "remove it"}]


def test_bad_input_names_its_field() -> None:
    problem, _ = body_of(BadInput("no", param="variables.ticket"), "/api/prompts")
    openai, _ = body_of(BadInput("no", param="variables.ticket"), "/v1/chat/completions")

    assert (problem["param"], openai["error"]["param"]) == ("variables.ticket", "variables.ticket")


@pytest.mark.parametrize(
    ("status", "kind", "shown"),
    [
        (400, "BadInput", ("invalid_request_error", "bad_input")),
        (401, "Unauthenticated", ("authentication_error", "invalid_api_key")),
        (403, "Forbidden", ("permission_error", "forbidden")),
        (404, "NotFound", ("invalid_request_error", "model_not_found")),
        (500, "InternalError", ("server_error", "internal_error")),
    ],
)
def test_openais_types_and_codes(status: int, kind: str, shown: tuple[str, str]) -> None:
    body, _ = shape("/v1/models", status, "no", kind)

    assert (body["error"]["type"], body["error"]["code"]) == shown


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "context_length_exceeded", "context_length_exceeded"),
        (400, None, "model_refused"),
        (422, "400", "model_refused"),  # vLLM repeats the status there
        (413, "Not a code!", "model_refused"),
        (401, "invalid_api_key", "model_refused"),  # of the service's key, not of the caller's
    ],
)
def test_what_an_upstream_says_of_a_request_keeps_its_code(status: int, code: str | None, shown: str) -> None:
    body, _ = body_of(ModelRefused("no", status=status, code=code), "/v1/chat/completions")

    assert body["error"]["code"] == shown


@pytest.mark.parametrize(
    ("error", "asked_again"),
    [
        (ModelRefused("no", status=401), False),
        (errors.SchemaMismatch("no"), False),
        (errors.IdempotencyMismatch("no"), False),
        (RateLimited("no", retry_after_s=9000, is_budget=True), False),
        (RateLimited("no", retry_after_s=1), True),
        (prompt_errors.ModelUnavailable("no"), True),
        (prompt_errors.ModelOverloaded("no"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_openais_clients_are_told_what_need_not_be_asked_again(error: TurnoutError, asked_again: bool) -> None:
    _, _, headers = answer_to(error, "/v1/chat/completions")

    assert headers.get("x-should-retry") == (None if asked_again else "false")


def test_a_path_that_only_begins_like_v1_is_none() -> None:
    body, _ = shape("/v1x", 404, "no", "NotFound")

    assert "error" not in body


def test_the_table_knows_no_other_status() -> None:
    assert set(STATUS.values()) == set(STATUSES.values())


class Invented(errors.Conflict):
    """A kind that nobody has told the table of."""


def test_a_kind_that_is_new_has_the_status_of_its_nearest_ancestor() -> None:
    error: Any = Invented("new")

    assert (status_of(error), exits.of_error(error)) == (409, 2)
