"""The tables: their columns and types, keys, indexes and foreign keys, defined once.

Alembic compares a database with these classes (`migrations/env.py`), and `python -m service.store.describe` makes of them
what the statements need without loading SQLModel: `schema.sql` and `tables.py`. Only these two and the tests import this:
statements are plain SQL, and a local run cannot afford the import.

Two choices of `describe` rest on how a class is written: where its first column may be None the database numbers the
rows by it, and rows that are numbered are got by their first UniqueConstraint. Times are ISO 8601 in UTC with microseconds,
made by the logic layer. JSON columns hold what the API shows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

_LARGE = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by a column of this very type alone


def _where(condition: str, name: str, *columns: str) -> Index:
    """An index of the rows that meet a condition: the others cost nothing to write."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class Prompt(SQLModel, table=True):
    __tablename__ = "prompt"
    name: str = Field(primary_key=True)
    created_at: str


class PromptVersion(SQLModel, table=True):
    __tablename__ = "prompt_version"
    __table_args__ = (UniqueConstraint("name", "number"), UniqueConstraint("name", "digest"))
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(foreign_key="prompt.name", index=True)
    number: int
    digest: str
    content: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    about: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    author: str
    message: str | None = None
    created_at: str
    draft: bool = False


class PromptSummary(SQLModel, table=True):
    """The newest pushed version of each prompt, as lists and searches see it: `search_text` is folded to lower case."""

    __tablename__ = "prompt_summary"
    name: str = Field(foreign_key="prompt.name", primary_key=True)
    number: int
    title: str | None = None
    description: str | None = Field(default=None, sa_column=Column(Text))
    model: str = Field(index=True)
    tags: list[str] = Field(sa_column=Column(JSON, nullable=False))
    search_text: str = Field(sa_column=Column(Text, nullable=False))


class PromptTag(SQLModel, table=True):
    """The tags of each prompt's newest pushed version, one a row."""

    __tablename__ = "prompt_tag"
    name: str = Field(foreign_key="prompt.name", primary_key=True)
    tag: str = Field(primary_key=True, index=True)


class Label(SQLModel, table=True):
    __tablename__ = "label"
    name: str = Field(foreign_key="prompt.name", primary_key=True)
    label: str = Field(primary_key=True)
    version: int
    revision: int
    updated_at: str


class LabelMove(SQLModel, table=True):
    """Append-only: every move of every label, with who, when, why and on what evidence.

    `undoes` is the revision of the move that this one takes back.
    """

    __tablename__ = "label_move"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    label: str
    from_version: int | None = None
    to_version: int | None = None
    revision: int
    actor: str
    reason: str | None = None
    evidence_id: str | None = None
    undoes: int | None = None
    at: str


class SuiteVersion(SQLModel, table=True):
    __tablename__ = "suite_version"
    __table_args__ = (UniqueConstraint("name", "number"), UniqueConstraint("name", "digest"))
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    number: int
    digest: str
    prompt: str
    content: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    author: str
    message: str | None = None
    created_at: str
    pushed_at: str | None = None  # when it last became what the bare name means; None for a draft


class SuiteCases(SQLModel, table=True):
    """Cases of a suite with many, by the suite's digest: compressed chunks of them in order."""

    __tablename__ = "suite_cases"
    digest: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    cases: bytes


class Run(SQLModel, table=True):
    __tablename__ = "run"
    id: str = Field(primary_key=True)
    suite: str = Field(index=True)
    suite_version: int
    variant: str
    status: str
    summary: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    started_at: str
    finished_at: str | None = None


class CaseRow(SQLModel, table=True):
    __tablename__ = "case_result"
    run_id: str = Field(foreign_key="run.id", primary_key=True)
    case_id: str = Field(primary_key=True)
    repeat: int = Field(primary_key=True)
    position: int
    status: str
    result: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class CachedCompletion(SQLModel, table=True):
    __tablename__ = "cached_completion"
    key: str = Field(primary_key=True)
    completion: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: str


class EvidenceRow(SQLModel, table=True):
    """Append-only: what a verdict, a promotion or a manual move rests on."""

    __tablename__ = "evidence"
    id: str = Field(primary_key=True)
    kind: str
    prompt: str = Field(index=True)
    verdict: str
    candidate: str
    content: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    digest: str
    actor: str
    created_at: str


