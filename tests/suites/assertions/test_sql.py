import contextlib
import time

import pytest

from suites.assertions import AssertionErrored
from tests.suites.assertions.judging import errored, holds, judged, refused

ORDERS = {"databaseType": "PostgreSQL", "allowedTables": ["select::null::(orders|customers)", "update::null::orders"]}
NAMES = {"allowedColumns": ["select::null::name", "update::null::id"]}


@pytest.mark.parametrize(
    "answer",
    [
        "SELECT 1",
        "select a, b from `t` where a in (1, 2) order by b limit 5;",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 1) UNION (SELECT 2)",
        "INSERT INTO t (a) VALUES (1)",
        "INSERT INTO t SELECT * FROM u",
        "UPDATE t SET a = 1 WHERE b = 2",
        "DELETE FROM t WHERE a = 1",
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1",
    ],
)
def test_a_statement_is_sql(answer):
    assert holds("is-sql", answer)
    assert not holds("not-is-sql", answer)
    assert holds("contains-sql", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "", ";", "hello world", "SELECT", "SELECT * FORM t", "SELECT * FROM", "select * from t where", "Show me the money",
        "Use your head", "Set the table", "Drop it", "Create a plan", "Update the records", "Delete the file",
        "Insert coin", "I think so", "Sure: SELECT 1", "SELECT (1", "{\"a\": 1}", "SELECT 'open",
    ],
)  # fmt: skip
def test_what_no_database_would_run_is_not(answer):
    assert not holds("is-sql", answer)
    assert holds("not-is-sql", answer)


@pytest.mark.parametrize("fence", ["```sql\n{}\n```", "```\n{}\n```", "Here:\n```SQL\n{}\n```\nGood luck!"])
def test_sql_is_found_in_a_fenced_block(fence):
    assert holds("contains-sql", fence.format("SELECT a FROM t"))
    assert not holds("contains-sql", fence.format("SELECT a FROM"))
    assert not holds("is-sql", fence.format("SELECT a FROM t"))


@pytest.mark.parametrize(
    ("value", "right", "wrong"),
    [
        ({"databaseType": "TransactSQL"}, "SELECT TOP 5 a FROM t", "SELECT a FROM t LIMIT (5"),
        (ORDERS, "SELECT a FROM orders JOIN customers ON true", "SELECT a FROM payments"),
        (ORDERS, "UPDATE orders SET a = 1", "UPDATE customers SET a = 1"),
        (ORDERS, "WITH x AS (SELECT a FROM orders) SELECT a FROM x", "SELECT a FROM other.orders"),
        (ORDERS, "SELECT a FROM orders", "DELETE FROM orders"),
        (ORDERS, "SELECT a FROM Orders", "SELECT (SELECT b FROM payments) FROM orders"),
        (NAMES, "SELECT name FROM t", "SELECT id FROM t"),
        (NAMES, "UPDATE t SET id = 1", "UPDATE t SET name = 1"),
        (NAMES, "SELECT 1", "SELECT * FROM t"),
        ({"allowedColumns": ["select::t::a"]}, "SELECT x.a FROM t AS x", "SELECT x.b FROM t AS x"),
        ({"allowedColumns": ["select::t::a"]}, "SELECT a FROM t", "SELECT a FROM t JOIN u USING (k)"),
        ({"allowedColumns": ["delete::t::(.*)"]}, "DELETE FROM t", "INSERT INTO t VALUES (1)"),
        ({"allowedColumns": ["insert::t::a"]}, "INSERT INTO t (a) VALUES (1)", "INSERT INTO t (b) VALUES (1)"),
    ],
)
def test_dialects_and_lists_of_what_may_be_touched(value, right, wrong):
    assert holds("is-sql", right, value)
    assert not holds("is-sql", wrong, value)
    assert holds("not-is-sql", wrong, value)


READS = {"databaseType": "PostgreSQL", "allowedTables": ["select::null::users"]}


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("DROP TABLE users", "drop::null::users"),
        ("DROP TABLE users, orders", "drop::null::users"),
        ("SELECT 1; DROP TABLE users", "drop::null::users"),
        ("TRUNCATE users", "truncate::null::users"),
        ("GRANT SELECT ON users TO bob", "grant::null::users"),
        ("REVOKE ALL ON users FROM bob", "revoke::null::users"),
        ("ALTER TABLE users DROP COLUMN c", "alter::null::users"),
        ("CREATE INDEX i ON users (a)", "create::null::users"),
        ("CREATE TABLE users AS SELECT * FROM users", "create::null::users"),
        ("MERGE INTO users USING users AS u ON true WHEN MATCHED THEN DELETE", "merge::null::users"),
        ("WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x", "delete::null::users"),
        ("WITH users AS (DELETE FROM users RETURNING *) SELECT * FROM users", "delete::null::users"),
        ("WITH x AS (UPDATE users SET a = 1 RETURNING *) SELECT * FROM x", "update::null::users"),
        ("WITH x AS (INSERT INTO users (a) VALUES (1) RETURNING *) SELECT * FROM x", "insert::null::users"),
        ("SELECT a INTO users FROM users", "create::null::users"),
        ("SELECT a FROM users FOR UPDATE", "lock::null::users"),
        ("SELECT a FROM (SELECT a FROM users) AS x FOR UPDATE OF x", "lock::null::users"),
        ("WITH payments AS (SELECT * FROM payments) SELECT * FROM payments", "select::null::payments"),
        ("BEGIN", "transaction::null::null"),
        ("SET x = 1", "set::null::null"),
    ],
)
def test_a_list_of_what_may_be_read_lets_nothing_else_through(answer, named):
    assert f"({named} is not in allowedTables)" in judged("is-sql", answer, READS).reason
    assert not holds("contains-sql", answer, READS)
    assert holds("is-sql", answer, {**READS, "allowedTables": [".*::.*::.*"]})


