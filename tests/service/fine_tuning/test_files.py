"""Files of `/v1/files`: received piece by piece, looked through, kept, listed, given back and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from service.fine_tuning.files import Files, faults_in_words
from service.ids import new_id
from service.store import files as rows
from service.store.database import Database
from tests.service.conftest import AUTHOR, BOTH, Service, make_settings
from tests.service.fine_tuning.conftest import TWELVE, jsonl, line


def upload(service: Service, content: bytes, role: str = "author", purpose: str = "fine-tune", **fields: str) -> Any:
    form = {"purpose": purpose, **fields}
    return service.call("POST", "/v1/files", role, files={"file": ("../a/train.jsonl", content)}, data=form)


def test_a_file_is_given_back_byte_for_byte(service: Service) -> None:
    content = TWELVE + b" " * 3_000_000  # several chunks
    made = upload(service, content).json()

    assert (made["bytes"], made["filename"], made["status"]) == (len(content), "train.jsonl", "processed")
    assert service.call("GET", f"/v1/files/{made['id']}/content", "author").content == content
    assert service.call("GET", f"/v1/files/{made['id']}", "author").json() == made
    assert list((service.settings.home / "uploads").iterdir()) == []


def test_an_upload_to_a_full_disk_says_so_and_leaves_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, found: Iterable[object]) -> None:
        list(found)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.api.uploads._Form._take", full)
    answer = upload(service, TWELVE)

    folder = service.settings.home / "uploads"
    said = f"{folder}: No space left on device; nothing was written; free some space"
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, said)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TWELVE + b"[1]\n", "line 13: it is no JSON object"),
        (TWELVE + b'{"a": \n', "line 13: not JSON"),
        (jsonl(line("a", "b", tools=[{"type": "function"}])), "line 1: `tools`: what calls tools is not trained on here"),
        (jsonl({"messages": [{"role": "user", "content": "a"}]}), "line 1: the last message is the user's"),
        (jsonl({"prompt": "a", "completion": "b"}), "OpenAI's old form"),
        (jsonl({"input": {}, "preferred_output": [], "non_preferred_output": []}), "DPO"),
        (jsonl({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "`content` is not text"),
        (jsonl({"messages": [{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}]}), "the role 'tool'"),
        (jsonl({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}),
         "has the weight 1"),
        (TWELVE + b"[]\n" + b"{\xff\n", "line 13: it is no JSON object"),
        (TWELVE + b"{\xff\n", "line 13: it is not UTF-8 (invalid start byte at byte 2 of the line)"),
        (rb'{"messages": [{"role": "user", "content": "a\ud800"}, {"role": "assistant", "content": "b"}]}', "half of a pair"),
        (rb'{"messages": [{"role": "\u0000", "content": "a"}], "\ud800\u0000": 1}', "unknown key"),
    ],
)  # fmt: skip
def test_a_file_with_faults_names_their_lines(service: Service, content: bytes, said: str) -> None:
    made = upload(service, content).json()

    assert made["status"] == "error"
    assert said in made["status_details"]


def test_of_many_faults_the_first_are_told() -> None:
    from prompts.errors import Fault

    faults = [Fault("a", number, "bad", "mend it") for number in range(1, 31)]
    assert faults_in_words(faults).endswith("line 20: bad (mend it); and 10 more")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "user_data"}, "purpose"),
        ({"purpose": "batch"}, "purpose"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "5000"}, "expires_after[anchor]"),
        ({"other": "x"}, "other"),
    ],
)
def test_a_form_that_asks_for_something_else_is_refused_by_name(
    service: Service, fields: dict[str, str], param: str
) -> None:
    answer = upload(service, TWELVE, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{}", "application/json"),
        (b"--x\r\nnothing", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x--\r\n', "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
    ],
)  # fmt: skip
def test_what_is_no_whole_form_is_refused(service: Service, content: bytes, kind: str) -> None:
    answer = service.call("POST", "/v1/files", "author", content=content, headers={"content-type": kind})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_an_empty_file_is_refused(service: Service) -> None:
    assert upload(service, b"").json()["error"]["message"].startswith("file: it is empty")


def test_a_file_beyond_the_limit_is_refused_and_leaves_nothing(tmp_path: Any) -> None:
    settings = make_settings(tmp_path / "home", fine_tuning={"max_file_bytes": 2000}, server={"max_body_bytes": 1024})
    with Service(settings).running() as service:
        assert upload(service, TWELVE[:1200].rpartition(b"\n")[0]).status_code == 200
        answer = upload(service, TWELVE * 20)
        assert answer.status_code == 413
        assert "fine_tuning.max_file_bytes" in answer.json()["error"]["message"]
        assert len(service.call("GET", "/v1/files", "author").json()["data"]) == 1


def test_files_are_listed_by_page_in_either_order(service: Service) -> None:
    ids = [upload(service, TWELVE).json()["id"] for _ in range(3)]

    def listed(**query: Any) -> tuple[list[str], bool]:
        page = service.call("GET", "/v1/files", "author", params=query).json()
        return [one["id"] for one in page["data"]], page["has_more"]

    assert listed()[0][:3] == ids[::-1]
    assert listed(limit=2) == (ids[:0:-1], True)
    assert listed(limit=1, after=ids[1])[0] == [ids[0]]
    assert listed(order="asc", after=ids[0]) == (ids[1:], False)
    assert not set(ids) & set(listed(purpose="fine-tune-results")[0])
    assert service.call("GET", "/v1/files?after=file-0", "author").status_code == 404


def test_a_deleted_file_is_gone_and_anothers_is_an_admins_to_delete(service: Service) -> None:
    file_id = upload(service, TWELVE).json()["id"]

    assert service.call("DELETE", f"/v1/files/{file_id}", "ci").status_code == 403
    assert service.call("DELETE", f"/v1/files/{file_id}", "author").json() == {
        "id": file_id, "object": "file", "deleted": True,
    }  # fmt: skip
    answer = service.call("GET", f"/v1/files/{file_id}/content", "author")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_file")


def test_a_file_lives_as_long_as_was_asked(service: Service) -> None:
    made = upload(service, TWELVE, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}).json()

    assert made["expires_at"] - made["created_at"] in (3599, 3600)


@BOTH
def test_an_expired_file_is_seen_no_more_and_forgotten(database: Database) -> None:
    record = {"id": "file-old", "purpose": "fine-tune", "filename": "a", "size_bytes": 3, "digest": "sha256:0"}
    record |= {"created_by": AUTHOR.id, "created_at": "2026-01-01", "expires_at": "2026-01-02"}
    with database.write() as session:
        rows.begin(session, record)
        rows.add_chunk(session, "file-old", 0, b"abc")
        rows.add_chunk(session, "file-old", 0, b"again")
        assert rows.get(session, "file-old", "2026-01-01") is None  # not whole yet
        rows.complete(session, "file-old", status="processed", status_details=None)
        assert rows.chunk(session, "file-old", 0) == b"abc"
        assert [rows.get(session, "file-old", at) is None for at in ("2026-01-01", "2026-01-03")] == [False, True]
        assert rows.stale(session, "2026-01-03", "2025-01-01") == ["file-old"]
        rows.remove(session, "file-old")
        assert rows.chunk(session, "file-old", 0) is None


@BOTH
def test_pages_follow_each_other_where_times_are_equal(database: Database) -> None:
    with database.write() as session:
        for name in ("file-a", "file-b", "file-c"):
            record = {
                "id": name,
                "purpose": "fine-tune",
                "filename": "a",
                "size_bytes": 3,
                "digest": "",
                "created_by": "k",
            }
            rows.begin(session, {**record, "created_at": "2026-01-01"})
            rows.complete(session, name, status="processed")
        after = rows.get(session, "file-b", "2026-01-02")
        for newest_first, expected in ((True, ["file-a"]), (False, ["file-c"])):
            found = rows.page(
                session, "2026-01-02", after=after, limit=5, newest_first=newest_first, purpose="fine-tune"
            )
            assert [one["id"] for one in found] == expected


def test_what_a_job_gives_is_kept_once(service: Service) -> None:
    kept = Files(service.context.database)
    file_id = f"file-{new_id('x').partition('_')[2]}results"
    for _ in range(2):
        kept.keep_result(file_id, "step_metrics.csv", b"abc", AUTHOR)

    assert b"".join(kept.content(file_id)) == b"abc"
    assert json.loads(service.call("GET", f"/v1/files/{file_id}", "author").text)["purpose"] == "fine-tune-results"
