"""How many entries of a list may be asked for at once; a number beyond is refused, never cut in silence."""

from __future__ import annotations

from typing import Annotated

from litestar.params import QueryParameter

MOST_RUNS = 500  # runs, jobs, calibrations: each has a summary
MOST_ROWS = 1000  # of a log

MOST_NUMBER = 2**63 - 1  # what a database can compare with

RunLimit = Annotated[int, QueryParameter(name="limit", ge=1, le=MOST_RUNS)]
RowLimit = Annotated[int, QueryParameter(name="limit", ge=1, le=MOST_ROWS)]
AfterNumber = Annotated[int, QueryParameter(name="after", ge=-MOST_NUMBER, le=MOST_NUMBER)]
