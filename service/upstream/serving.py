"""What the request path asks: a model that completes, streams and embeds, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prompts.messages import Chunks, Completion, CompletionRequest
from service.models.embedding import Embeddings


class Serving(Protocol):
    """One alias as applications are served from it: with its retries, limits, timeouts and breaker.

    All raise a `ModelError` whose `attempts` counts the questions that were spent. To cancel is to hang up.
    """

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`; `attempts` is told."""
        ...

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`; of a model that cannot stream, the whole answer as chunks.

        The last chunk but `[DONE]` has no choices and holds `usage`, where the upstream tells it. Whoever stops before
        the end calls `aclose`.
        """
        ...

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`. Raises BadInput for a model that cannot embed."""
        ...

    async def embeddings(self, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """OpenAI's embeddings as they are: `body` without `model` goes there, what comes is the reply's object.

        Raises BadInput for a model that cannot embed, or an input that it cannot take.
        """
        ...
