"""A training asks the engines of its home for memory; here they are servers that only count who asks."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import JobSpec, Measured, Recipe, Row, make_plan, read_shape, write_spec
from prompts.errors import BadInput
from service import training
from service.engine_shares import Share, on_device, shared
from service.fine_tuning import planning
from service.fine_tuning.material import Data
from service.fine_tuning.request import CreateJob, spec_of
from service.identity import Principal
from service.store.database import Database
from service.tuning.claim import Claim
from tests.service.conftest import make_settings

GIB = 1 << 30


class _Engine(BaseHTTPRequestHandler):
    open = 0

    def do_GET(self) -> None:  # the name that http.server calls
        right = self.headers["Authorization"] == "Bearer secret" and self.path == "/share"
        self.send_response(200 if right else 404)
        self.end_headers()
        if not right:
            return
        told = {"device": "cuda:0", "weights_bytes": 3 * GIB, "given_back_bytes": 5 * GIB}
        self.wfile.write(json.dumps(told).encode() + b"\n")
        type(self).open += 1
        self.connection.recv(1)  # nothing comes, until the other end is closed
        type(self).open -= 1

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """An engine on a GPU, one of another token, and one that is gone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Engine) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state: dict[str, Any] = {"base_url": f"http://127.0.0.1:{server.server_port}", "token": "secret"}
        (tmp_path / "engine-large.json").write_text(json.dumps(state))
        (tmp_path / "engine-other.json").write_text(json.dumps({**state, "token": "wrong"}))
        (tmp_path / "engine-gone.json").write_text(json.dumps({**state, "base_url": "http://127.0.0.1:9"}))
        yield tmp_path
        server.shutdown()
        thread.join()


def test_an_engine_shares_for_as_long_as_the_training_lasts(run_dir: Path) -> None:
    with shared(run_dir, "auto") as shares:
        assert shares[0] == Share("large", "cuda:0", 3 * GIB, 5 * GIB)
        assert str(shares[0]) == (
            "shared with the engine of 'large' on cuda:0: 3.00 GiB of weights stay, 5.00 GiB of its reserve are given back"
            " while the training runs"
        )
        until_open(1)
    until_open(0)


def until_open(count: int) -> None:
    end = time.monotonic() + 5
    while _Engine.open != count:
        assert time.monotonic() < end, f"{_Engine.open} are open"
        time.sleep(0.005)


def test_one_that_does_not_give_is_told_and_one_that_is_gone_is_not(run_dir: Path) -> None:
    with shared(run_dir, "cuda") as shares:
        assert [share.model for share in shares] == ["large", "other"]
        assert "keeps its memory" in str(shares[1])
        assert "404" in str(shares[1])


def test_an_engine_on_another_device_is_none_of_the_plan(run_dir: Path) -> None:
    with shared(run_dir, "cpu") as shares:
        assert [share.model for share in shares] == ["other"]  # nobody knows where it is
        until_open(0)  # it has its reserve again
    assert on_device([Share("large", "cuda:0")], "cuda:0") == [Share("large", "cuda:0")]
    assert on_device([Share("large", "cuda:0")], "cpu") == []


def test_a_home_without_engines_shares_nothing(tmp_path: Path) -> None:
    with shared(tmp_path / "none", "auto") as shares:
        assert list(shares) == []


# ------------------------------------------------------------------------------------------------ whoever it is that trains


MEASURED = Measured(
    device="cuda:0", precision="bfloat16", load_s=2.0, step_s=0.5, largest_step_s=1.0, row_s=0.1, score_row_s=0.02,
    tokens_per_s=400.0, peak_bytes=10**9, free_bytes=10**10, pack_tokens=4096, four_bit=True,
    decisions=("4 bits: the weights are too large",),
)  # fmt: skip
ROW = Row(messages=({"role": "user", "content": "hi"},), answer="ok")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """As much of a model as its plan is made from: the names and shapes of its weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 64, "hidden_size": 256, "num_hidden_layers": 1}))
    (folder / "tokenizer.json").write_text("{}")
    shapes = {"model.embed_tokens.weight": (64, 256), "model.layers.0.self_attn.q_proj.weight": (256, 256)}
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at := at + 2 * shape[0] * shape[1]]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return folder


@pytest.fixture
def open_while(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The training process, played: how many engines shared their memory while it ran."""
    found: list[int] = []

    def run_once(folder: Path, options: tuple[str, ...], *_: Any) -> int:
        until_open(1)
        found.append(_Engine.open)
        (folder / "measured.json").write_text(MEASURED.model_dump_json())
        (folder / "training").mkdir(exist_ok=True)
        (folder / "training" / "events.jsonl").write_text('{"type": "finished"}\n')
        return 0

    monkeypatch.setattr(training, "_run_once", run_once)
    return found


