"""What people say beside a change: why, what for. It is kept for good, in histories, evidence and the audit."""

from __future__ import annotations

from typing import Annotated

import pydantic

from prompts.redaction import redacted


def said(text: str) -> str:
    """The text as it is kept: without what looks like a secret, and without blanks around it, so that blanks say nothing."""
    return redacted(text.strip())


Said = Annotated[str, pydantic.AfterValidator(said)]