class Look(SQLModel, table=True):
    """One look at one held-out set for one prompt and base model: what promotion spends α on."""

    __tablename__ = "look"
    __table_args__ = (UniqueConstraint("prompt", "base_model", "heldout_digest", "number"),)
    job_id: str = Field(primary_key=True)
    prompt: str
    base_model: str
    heldout_digest: str
    number: int
    at: str


class Adapter(SQLModel, table=True):
    __tablename__ = "adapter"
    name: str = Field(primary_key=True)
    prompt: str = Field(index=True)
    version: int
    base_model: str
    job_id: str
    digest: str
    manifest: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: str


class Route(SQLModel, table=True):
    """The current revision of one prompt's route."""

    __tablename__ = "route"
    prompt: str = Field(primary_key=True)
    revision: int
    salt: str


class RouteRevision(SQLModel, table=True):
    """Append-only: every revision of a route, with what made it."""

    __tablename__ = "route_revision"
    prompt: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    state: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    action: str
    actor: str
    reason: str | None = None
    evidence_id: str | None = None
    at: str


class ApiKey(SQLModel, table=True):
    __tablename__ = "api_key"
    id: str = Field(primary_key=True)
    role: str
    digest: str = Field(unique=True)
    note: str | None = None
    created_at: str
    revoked_at: str | None = None
    requests_per_minute: int | None = Field(default=None, sa_column=Column(_LARGE))
    tokens_per_minute: int | None = Field(default=None, sa_column=Column(_LARGE))
    tokens_per_day: int | None = Field(default=None, sa_column=Column(_LARGE))


class Job(SQLModel, table=True):
    __tablename__ = "job"
    __table_args__ = (Index("job_by_status", "status", "created_at"),)
    id: str = Field(primary_key=True)
    kind: str
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    status: str
    attempt: int = 1
    created_by: str
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    worker: str | None = None
    token: int = 0
    heartbeat_at: str | None = None
    cancel_requested: bool = False
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    error: str | None = Field(default=None, sa_column=Column(Text))


class JobEvent(SQLModel, table=True):
    __tablename__ = "job_event"
    job_id: str = Field(foreign_key="job.id", primary_key=True)
    number: int = Field(primary_key=True)
    at: str
    type: str
    data: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class Idempotency(SQLModel, table=True):
    __tablename__ = "idempotency"
    principal: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_digest: str
    answer: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: str


class RequestRow(SQLModel, table=True):
    """The request log: the fields of `service.outcome.Outcome`, and `seq`.

    `seq` grows in the order in which rows became visible, on either database, and none is ever given twice: whoever
    has read up to one misses nothing by going on behind it (see `service.store.requests.add_outcomes`).
    """

    __tablename__ = "request"
    __table_args__ = (
        UniqueConstraint("id"),
        Index("request_by_time", "at", "seq"),
        Index("request_by_prompt", "prompt", "at", "seq"),
        _where("route_revision IS NOT NULL", "request_by_route", "prompt", "route_revision", "seq"),
        _where("trace_id IS NOT NULL", "request_by_trace", "trace_id"),
        _where("shadow_of IS NOT NULL", "request_by_shadowed", "shadow_of"),
        {"sqlite_autoincrement": True},  # without it a number would come again where the newest rows are forgotten
    )
    seq: int | None = Field(default=None, sa_column=Column(_LARGE, primary_key=True))
    id: str
    at: str
    key_id: str
    prompt: str | None = None
    variant: str
    route_revision: int | None = None
    status: str
    latency_ms: float
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    error: str | None = None
    unit: str | None = None
    is_valid: bool | None = None
    is_stream: bool = False
    is_cached: bool = False
    attempts: int = 1
    shadow_of: str | None = None
    trace_id: str | None = None
    chosen: str | None = None
    parent_span_id: str | None = None
    is_sampled: bool = False


