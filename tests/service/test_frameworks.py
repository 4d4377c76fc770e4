"""LangChain's and LlamaIndex's OpenAI classes as they are, with a prompt for a model. Run where they are installed."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from tests.service.conftest import triage
from tests.service.protocol import CALL, CALL_CHUNKS, Scripted, replies, scripted
from tests.service.upstreams import answers, chunks_of, streams

VARIABLES = {"variables": {"ticket": "I was charged twice"}}
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend


class Person(pydantic.BaseModel):
    """Who was meant."""

    name: str
    age: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    if not any(importlib.util.find_spec(name) for name in ("langchain_openai", "llama_index")):
        pytest.skip("neither LangChain's nor LlamaIndex's OpenAI classes are installed")
    with scripted(tmp_path_factory.mktemp("home")) as server:
        server.push("support.triage", triage(model="up"))
        server.produce("support.triage", 1)
        yield server


@pytest.fixture(autouse=True)
def _connections_are_collected() -> Iterator[None]:
    """They leave theirs open: what that warns of belongs to the test that opened them."""
    yield
    gc.collect()


# ---------------------------------------------------------------------------- LangChain


def chat_openai(server: Scripted, model: str, **more: Any) -> Any:
    langchain = pytest.importorskip("langchain_openai")
    return langchain.ChatOpenAI(
        model=model, base_url=f"{server.url}/v1", api_key=server.keys["app"], max_retries=0, **more
    )


def test_langchain_asks_a_prompt_with_its_variables(server: Scripted) -> None:
    server.script()
    found = chat_openai(server, "support.triage", extra_body=VARIABLES).invoke([("user", "and again")])

    assert found.content == "billing"
    assert found.response_metadata["model_name"] == "support.triage@1+up"
    assert found.usage_metadata["total_tokens"] == 11
    assert [message["role"] for message in server.asked[0]["messages"]] == ["system", "user", "user"]


def test_langchain_streams(server: Scripted) -> None:
    server.script(answers("one two three"))
    chunks = list(chat_openai(server, "up", stream_usage=True).stream("hello"))

    assert "".join(chunk.content for chunk in chunks) == "onetwothree"
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) == 12


def test_langchain_asks_and_streams_asynchronously(server: Scripted) -> None:
    async def ask() -> tuple[str, str]:
        model = chat_openai(server, "up")
        whole = (await model.ainvoke("hello")).content
        return whole, "".join([chunk.content async for chunk in model.astream("hello")])

    server.script(answers("whole"), answers("bit by bit"))
    assert asyncio.run(ask()) == ("whole", "bitbybit")


@pytest.mark.parametrize("is_stream", [False, True])
def test_langchain_calls_tools(server: Scripted, is_stream: bool) -> None:
    model = chat_openai(server, "up").bind_tools([Person])
    if is_stream:
        server.script(streams(CALL_CHUNKS))
        pieces = list(model.stream("who?"))
        found = pieces[0]
        for piece in pieces[1:]:
            found += piece
    else:
        server.script(replies({"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"))
        found = model.invoke("who?")

    (call,) = found.tool_calls
    assert (call["name"], call["args"], call["id"]) == ("look_up", {"order": 7}, "call_1")
    assert server.asked[0]["tools"][0]["function"]["name"] == "Person"


def test_langchain_parses_a_structured_output(server: Scripted) -> None:
    server.script(replies({"content": '{"name": "Ada", "age": 36}'}))
    assert chat_openai(server, "up").with_structured_output(Person).invoke("who?") == Person(name="Ada", age=36)


@pytest.mark.parametrize("is_stream", [False, True])
def test_langchain_uses_the_responses_api(server: Scripted, is_stream: bool) -> None:
    model = chat_openai(server, "up", use_responses_api=True)
    if is_stream:
        server.script(streams(chunks_of("one ", "two")))
        text = "".join(str(chunk.text) for chunk in model.stream("hello"))
    else:
        server.script(answers("one two"))
        text = str(model.invoke([("system", "Be brief."), ("user", "hello")]).text)

    assert text == "one two"


def test_langchain_embeds(server: Scripted) -> None:
    langchain = pytest.importorskip("langchain_openai")
    server.script()
    model = langchain.OpenAIEmbeddings(
        model="up", base_url=f"{server.url}/v1", api_key=server.keys["app"], check_embedding_ctx_length=False
    )

    assert model.embed_documents(["a", "b"]) == [[1.0, 0.0], [1.0, 0.0]]


# ---------------------------------------------------------------------------- LlamaIndex


def llama_openai(server: Scripted, model: str, **more: Any) -> Any:
    """Their class as it is for a name of OpenAI's; it refuses all others, which go by `OpenAILike`'s way: metadata of their own."""
    llama = pytest.importorskip("llama_index.llms.openai")
    core = pytest.importorskip("llama_index.core.llms")
    asked = {"model": model, "api_base": f"{server.url}/v1", "api_key": server.keys["app"], "max_retries": 0, **more}
    if model.startswith("gpt-"):
        return llama.OpenAI(**asked)

    class Named(llama.OpenAI):  # type: ignore[misc, name-defined]
        @property
        def metadata(self) -> Any:
            return core.LLMMetadata(model_name=self.model, is_chat_model=True, is_function_calling_model=True)

    return Named(**asked)


def message_of(text: str) -> Any:
    return pytest.importorskip("llama_index.core.llms").ChatMessage(role="user", content=text)


def test_llama_index_asks_a_prompt_with_its_variables(server: Scripted) -> None:
    server.script()
    model = llama_openai(server, "support.triage", additional_kwargs={"extra_body": VARIABLES})

    assert model.chat([message_of("and again")]).message.content == "billing"
    assert server.asked[0]["messages"][1]["content"] == "I was charged twice"


def test_llama_index_streams(server: Scripted) -> None:
    server.script(answers("one two three"))
    chunks = list(llama_openai(server, "gpt-4o-mini").stream_chat([message_of("hello")]))

    assert "".join(chunk.delta or "" for chunk in chunks) == "onetwothree"


def test_llama_index_asks_asynchronously(server: Scripted) -> None:
    server.script(answers("whole"))
    assert asyncio.run(llama_openai(server, "gpt-4o-mini").achat([message_of("hello")])).message.content == "whole"


def test_llama_index_calls_tools(server: Scripted) -> None:
    tools = pytest.importorskip("llama_index.core.tools")

    def look_up(order: int) -> str:
        """Find an order."""
        return str(order)

    server.script(replies({"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"))
    model = llama_openai(server, "gpt-4o-mini")
    answer = model.chat_with_tools([tools.FunctionTool.from_defaults(look_up)], user_msg="where is order 7?")

    (call,) = model.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("look_up", {"order": 7})
