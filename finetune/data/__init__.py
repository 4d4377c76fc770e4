"""Training examples: read, cleaned, kept apart from the held-out cases, reported on, and split."""

from finetune.data.advice import FEWEST_EXAMPLES
from finetune.data.balance import Balance
from finetune.data.cleaning import CleanReport, Conflict, Drop, NearConflict, clean
from finetune.data.examples import Example, digest, parse_examples
from finetune.data.likeness import HeldOut, folded, input_key, similar
from finetune.data.lineage import Dataset, Source, make_dataset
from finetune.data.malformed import Malformed, malformed
from finetune.data.personal import Flag, flags_of
from finetune.data.reading import read_examples
from finetune.data.report import DataReport, Tokens
from finetune.data.report_text import report_lines
from finetune.data.reporting import answer_limit, make_report
from finetune.data.shown import asking_variables, shown_in
from finetune.data.splitting import clusters_of, split

__all__ = [
    "FEWEST_EXAMPLES",
    "Balance",
    "CleanReport",
    "Conflict",
    "DataReport",
    "Dataset",
    "Drop",
    "Example",
    "Flag",
    "HeldOut",
    "Malformed",
    "NearConflict",
    "Source",
    "Tokens",
    "answer_limit",
    "asking_variables",
    "clean",
    "clusters_of",
    "digest",
    "flags_of",
    "folded",
    "input_key",
    "make_dataset",
    "make_report",
    "malformed",
    "parse_examples",
    "read_examples",
    "report_lines",
    "shown_in",
    "similar",
    "split",
]