class Feedback(SQLModel, table=True):
    """What people said of completions; `score` is a `value` that can be compared: a number, 1 and 0 for true and false."""

    __tablename__ = "feedback"
    __table_args__ = (
        Index("feedback_by_score", "metric", "score"),
        Index("feedback_by_time", "at"),
        Index("feedback_on", "completion_id", "metric", "key_id"),
    )
    id: str = Field(primary_key=True)
    completion_id: str
    metric: str
    value: Any = Field(default=None, sa_column=Column(JSON))
    comment: str | None = Field(default=None, sa_column=Column(Text))
    correction: str | None = Field(default=None, sa_column=Column(Text))
    key_id: str
    at: str
    score: float | None = None


class JudgeCalibration(SQLModel, table=True):
    """Append-only: how far one grader of a suite agreed with people. `key` is made of all that its figures depend on."""

    __tablename__ = "judge_calibration"
    __table_args__ = (Index("judge_calibration_by_grader", "suite", "key"),)
    id: str = Field(primary_key=True)
    suite: str
    key: str
    suite_version: int
    suite_digest: str
    grader: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    figures: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    labels_digest: str
    actor: str
    at: str


class Audit(SQLModel, table=True):
    __tablename__ = "audit"
    id: int | None = Field(default=None, primary_key=True)
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class Revision(SQLModel, table=True):
    """One row: counts every change that a serving snapshot must see."""

    __tablename__ = "revision"
    id: int = Field(primary_key=True)
    value: int


class RequestBody(SQLModel, table=True):
    """What a completion was asked and what it answered, without secrets; kept only where the settings say so."""

    __tablename__ = "request_body"
    id: str = Field(primary_key=True)
    prompt: str = Field(index=True)
    variant: str
    variables: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    messages: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    placeholders: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    output: str = Field(sa_column=Column(Text, nullable=False))
    at: str = Field(index=True)


class CandidateExample(SQLModel, table=True):
    """A completion that may become a training example once somebody has looked at it; `output` is what it answered."""

    __tablename__ = "candidate_example"
    __table_args__ = (
        UniqueConstraint("source", "completion_id"),
        Index("candidate_by_prompt", "prompt", "status", "created_at"),
    )
    id: str = Field(primary_key=True)
    prompt: str
    prompt_version: int
    variant: str
    source: str
    completion_id: str = Field(index=True)
    metric: str | None = None
    value: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    comment: str | None = Field(default=None, sa_column=Column(Text))
    vars: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    output: str = Field(sa_column=Column(Text, nullable=False))
    expected: str = Field(sa_column=Column(Text, nullable=False))
    flags: list[str] = Field(sa_column=Column(JSON, nullable=False))
    status: str
    decided_by: str | None = None
    decided_at: str | None = None
    reason: str | None = Field(default=None, sa_column=Column(Text))
    created_at: str


class Dataset(SQLModel, table=True):
    """Training examples by the digest of their content, never changed; `content` is JSON lines, deflated."""

    __tablename__ = "dataset"
    digest: str = Field(primary_key=True)
    prompt: str = Field(index=True)
    examples: int
    lineage: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    content: bytes
    message: str | None = Field(default=None, sa_column=Column(Text))
    created_by: str
    created_at: str


class StoredFile(SQLModel, table=True):
    """A file of `/v1/files`. `status` is `receiving` until all of its chunks are written; nobody sees it before."""

    __tablename__ = "stored_file"
    __table_args__ = (Index("stored_file_by_time", "created_at", "id"),)
    id: str = Field(primary_key=True)
    purpose: str
    filename: str
    size_bytes: int = Field(sa_column=Column(_LARGE, nullable=False))
    digest: str
    status: str
    status_details: str | None = Field(default=None, sa_column=Column(Text))
    created_by: str
    created_at: str
    expires_at: str | None = None


class FileChunk(SQLModel, table=True):
    """A part of a stored file, deflated; the parts follow each other by their number."""

    __tablename__ = "file_chunk"
    file_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    content: bytes


class TunedModel(SQLModel, table=True):
    """An `ft:` name that applications are served under: a base model with an adapter. `step` is a checkpoint's, else None."""

    __tablename__ = "tuned_model"
    name: str = Field(primary_key=True)
    job_id: str = Field(index=True)
    adapter: str
    base_model: str
    step: int | None = None
    metrics: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_by: str
    created_at: str
