from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from finetune import adapter as folders
from service.adapters import card, engines, naming
from service.adapters.registry import RETENTION, Adapters
from service.adapters.retention import Held, due
from service.app import _prune_adapters
from service.errors import Conflict, NotFound
from service.ids import ago
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from tests.service import adapter_histories as made
from tests.service.conftest import BOTH, Service, make_settings

OLD = "2020-01-01T00:00:00.000000+00:00"
SECRET = "the customer's telephone is 555-0199"


@pytest.fixture(autouse=True)
def _pruned_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service prunes as it starts: what a test has just put there might be gone, or not."""
    monkeypatch.setattr("service.app._prune_adapters", lambda context: None)


@pytest.fixture
def adapters(database: Database, tmp_path: Path) -> Adapters:
    settings = make_settings(tmp_path / "home", retention={"adapters_kept": 0})
    return Adapters(database, settings)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "home" / "adapters"


# ------------------------------------------------------------------------------------------------ who is named


NAMED_BY: dict[str, Any] = {
    "a share": lambda session: made.revise(session, made.shares("one", None)),
    "an earlier revision": lambda session: [
        made.revise(session, made.shares("one")),
        made.revise(session, made.shares(None)),
    ],
    "an undone revision": lambda session: [
        made.revise(session, made.shares("one")),
        made.revise(session, {**made.shares(None), "undone": 1, "restored": 1}, action="undo"),
    ],
    "a fallback": lambda session: made.revise(session, {**made.shares(None), "fallbacks": [made.variant("one")]}),
    "a shadow": lambda session: made.revise(session, {**made.shares(None), "shadows": [made.variant("one")]}),
    "a plan": lambda session: made.revise(
        session, {**made.shares(None), "schedule": [{"at": "2027", **made.shares("one")}]}
    ),
    "a rollout": lambda session: made.revise(
        session, {**made.shares(None), "rollout": {"candidate": made.variant("one"), "incumbent": None}}
    ),
    "another prompt's route": lambda session: made.revise(
        session, {"variants": [{"variant": "other.prompt@3+model-a+one", "percent": 100}]}, prompt="other.prompt"
    ),
    "evidence of a promotion": lambda session: made.evidence(session, 1, "one", None, "pass"),
    "evidence that beat it": lambda session: made.evidence(session, 1, "two", "one", "fail"),
    "evidence by hand": lambda session: made.evidence(session, 1, "one", None, "manual", "manual"),
    "its own job": lambda session: made.job(session, "job_0", "running"),
    "a job on it": lambda session: made.job(session, "job_9", "queued", {"variant": made.variant("one")}),
}


@BOTH
@pytest.mark.parametrize("who", NAMED_BY)
def test_what_anybody_names_is_neither_pruned_nor_removed(
    adapters: Adapters, database: Database, shelf: Path, who: str
):
    with database.write() as session:
        made.add(session, shelf, "one", OLD)
        made.add(session, shelf, "two", OLD, job_id="job_1", number=2)
        NAMED_BY[who](session)
    assert "one" not in {gone["name"] for gone in adapters.prune()}
    with pytest.raises(Conflict, match="adapter 'one' is named by"):
        adapters.remove("one", RETENTION)
    assert "one" in made.names(database)
    assert folders.is_complete(shelf / "one")


# where trainings leave it
COPIES = ("attempt-1/training/adapter", "training/adapter", "training/snapshots/step-00000004")


def copy_of(adapters: Adapters, place: str, name: str, job_id: str = "job_0") -> Path:
    """What a training leaves in its job's folder."""
    folder = adapters._settings.home / "jobs" / job_id / place
    made.install(folder.parent, name)
    return (folder.parent / name).rename(folder)


@BOTH
def test_a_rejected_adapter_goes_with_its_files_and_the_audit_log_says_so(
    adapters: Adapters, database: Database, shelf: Path
):
    with database.write() as session:
        made.job(session, "job_0", "succeeded")
        made.add(session, shelf, "one", OLD)
        made.evidence(session, 1, "one", None, "inconclusive")  # it holds without the adapter
    copies = [copy_of(adapters, place, "one") for place in COPIES]
    other = copy_of(adapters, "attempt-2/training/adapter", "one-2")  # of the same weights, and not this one
    assert [gone["name"] for gone in adapters.prune(dry_run=True)] == ["one"]
    assert folders.is_complete(shelf / "one")
    assert [gone["name"] for gone in adapters.prune()] == ["one"]
    assert not (shelf / "one").exists()
    assert not any(copy.exists() for copy in copies)
    assert folders.is_complete(other)
    with database.read() as session:
        [(subject, actor)] = session.rows("SELECT subject, actor FROM audit WHERE action = 'adapter.remove'")
    assert (subject, actor) == ("one", "retention")
    assert adapters.prune() == []


