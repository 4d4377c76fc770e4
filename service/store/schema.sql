-- Made from models.py by `python -m service.store.describe`.
CREATE TABLE adapter (
  name VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  version INTEGER NOT NULL,
  base_model VARCHAR NOT NULL,
  job_id VARCHAR NOT NULL,
  digest VARCHAR NOT NULL,
  manifest JSON NOT NULL,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (name)
);
CREATE INDEX ix_adapter_prompt ON adapter (prompt);
CREATE TABLE api_key (
  id VARCHAR NOT NULL,
  role VARCHAR NOT NULL,
  digest VARCHAR NOT NULL,
  note VARCHAR,
  created_at VARCHAR NOT NULL,
  revoked_at VARCHAR,
  requests_per_minute INTEGER,
  tokens_per_minute INTEGER,
  tokens_per_day INTEGER,
  PRIMARY KEY (id),
  UNIQUE (digest)
);
CREATE TABLE audit (
  id INTEGER NOT NULL,
  at VARCHAR NOT NULL,
  actor VARCHAR NOT NULL,
  action VARCHAR NOT NULL,
  subject VARCHAR NOT NULL,
  detail JSON NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE cached_completion (
  "key" VARCHAR NOT NULL,
  completion JSON NOT NULL,
  at VARCHAR NOT NULL,
  PRIMARY KEY ("key")
);
CREATE TABLE candidate_example (
  id VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  prompt_version INTEGER NOT NULL,
  variant VARCHAR NOT NULL,
  source VARCHAR NOT NULL,
  completion_id VARCHAR NOT NULL,
  metric VARCHAR,
  value JSON,
  comment TEXT,
  vars JSON NOT NULL,
  output TEXT NOT NULL,
  expected TEXT NOT NULL,
  flags JSON NOT NULL,
  status VARCHAR NOT NULL,
  decided_by VARCHAR,
  decided_at VARCHAR,
  reason TEXT,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (source, completion_id)
);
CREATE INDEX candidate_by_prompt ON candidate_example (prompt, status, created_at);
CREATE INDEX ix_candidate_example_completion_id ON candidate_example (completion_id);
CREATE TABLE dataset (
  digest VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  examples INTEGER NOT NULL,
  lineage JSON NOT NULL,
  content BLOB NOT NULL,
  message TEXT,
  created_by VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (digest)
);
CREATE INDEX ix_dataset_prompt ON dataset (prompt);
CREATE TABLE evidence (
  id VARCHAR NOT NULL,
  kind VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  verdict VARCHAR NOT NULL,
  candidate VARCHAR NOT NULL,
  content JSON NOT NULL,
  digest VARCHAR NOT NULL,
  actor VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX ix_evidence_prompt ON evidence (prompt);
CREATE TABLE feedback (
  id VARCHAR NOT NULL,
  completion_id VARCHAR NOT NULL,
  metric VARCHAR NOT NULL,
  value JSON,
  comment TEXT,
  correction TEXT,
  key_id VARCHAR NOT NULL,
  at VARCHAR NOT NULL,
  score FLOAT,
  PRIMARY KEY (id)
);
CREATE INDEX feedback_by_score ON feedback (metric, score);
CREATE INDEX feedback_by_time ON feedback (at);
CREATE INDEX feedback_on ON feedback (completion_id, metric, key_id);
CREATE TABLE file_chunk (
  file_id VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (file_id, number)
);
CREATE TABLE idempotency (
  principal VARCHAR NOT NULL,
  "key" VARCHAR NOT NULL,
  body_digest VARCHAR NOT NULL,
  answer JSON NOT NULL,
  at VARCHAR NOT NULL,
  PRIMARY KEY (principal, "key")
);
CREATE TABLE job (
  id VARCHAR NOT NULL,
  kind VARCHAR NOT NULL,
  spec JSON NOT NULL,
  status VARCHAR NOT NULL,
  attempt INTEGER NOT NULL,
  created_by VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  started_at VARCHAR,
  finished_at VARCHAR,
  worker VARCHAR,
  token INTEGER NOT NULL,
  heartbeat_at VARCHAR,
  cancel_requested BOOLEAN NOT NULL,
  result JSON,
  error TEXT,
  PRIMARY KEY (id)
);
CREATE INDEX job_by_status ON job (status, created_at);
CREATE TABLE judge_calibration (
  id VARCHAR NOT NULL,
  suite VARCHAR NOT NULL,
  "key" VARCHAR NOT NULL,
  suite_version INTEGER NOT NULL,
  suite_digest VARCHAR NOT NULL,
  grader JSON NOT NULL,
  figures JSON NOT NULL,
  labels_digest VARCHAR NOT NULL,
  actor VARCHAR NOT NULL,
  at VARCHAR NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX judge_calibration_by_grader ON judge_calibration (suite, "key");
CREATE TABLE label_move (
  id INTEGER NOT NULL,
  name VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  from_version INTEGER,
  to_version INTEGER,
  revision INTEGER NOT NULL,
  actor VARCHAR NOT NULL,
  reason VARCHAR,
  evidence_id VARCHAR,
  undoes INTEGER,
  at VARCHAR NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX ix_label_move_name ON label_move (name);
CREATE TABLE look (
  job_id VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  base_model VARCHAR NOT NULL,
  heldout_digest VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  at VARCHAR NOT NULL,
  PRIMARY KEY (job_id),
  UNIQUE (prompt, base_model, heldout_digest, number)
);
CREATE TABLE prompt (
  name VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (name)
);
CREATE TABLE request (
  seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  id VARCHAR NOT NULL,
  at VARCHAR NOT NULL,
  key_id VARCHAR NOT NULL,
  prompt VARCHAR,
  variant VARCHAR NOT NULL,
  route_revision INTEGER,
  status VARCHAR NOT NULL,
  latency_ms FLOAT NOT NULL,
  upstream_ms FLOAT,
  first_token_ms FLOAT,
  prompt_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  cost_usd FLOAT,
  error VARCHAR,
  unit VARCHAR,
  is_valid BOOLEAN,
  is_stream BOOLEAN NOT NULL,
  is_cached BOOLEAN NOT NULL,
  attempts INTEGER NOT NULL,
  shadow_of VARCHAR,
  trace_id VARCHAR,
  chosen VARCHAR,
  parent_span_id VARCHAR,
  is_sampled BOOLEAN NOT NULL,
  UNIQUE (id)
);
CREATE INDEX request_by_prompt ON request (prompt, at, seq);
CREATE INDEX request_by_route ON request (prompt, route_revision, seq) WHERE route_revision IS NOT NULL;
CREATE INDEX request_by_shadowed ON request (shadow_of) WHERE shadow_of IS NOT NULL;
CREATE INDEX request_by_time ON request (at, seq);
CREATE INDEX request_by_trace ON request (trace_id) WHERE trace_id IS NOT NULL;
CREATE TABLE request_body (
  id VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  variant VARCHAR NOT NULL,
  variables JSON NOT NULL,
  messages JSON,
  placeholders JSON,
  output TEXT NOT NULL,
  at VARCHAR NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX ix_request_body_at ON request_body (at);
CREATE INDEX ix_request_body_prompt ON request_body (prompt);
CREATE TABLE revision (
  id INTEGER NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (id)
);
CREATE TABLE route (
  prompt VARCHAR NOT NULL,
  revision INTEGER NOT NULL,
  salt VARCHAR NOT NULL,
  PRIMARY KEY (prompt)
);
CREATE TABLE route_revision (
  prompt VARCHAR NOT NULL,
  revision INTEGER NOT NULL,
  state JSON NOT NULL,
  action VARCHAR NOT NULL,
  actor VARCHAR NOT NULL,
  reason VARCHAR,
  evidence_id VARCHAR,
  at VARCHAR NOT NULL,
  PRIMARY KEY (prompt, revision)
);
CREATE TABLE run (
  id VARCHAR NOT NULL,
  suite VARCHAR NOT NULL,
  suite_version INTEGER NOT NULL,
  variant VARCHAR NOT NULL,
  status VARCHAR NOT NULL,
  summary JSON,
  started_at VARCHAR NOT NULL,
  finished_at VARCHAR,
  PRIMARY KEY (id)
);
CREATE INDEX ix_run_suite ON run (suite);
CREATE TABLE stored_file (
  id VARCHAR NOT NULL,
  purpose VARCHAR NOT NULL,
  filename VARCHAR NOT NULL,
  size_bytes INTEGER NOT NULL,
  digest VARCHAR NOT NULL,
  status VARCHAR NOT NULL,
  status_details TEXT,
  created_by VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  expires_at VARCHAR,
  PRIMARY KEY (id)
);
CREATE INDEX stored_file_by_time ON stored_file (created_at, id);
CREATE TABLE suite_cases (
  digest VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  cases BLOB NOT NULL,
  PRIMARY KEY (digest, number)
);
CREATE TABLE suite_version (
  id INTEGER NOT NULL,
  name VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  digest VARCHAR NOT NULL,
  prompt VARCHAR NOT NULL,
  content JSON NOT NULL,
  author VARCHAR NOT NULL,
  message VARCHAR,
  created_at VARCHAR NOT NULL,
  pushed_at VARCHAR,
  PRIMARY KEY (id),
  UNIQUE (name, number),
  UNIQUE (name, digest)
);
CREATE INDEX ix_suite_version_name ON suite_version (name);
CREATE TABLE tuned_model (
  name VARCHAR NOT NULL,
  job_id VARCHAR NOT NULL,
  adapter VARCHAR NOT NULL,
  base_model VARCHAR NOT NULL,
  step INTEGER,
  metrics JSON NOT NULL,
  created_by VARCHAR NOT NULL,
  created_at VARCHAR NOT NULL,
  PRIMARY KEY (name)
);
CREATE INDEX ix_tuned_model_job_id ON tuned_model (job_id);
CREATE TABLE case_result (
  run_id VARCHAR NOT NULL,
  case_id VARCHAR NOT NULL,
  repeat INTEGER NOT NULL,
  position INTEGER NOT NULL,
  status VARCHAR NOT NULL,
  result JSON NOT NULL,
  PRIMARY KEY (run_id, case_id, repeat),
  FOREIGN KEY(run_id) REFERENCES run (id)
);
CREATE TABLE job_event (
  job_id VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  at VARCHAR NOT NULL,
  type VARCHAR NOT NULL,
  data JSON NOT NULL,
  PRIMARY KEY (job_id, number),
  FOREIGN KEY(job_id) REFERENCES job (id)
);
CREATE TABLE label (
  name VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  version INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  updated_at VARCHAR NOT NULL,
  PRIMARY KEY (name, label),
  FOREIGN KEY(name) REFERENCES prompt (name)
);
CREATE TABLE prompt_summary (
  name VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  title VARCHAR,
  description TEXT,
  model VARCHAR NOT NULL,
  tags JSON NOT NULL,
  search_text TEXT NOT NULL,
  PRIMARY KEY (name),
  FOREIGN KEY(name) REFERENCES prompt (name)
);
CREATE INDEX ix_prompt_summary_model ON prompt_summary (model);
CREATE TABLE prompt_tag (
  name VARCHAR NOT NULL,
  tag VARCHAR NOT NULL,
  PRIMARY KEY (name, tag),
  FOREIGN KEY(name) REFERENCES prompt (name)
);
CREATE INDEX ix_prompt_tag_tag ON prompt_tag (tag);
CREATE TABLE prompt_version (
  id INTEGER NOT NULL,
  name VARCHAR NOT NULL,
  number INTEGER NOT NULL,
  digest VARCHAR NOT NULL,
  content JSON NOT NULL,
  about JSON NOT NULL,
  author VARCHAR NOT NULL,
  message VARCHAR,
  created_at VARCHAR NOT NULL,
  draft BOOLEAN NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (name, number),
  UNIQUE (name, digest),
  FOREIGN KEY(name) REFERENCES prompt (name)
);
CREATE INDEX ix_prompt_version_name ON prompt_version (name);