@pytest.mark.parametrize("answer", ["CALL f()", "VACUUM users", "EXPLAIN ANALYZE DELETE FROM users", "DO $$ x $$"])
def test_a_command_that_cannot_be_looked_into_is_never_let_through(answer):
    assert not holds("is-sql", answer, {**READS, "allowedTables": [".*::.*::.*"]})


@pytest.mark.parametrize(
    "answer",
    [
        "SELECT count(*) FROM users",
        "WITH x AS (SELECT a FROM users), y AS (SELECT a FROM x) SELECT a FROM y JOIN x ON true",
        "WITH RECURSIVE x AS (SELECT a FROM users UNION ALL SELECT a FROM x) SELECT a FROM x",
        "SELECT 1",
    ],
)
def test_a_query_of_what_may_be_read_passes(answer):
    assert holds("is-sql", answer, READS)


@pytest.mark.parametrize(
    ("allowed", "answer"),
    [
        (["insert::null::t", "update::null::t"], "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2"),
        (["merge::null::t", "select::null::u"], "MERGE INTO t USING u ON true WHEN MATCHED THEN UPDATE SET a = 1"),
        (["update::null::t", "select::null::u"], "UPDATE t SET a = 1 FROM u"),
        (["delete::null::t", "select::null::u"], "DELETE FROM t USING u WHERE true"),
        (["insert::null::t", "select::null::u"], "INSERT INTO t SELECT a FROM u"),
    ],
)
def test_what_a_statement_writes_and_what_it_reads_are_both_asked_for(allowed, answer):
    assert holds("is-sql", answer, {"databaseType": "PostgreSQL", "allowedTables": allowed})
    for one in allowed:
        assert not holds("is-sql", answer, {"databaseType": "PostgreSQL", "allowedTables": [one]})


def test_columns_are_asked_for_by_what_is_done_to_them_and_count_uses_none():
    reads = {"databaseType": "PostgreSQL", "allowedColumns": ["select::users::name"]}
    assert holds("is-sql", "SELECT count(*) FROM users WHERE name = 'x'", reads)
    assert not holds("is-sql", "SELECT * FROM users", reads)
    for wrong in ("DROP TABLE users", "SELECT name INTO t FROM users", "SELECT name FROM users FOR UPDATE"):
        assert not holds("is-sql", wrong, reads)
    upsert = "INSERT INTO users (id) VALUES (1) ON CONFLICT (name) DO UPDATE SET id = 2"
    assert not holds("is-sql", upsert, {"allowedColumns": ["insert::users::id", "select::users::name"]})
    assert not holds("is-sql", "WITH x AS (DELETE FROM users RETURNING name) SELECT name FROM x", reads)


def test_the_reason_names_the_dialect_and_what_is_not_allowed():
    reason = judged("is-sql", "SELECT a FROM payments", ORDERS).reason
    assert "SQL of PostgreSQL (select::null::payments is not in allowedTables)" in reason


@pytest.mark.integration
@pytest.mark.parametrize(
    "answer",
    [
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
        "SELECT " + "(" * 50_000,
        "SELECT " + "CASE WHEN 1 THEN " * 3_000 + "1" + " END" * 3_000,
        "SELECT 1" + "+1" * 40_000,
        "SELECT " + "NOT " * 20_000 + "1",
        "SELECT * FROM " + "(SELECT * FROM " * 2_000 + "t" + ") a" * 2_000,
        "'" * 99_999,
        "/*" * 40_000,
        "```sql\n" * 10_000,
    ],
)
@pytest.mark.parametrize("kind", ["is-sql", pytest.param("contains-sql", marks=pytest.mark.integration)])
def test_deep_and_long_sql_ends_in_an_outcome_or_an_error_within_seconds(kind, answer):
    started = time.process_time()
    with contextlib.suppress(AssertionErrored):
        judged(kind, answer, ORDERS)
    assert time.process_time() - started < 30


def test_a_megabyte_is_not_parsed():
    assert "1,000,007 characters is not parsed" in errored("is-sql", "SELECT " + "1" * 1_000_000)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("MySQL", "takes databaseType, allowedTables, allowedColumns"),
        ({"dialect": "MySQL"}, "takes databaseType, allowedTables, allowedColumns"),
        ({"databaseType": "Cobol"}, "knows no database 'Cobol'"),
        ({"allowedTables": "t"}, "allowedTables is a list of patterns"),
        ({"allowedTables": ["t"]}, "'t' has not three parts"),
        ({"allowedColumns": ["a::(::b"]}, "no regular expression"),
    ],
)
def test_a_spec_that_could_not_be_judged_is_refused(value, message):
    assert message in refused(type="is-sql", value=value)[0]
