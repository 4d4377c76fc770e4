"""What transformers says once it has read a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMED = 3


def lacking_weights(found: Mapping[str, Any]) -> str:
    """The weights that a model's files do not hold, of what `from_pretrained` gives with `output_loading_info`; '' for none.

    transformers puts random numbers in their place and goes on.
    """
    missing = sorted(found["missing_keys"])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return ", ".join(missing[:_NAMED]) + more