@pytest.mark.parametrize("kind", ["sqlite"])
def test_adapters_of_an_advice_that_was_given_are_swept_and_those_of_one_that_may_go_on_stay(
    adapters: Adapters, database: Database
):
    places = ("lora/training/adapter", "few-shot+lora/training/adapter")
    kept: dict[str, list[Path]] = {}
    with database.write() as session:
        for status in ("succeeded", "cancelled"):
            record = {"id": f"job_{status}", "kind": "advice", "spec": {}, "status": status, "created_by": "a"}
            jobs.add(session, {**record, "created_at": "2026"})
            kept[status] = [copy_of(adapters, place, "advice-1", f"job_{status}") for place in places]
    adapters.prune()

    assert not any(copy.exists() for copy in kept["succeeded"])
    assert all(map(folders.is_complete, kept["cancelled"]))


@pytest.mark.parametrize("kind", ["sqlite"])
def test_what_a_running_engine_has_loaded_stays(
    adapters: Adapters, database: Database, shelf: Path, monkeypatch: pytest.MonkeyPatch
):
    with database.write() as session:
        made.add(session, shelf, "one", OLD)
    monkeypatch.setattr(engines, "loaded", lambda _: frozenset({"one"}))
    assert adapters.prune() == []
    with pytest.raises(Conflict, match="a running engine"):
        adapters.remove("one", RETENTION)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_files_of_one_whose_removal_was_killed_go_later(adapters: Adapters, database: Database, shelf: Path):
    import os

    with database.write() as session:
        made.add(session, shelf, "one", OLD)
    adapters.remove("one", RETENTION)
    made.install(shelf, "one")  # as if the process had died before its files went
    made.install(shelf, "by-hand")
    for name in ("one", "by-hand"):
        os.utime(shelf / name, (0, 0))
    adapters.prune()
    assert sorted(path.name for path in shelf.iterdir()) == ["by-hand"]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_route_cannot_be_given_to_an_adapter_that_went(adapters: Adapters, database: Database, shelf: Path):
    with pytest.raises(NotFound, match="no adapter 'gone'"):
        adapters.remove("gone", RETENTION)


# ------------------------------------------------------------------------------------------------ the policy


ADAPTERS = st.lists(
    st.builds(Held, st.sampled_from("abcdefghij"), st.sampled_from("pq"), st.sampled_from("123456789")),
    unique_by=lambda held: held.name,
    max_size=10,
)


@given(ADAPTERS, st.sets(st.sampled_from("abcdefghij")), st.integers(0, 4), st.sampled_from("123456789"))
def test_the_policy_spares_what_is_named_young_or_newest(held: list[Held], named: set[str], kept: int, before: str):
    gone = {one.name for one in due(held, named, kept, before)}
    assert not gone & named
    for prompt in "pq":
        free = sorted(
            (one for one in held if one.prompt == prompt and one.name not in named),
            key=lambda one: (one.created_at, one.name),
        )
        old = [one.name for one in free[: len(free) - kept] if one.created_at < before] if len(free) > kept else []
        assert gone & {one.name for one in free} == set(old)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), st.integers(0, 5), st.booleans()),
        st.tuples(
            st.just("route"), st.integers(0, 5), st.sampled_from(["variants", "fallbacks", "shadows", "rollout"])
        ),
        st.tuples(st.just("leave"), st.just(0), st.just(0)),
        st.tuples(st.just("judge"), st.integers(0, 5), st.sampled_from(["pass", "fail", "inconclusive"])),
        st.tuples(st.just("job"), st.integers(0, 5), st.sampled_from(["queued", "succeeded"])),
        st.tuples(st.just("prune"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


@pytest.fixture(scope="module")
def one_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('histories') / 'turnout.db'}")
    database.migrate()
    yield database
    database.close()


@example_settings(max_examples=25)
@given(steps=STEPS)
def test_no_history_loses_an_adapter_that_is_named(
    one_database: Database, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, Any]]
):
    home = tmp_path_factory.mktemp("home")
    with one_database.write() as session:
        for table in ("adapter", "route", "route_revision", "evidence", "job", "audit"):
            session.run(f"DELETE FROM {table}")  # noqa: S608 - names of ours
    adapters = Adapters(one_database, make_settings(home, retention={"adapters_kept": 0}))
    needed: set[str] = set()
    for number, (what, which, how) in enumerate(steps):
        name = f"a{which}"
        if what == "prune":
            adapters.prune()
        else:
            _step(one_database, home / "adapters", needed, number, what, name, how)
        assert needed <= made.names(one_database)
        assert all(folders.is_complete(home / "adapters" / one) for one in needed)