def spec_in(folder: Path, base: Path) -> JobSpec:
    spec = JobSpec(job_id="job_1", base_folder=base, output_dir=folder / "training", train=(ROW,) * 8)
    write_spec(spec, folder / "spec.json")
    return spec


def test_engines_share_with_every_training_and_every_trial_of_one(
    run_dir: Path, base: Path, tmp_path: Path, open_while: list[int]
) -> None:
    spec_in(tmp_path / "job", base)
    measured, engines = training.measure(tmp_path / "job", run_dir, lambda: None)
    ended = training.train(tmp_path / "job", run_dir, lambda *_, **__: None, lambda: None, 0)

    assert open_while == [1, 1]
    until_open(0)
    assert (measured, ended) == (MEASURED, {"type": "finished"})
    assert [share.model for share in engines] == ["large", "other"]


@pytest.mark.parametrize(("told", "param"), [("model", "model"), ("rows", "examples")])
def test_what_is_refused_says_whether_the_model_or_the_rows_are_at_fault(
    run_dir: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, param: str
) -> None:
    spec_in(tmp_path / "job", base)

    def run_once(folder: Path, *_: Any) -> int:
        (folder / "training").mkdir(exist_ok=True)
        (folder / "training.log").write_text("")
        event = {"type": "refused", "reasons": ["no"], "param": told}
        (folder / "training" / "events.jsonl").write_text(json.dumps(event) + "\n")
        return training.EXIT_REFUSED

    monkeypatch.setattr(training, "_run_once", run_once)
    with pytest.raises(BadInput, match="no") as refused:
        training.measure(tmp_path / "job", run_dir, lambda: None)
    ended = training.train(tmp_path / "job", run_dir, lambda *_, **__: None, lambda: None, 0)
    assert refused.value.param == param
    assert ended == {"type": "refused", "reasons": ["no"], "param": param}


def test_a_plan_has_the_figures_of_the_device_that_was_tried_and_the_engines_that_made_room(base: Path) -> None:
    spec = JobSpec(job_id="job_1", base_folder=base, output_dir=base, train=(ROW,) * 8, four_bit=True)
    told = training.figures(spec, MEASURED, [Share("large", "cuda:0", 3 * GIB, 5 * GIB)], MEASURED.decisions)

    ways: dict[str, Any] = {"on_cuda": True, "four_bit": True}
    assert told["plan"] == make_plan(read_shape(base), spec.recipe, spec.train, **ways).model_dump()
    assert told["plan"] != make_plan(read_shape(base), spec.recipe, spec.train, on_cuda=False).model_dump()
    assert told["engines"][0]["given_back_bytes"] == 5 * GIB
    assert [line.partition(" ")[0] for line in told["decisions"]] == ["4", "shared"]


def test_a_job_of_openais_api_is_planned_with_the_engines_memory_and_the_figures_of_its_device(
    run_dir: Path, base: Path, tmp_path: Path, open_while: list[int]
) -> None:
    settings = make_settings(tmp_path / "home", models={"small": {"engine": "local", "source": f"path:{base}"}})
    settings.run_dir.parent.mkdir(parents=True)
    settings.run_dir.symlink_to(run_dir)
    claim = Claim("job_1", 1, Principal("a", "admin"), Database(settings.database_url), settings, threading.Event())
    asked = CreateJob.model_validate({"training_file": "file-1", "model": "small", "hyperparameters": {"n_epochs": 2}})
    spec = spec_of(settings, asked)
    data = Data((ROW,) * 8, (ROW,), 9, 0, "sha256:0", {"train": [], "dev": []})
    planned = planning.plan(claim, spec, data)

    assert open_while == [1]
    assert [one["model"] for one in planned["engines"]] == ["large", "other"]
    recipe = Recipe.model_validate(planned["recipe"])
    on_a_gpu = make_plan(read_shape(base), recipe, data.train, on_cuda=True, four_bit=True)
    assert planned["plan"] == on_a_gpu.model_dump()
    assert planned["hyperparameters"]["n_epochs"] == 2
