"""Made from models.py by `python -m service.store.describe`: the tables as statements need them."""

from __future__ import annotations

from service.store.records import Table

PROMPT = Table(
    name="prompt",
    columns=("name", "created_at"),
    key=("name",),
)

PROMPT_VERSION = Table(
    name="prompt_version",
    columns=("id", "name", "number", "digest", "content", "about", "author", "message", "created_at", "draft"),
    key=("name", "number"),
    json=frozenset({"content", "about"}),
    flags=frozenset({"draft"}),
    defaults={"draft": False},
    numbered="id",
)

PROMPT_SUMMARY = Table(
    name="prompt_summary",
    columns=("name", "number", "title", "description", "model", "tags", "search_text"),
    key=("name",),
    json=frozenset({"tags"}),
)

PROMPT_TAG = Table(
    name="prompt_tag",
    columns=("name", "tag"),
    key=("name", "tag"),
)

LABEL = Table(
    name="label",
    columns=("name", "label", "version", "revision", "updated_at"),
    key=("name", "label"),
)

LABEL_MOVE = Table(
    name="label_move",
    columns=(
        "id",
        "name",
        "label",
        "from_version",
        "to_version",
        "revision",
        "actor",
        "reason",
        "evidence_id",
        "undoes",
        "at",
    ),
    key=("id",),
    numbered="id",
)

SUITE_VERSION = Table(
    name="suite_version",
    columns=("id", "name", "number", "digest", "prompt", "content", "author", "message", "created_at", "pushed_at"),
    key=("name", "number"),
    json=frozenset({"content"}),
    numbered="id",
)

SUITE_CASES = Table(
    name="suite_cases",
    columns=("digest", "number", "cases"),
    key=("digest", "number"),
)

RUN = Table(
    name="run",
    columns=("id", "suite", "suite_version", "variant", "status", "summary", "started_at", "finished_at"),
    key=("id",),
    json=frozenset({"summary"}),
)

CASE_RESULT = Table(
    name="case_result",
    columns=("run_id", "case_id", "repeat", "position", "status", "result"),
    key=("run_id", "case_id", "repeat"),
    json=frozenset({"result"}),
)

CACHED_COMPLETION = Table(
    name="cached_completion",
    columns=("key", "completion", "at"),
    key=("key",),
    json=frozenset({"completion"}),
)

EVIDENCE = Table(
    name="evidence",
    columns=("id", "kind", "prompt", "verdict", "candidate", "content", "digest", "actor", "created_at"),
    key=("id",),
    json=frozenset({"content"}),
)

LOOK = Table(
    name="look",
    columns=("job_id", "prompt", "base_model", "heldout_digest", "number", "at"),
    key=("job_id",),
)

ADAPTER = Table(
    name="adapter",
    columns=("name", "prompt", "version", "base_model", "job_id", "digest", "manifest", "created_at"),
    key=("name",),
    json=frozenset({"manifest"}),
)

ROUTE = Table(
    name="route",
    columns=("prompt", "revision", "salt"),
    key=("prompt",),
)

ROUTE_REVISION = Table(
    name="route_revision",
    columns=("prompt", "revision", "state", "action", "actor", "reason", "evidence_id", "at"),
    key=("prompt", "revision"),
    json=frozenset({"state"}),
)

API_KEY = Table(
    name="api_key",
    columns=(
        "id",
        "role",
        "digest",
        "note",
        "created_at",
        "revoked_at",
        "requests_per_minute",
        "tokens_per_minute",
        "tokens_per_day",
    ),
    key=("id",),
)

JOB = Table(
    name="job",
    columns=(
        "id",
        "kind",
        "spec",
        "status",
        "attempt",
        "created_by",
        "created_at",
        "started_at",
        "finished_at",
        "worker",
        "token",
        "heartbeat_at",
        "cancel_requested",
        "result",
        "error",
    ),
    key=("id",),
    json=frozenset({"spec", "result"}),
    flags=frozenset({"cancel_requested"}),
    defaults={"attempt": 1, "token": 0, "cancel_requested": False},
)

JOB_EVENT = Table(
    name="job_event",
    columns=("job_id", "number", "at", "type", "data"),
    key=("job_id", "number"),
    json=frozenset({"data"}),
)

IDEMPOTENCY = Table(
    name="idempotency",
    columns=("principal", "key", "body_digest", "answer", "at"),
    key=("principal", "key"),
    json=frozenset({"answer"}),
)

REQUEST = Table(
    name="request",
    columns=(
        "seq",
        "id",
        "at",
        "key_id",
        "prompt",
        "variant",
        "route_revision",
        "status",
        "latency_ms",
        "upstream_ms",
        "first_token_ms",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "cost_usd",
        "error",
        "unit",
        "is_valid",
        "is_stream",
        "is_cached",
        "attempts",
        "shadow_of",
        "trace_id",
        "chosen",
        "parent_span_id",
        "is_sampled",
    ),
    key=("id",),
    flags=frozenset({"is_valid", "is_stream", "is_cached", "is_sampled"}),
    defaults={
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "completion_tokens": 0,
        "is_stream": False,
        "is_cached": False,
        "attempts": 1,
        "is_sampled": False,
    },
    numbered="seq",
)

FEEDBACK = Table(
    name="feedback",
    columns=("id", "completion_id", "metric", "value", "comment", "correction", "key_id", "at", "score"),
    key=("id",),
    json=frozenset({"value"}),
)

JUDGE_CALIBRATION = Table(
    name="judge_calibration",
    columns=(
        "id",
        "suite",
        "key",
        "suite_version",
        "suite_digest",
        "grader",
        "figures",
        "labels_digest",
        "actor",
        "at",
    ),
    key=("id",),
    json=frozenset({"grader", "figures"}),
)

AUDIT = Table(
    name="audit",
    columns=("id", "at", "actor", "action", "subject", "detail"),
    key=("id",),
    json=frozenset({"detail"}),
    numbered="id",
)

REVISION = Table(
    name="revision",
    columns=("id", "value"),
    key=("id",),
)

REQUEST_BODY = Table(
    name="request_body",
    columns=("id", "prompt", "variant", "variables", "messages", "placeholders", "output", "at"),
    key=("id",),
    json=frozenset({"variables", "messages", "placeholders"}),
)

CANDIDATE_EXAMPLE = Table(
    name="candidate_example",
    columns=(
        "id",
        "prompt",
        "prompt_version",
        "variant",
        "source",
        "completion_id",
        "metric",
        "value",
        "comment",
        "vars",
        "output",
        "expected",
        "flags",
        "status",
        "decided_by",
        "decided_at",
        "reason",
        "created_at",
    ),
    key=("id",),
    json=frozenset({"value", "vars", "flags"}),
)

DATASET = Table(
    name="dataset",
    columns=("digest", "prompt", "examples", "lineage", "content", "message", "created_by", "created_at"),
    key=("digest",),
    json=frozenset({"lineage"}),
)

STORED_FILE = Table(
    name="stored_file",
    columns=(
        "id",
        "purpose",
        "filename",
        "size_bytes",
        "digest",
        "status",
        "status_details",
        "created_by",
        "created_at",
        "expires_at",
    ),
    key=("id",),
)

FILE_CHUNK = Table(
    name="file_chunk",
    columns=("file_id", "number", "content"),
    key=("file_id", "number"),
)

TUNED_MODEL = Table(
    name="tuned_model",
    columns=("name", "job_id", "adapter", "base_model", "step", "metrics", "created_by", "created_at"),
    key=("name",),
    json=frozenset({"metrics"}),
)