def _step(database: Database, shelf: Path, needed: set[str], number: int, what: str, name: str, how: Any) -> None:
    """One thing that may happen to an adapter that is there; `needed` grows by what names it, for good or for a while."""
    with database.write() as session:
        is_there = name in {row[0] for row in session.rows("SELECT name FROM adapter")}
        if what == "train" and not is_there:
            made.add(session, shelf, name, OLD if how else ago(0), job_id=f"job_{name}")
            if not how:
                needed.add(name)  # young
        elif what == "leave":
            made.revise(session, made.shares(None))
        elif what == "route" and is_there:
            others = {"variants": {}, "rollout": {"rollout": {"candidate": made.variant(name), "incumbent": None}}}
            state = made.shares(name) if how == "variants" else made.shares(None)
            made.revise(session, {**state, **others.get(how, {how: [made.variant(name)]})})
            needed.add(name)
        elif what == "judge" and is_there:
            made.evidence(session, number, name, None, how)
            needed |= {name} if how == "pass" else set()
        elif what == "job" and is_there and jobs.get(session, f"job_{name}") is None:
            made.job(session, f"job_{name}", how)
            needed |= {name} if how == "queued" else set()


# ------------------------------------------------------------------------------------------------ over HTTP


@pytest.fixture
def registered(service: Service) -> Service:
    """A service with the adapter `one`, which was compared and has the traffic."""
    settings = service.settings
    with service.context.database.write() as session:
        made.job(session, "job_0", "succeeded")
        made.add(session, settings.adapters_dir, "one", OLD)
        jobs.add_event(
            session, "job_0", "planned", {"examples": {"given": 120, "kept": 110}, "dev": 20, "x": SECRET}, OLD
        )
        jobs.add_event(session, "job_0", "adapter", {"attempt": 1, "name": "one"}, OLD)
        jobs.add_event(session, "job_0", "dev", {"attempt": 1, "total": 20, "before": 8, "after": 17}, OLD)
        made.evidence(session, 1, "one", None, "pass")
        made.revise(session, made.shares("one"))
    return service


def test_an_adapter_is_shown_with_all_that_it_rests_on(registered: Service):
    shown = registered.call("GET", "/api/adapters/one", "author").json()
    assert shown["data"] == {"digest": "sha256:" + "d" * 64, "kept_digest": None, "given": 120, "train": 100, "dev": 20,
                             "kept": 110}  # fmt: skip
    assert (shown["dev"]["before"], shown["dev"]["after"], shown["dev"]["total"]) == (8, 17, 20)
    assert shown["dev"]["after_ci95"] == pytest.approx([0.6396, 0.9476], abs=1e-3)
    assert (shown["heldout"]["evidence_id"], shown["heldout"]["pass_rate"]) == ("ev_1", 0.9)
    assert shown["named_by"] == ["route support.triage revision 1, the current one", "evidence ev_1 (promotion, pass)"]
    assert shown["is_here"]
    [listed] = registered.call("GET", "/api/adapters", "author", params={"prompt": "support.triage"}).json()
    assert (listed["name"], listed["size_bytes"]) == ("one", shown["size_bytes"])


def test_a_card_is_of_the_hubs_form_and_holds_no_example(registered: Service):
    answer = registered.call("GET", "/api/adapters/one/card", "author")
    assert answer.headers["content-type"].startswith("text/markdown")
    _, matter, text = answer.text.split("---\n", 2)
    about = yaml.safe_load(matter)
    assert (about["license"], about["library_name"], about["pipeline_tag"]) == ("apache-2.0", "peft", "text-generation")
    assert about["base_model"] == "tiny"
    metrics = [result["metrics"][0] for result in about["model-index"][0]["results"]]
    assert metrics == [{"type": "exact_match", "value": 0.85}, {"type": "pass_rate", "value": 0.9}]
    assert "| held-out, passed | 50.0% | 90.0% (80.0 to 95.0) | 60 cases, 2 mended, 1 broken, p 0.001, look 1 |" in text
    assert SECRET not in answer.text
    assert str(registered.settings.home) not in answer.text


