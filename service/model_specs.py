"""What an entry of `models` in turnout.yaml may hold: one class an engine, each with how it is guarded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import pydantic
from pydantic_core import PydanticCustomError

from prompts.redaction import is_secret
from prompts.wording import HIDDEN, refuse
from service.upstream.policy import Policy, Retries
from suites.salvage import error_at, with_errors

_BASE_URL = "write http(s)://host[:port]/path, without a user, password or query; a key is named by `api_key_env`"
DEFAULT_TIMEOUT_S = 120.0  # of a request to a model whose entry has none


class Price(pydantic.BaseModel):
    """US dollars for a million tokens."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    input_per_mtok: float = pydantic.Field(ge=0)
    output_per_mtok: float = pydantic.Field(ge=0)


class LocalSpec(Policy):
    """A model that the embedded engine serves."""

    engine: Literal["local"]
    source: str
    chat_template: str | None = pydantic.Field(None, min_length=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = pydantic.Field(None, ge=1)
    price: Price | None = None
    context_tokens: int | None = pydantic.Field(None, ge=1)

    @property
    def is_tunable(self) -> bool:
        return True

    def within(self, project: Path) -> LocalSpec:
        """The same with files that are named from the folder of turnout.yaml named outright."""
        kind, colon, place = self.source.partition(":")
        if kind == "path" and colon and place:
            source = f"path:{project / Path(place).expanduser()}"
        else:
            source = str(project / Path(self.source).expanduser()) if _is_gguf_path(self.source) else self.source
        template = str(project / Path(self.chat_template).expanduser()) if self.chat_template else None
        return self.model_copy(update={"source": source, "chat_template": template})

    @property
    def timeout_s(self) -> float:
        return self.timeouts.total_s or DEFAULT_TIMEOUT_S


def _is_gguf_path(source: str) -> bool:
    return source.endswith(".gguf") and not source.startswith(("hf:", "pypi:", "path:"))


_NAME_OF_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_SHOWN_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


def _named_variable(value: Any) -> Any:
    """The name of an environment variable. What is none may be the secret itself, so no error repeats it."""
    if value is None:
        return None
    fix = "write the name of the variable that holds the key, such as OPENAI_API_KEY; a key that stood in a file is to be replaced"
    if not isinstance(value, str) or not re.fullmatch(_NAME_OF_VARIABLE, value):
        refuse("expected the name of an environment variable (what stands here is not shown)", fix, found=HIDDEN)
    if is_secret(value):
        refuse(
            "this looks like a key, not like the name of an environment variable (it is not shown)", fix, found=HIDDEN
        )
    return value


# The name of an environment variable that holds a secret, for every setting that has one.
SecretEnv = Annotated[
    str, pydantic.BeforeValidator(_named_variable), pydantic.Field(json_schema_extra={"pattern": _NAME_OF_VARIABLE})
]


class OpenAISpec(Policy):
    """A model behind any OpenAI-compatible server, vLLM among them."""

    engine: Literal["openai", "vllm"]
    base_url: str
    model: str | None = None
    api_key_env: SecretEnv | None = None
    price: Price | None = None
    context_tokens: int | None = pydantic.Field(None, ge=1)
    timeout_s: float = pydantic.Field(60.0, gt=0)
    source: str | None = None
    adapter_dir: str | None = None
    tunable: bool = False  # after the two that it needs, which its check is given

    @pydantic.field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:  # its text repeats what stands there, which may be a password
            refuse("no address of a model's server: its host or its port is none", _BASE_URL)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            refuse("no address of a model's server", _BASE_URL, found=HIDDEN if parts.username or parts.query else None)
        return value.rstrip("/")

    @pydantic.field_validator("tunable")
    @classmethod
    def _tunable_is_whole(cls, value: bool, info: pydantic.ValidationInfo) -> bool:
        """Told of what is left out alone: of what has a fault of its own that is told."""
        is_vllm = info.data.get("engine", "vllm") == "vllm"
        is_whole = is_vllm and info.data.get("source", "?") and info.data.get("adapter_dir", "?")
        if value and not is_whole:
            needed = "engine: vllm, its weights' `source` and an `adapter_dir`"
            refuse(f"needs {needed}", "add what is missing, or leave `tunable` out", found=HIDDEN)
        return value

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _one_total(cls, data: Any, handler: pydantic.ModelWrapValidatorHandler[OpenAISpec]) -> OpenAISpec:
        """`timeouts.total_s` is `timeout_s`: either may be written, or both alike. What else is wrong is told beside it."""
        timeouts = data.get("timeouts") if isinstance(data, dict) else None
        total_s = timeouts.get("total_s") if isinstance(timeouts, dict) else None
        is_one = total_s is None or data.get("timeout_s", total_s) == total_s
        spec = with_errors(handler, data, [] if is_one else [error_at(_two_totals(), data, "timeout_s")])
        total_s = spec.timeouts.total_s
        return spec if total_s is None else spec.model_copy(update={"timeout_s": total_s})

    def key_variable(self, alias: str) -> str:
        """What a message calls the variable of the key: by its name where it is written as one, for it may be the key itself."""
        if self.api_key_env and _SHOWN_NAME.fullmatch(self.api_key_env):
            return f"the environment variable {self.api_key_env}"
        fix = "not shown, as it may be the key itself: write a variable's name, in capitals, such as OPENAI_API_KEY"
        return f"the environment variable that models.{alias}.api_key_env names ({fix})"

    @property
    def is_tunable(self) -> bool:
        return self.tunable


def _two_totals() -> PydanticCustomError:
    reason = "timeout_s and timeouts.total_s are the same setting"
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "fix": "write one of them", "found": HIDDEN})


class FakeSpec(Policy):
    """A model that answers from a table: for tests and for trying things without any model."""

    engine: Literal["fake"]
    answers: dict[str, str | Annotated[list[str], pydantic.Field(min_length=1)]] = pydantic.Field(default_factory=dict)
    default: str = ""
    echo: bool | Literal["all"] = False
    latency_s: float = pydantic.Field(0.0, ge=0)
    chunk_s: float = pydantic.Field(0.0, ge=0, description="before each word of a stream but the first")
    price: Price | None = None
    context_tokens: int | None = pydantic.Field(None, ge=1)

    retries: Retries = Retries(times=0)

    @property
    def is_tunable(self) -> bool:
        return False

    @property
    def timeout_s(self) -> float:
        return self.timeouts.total_s or DEFAULT_TIMEOUT_S


ModelSpec = Annotated[LocalSpec | OpenAISpec | FakeSpec, pydantic.Field(discriminator="engine")]