def test_the_files_come_as_a_tar_that_verifies(registered: Service, tmp_path: Path):
    answer = registered.call("GET", "/api/adapters/one/export", "author")
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as held:
        assert held.getnames() == [
            "README.md", "adapter_config.json", "adapter_model.safetensors", "turnout-adapter.json"
        ]  # fmt: skip
        held.extractall(tmp_path / "out", filter="data")
    assert folders.verify(tmp_path / "out").name == "one"
    assert "# one" in (tmp_path / "out" / folders.CARD).read_text()


def test_only_what_nobody_names_is_deleted_and_only_by_admins(registered: Service):
    refused = registered.call("DELETE", "/api/adapters/one")
    assert refused.status_code == 409
    assert "route support.triage revision 1" in refused.json()["detail"]
    with registered.context.database.write() as session:
        made.add(session, registered.settings.adapters_dir, "two", OLD, number=2)
    assert registered.call("DELETE", "/api/adapters/two", "author").status_code == 403
    assert registered.call("DELETE", "/api/adapters/two").json()["name"] == "two"
    assert registered.call("GET", "/api/adapters/two").status_code == 404


def test_pruning_can_be_tried(service: Service):
    with service.context.database.write() as session:
        for number in range(7):
            made.add(session, service.settings.adapters_dir, f"a{number}", f"2020-01-0{number + 1}", number=number)
    tried = service.call("POST", "/api/adapters/prune", json={"dry_run": True}).json()
    assert [gone["name"] for gone in tried] == ["a0", "a1"]  # five of a prompt stay
    assert service.call("POST", "/api/adapters/prune").json() == tried
    assert made.names(service.context.database) == {"a2", "a3", "a4", "a5", "a6"}


def test_a_service_prunes_by_itself(service: Service):
    with service.context.database.write() as session:
        for number in range(6):
            made.add(session, service.settings.adapters_dir, f"a{number}", f"2020-01-0{number + 1}", number=number)
    _prune_adapters(service.context)
    assert made.names(service.context.database) == {"a1", "a2", "a3", "a4", "a5"}


def test_names_that_are_no_adapter_are_not_found(service: Service):
    for name in ("..", "%2e%2e%2fadmin.key", "no-such"):
        assert service.call("GET", f"/api/adapters/{name}/export").status_code in (400, 404)


# ------------------------------------------------------------------------------------------------ parts


def test_variants_are_found_wherever_they_stand():
    state = {"a": ["x@1+m+one", {"b": "y@22+m/n:1+two"}], "c": "z@3+m", "d": "1+1+1", "x@1+m+key": 1}
    assert naming.adapters_in(state) == {"one", "two", "key"}


def test_engines_that_do_not_answer_have_loaded_nothing(settings: Settings):
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "engine-a.json").write_text('{"base_url": "http://127.0.0.1:9", "token": "t"}')
    (settings.run_dir / "engine-b.json").write_text("torn")
    assert engines.loaded(settings) == frozenset()


def test_a_card_without_comparison_says_so():
    facts: dict[str, Any] = {
        "name": "ft-1",
        "prompt": "",
        "version": 0,
        "digest": "sha256:1",
        "job_id": "j",
        "created_at": "t",
    }
    facts |= {
        "base": {"name": "tiny", "digest": "sha256:2"},
        "lineage": {},
        "recipe": {},
        "code_version": "",
        "dev": None,
    }
    facts |= {"heldout": None, "training": {"dev_loss": 0.5, "steps": None}, "data": {"digest": None}}
    text = card.render(facts)
    assert "No comparison was made. In training: dev loss 0.5." in text
    assert "It was trained, and not yet judged," in text
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "tiny"
    assert "--max-lora-rank 16 --lora-modules ft-1=." in text
    merged, gguf = (card.render(facts, "org/tiny", form) for form in ("merged", "gguf"))
    assert "org/tiny with a LoRA adapter merged into it" in merged
    assert "PeftModel" not in merged
    assert "vllm serve . --served-model-name ft-1" in merged
    assert "llama-server -m model.gguf --jinja\nollama create ft-1 -f Modelfile" in gguf
    assert yaml.safe_load(gguf.split("---\n")[1])["base_model_relation"] == "quantized"


@pytest.mark.parametrize(("rank", "told"), [(4, 8), (16, 16), (33, 64), (256, 256)])
def test_vllm_is_told_a_rank_that_it_takes(rank: int, told: int):
    assert card.vllm_rank({"rank": rank}) == told
