"""What checking costs: heavy packages are looked for, and imported only by what needs them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from suites.case import Suite

ROOT = Path(__file__).parents[3]
HEAVY = "{'sacrebleu', 'nltk', 'rapidfuzz', 'sqlglot', 'py_mini_racer', 'numpy', 'lxml'}"
CHECKED = """
import sys
sys.path.insert(0, {root!r})
from suites.assertions import AssertionSpec, check
for kind in ("bleu", "gleu", "meteor", "levenshtein", "rouge-n", "f-score", "contains-xml"):
    check(AssertionSpec(type=kind, value="x"))
check(AssertionSpec(type="is-sql"))
check(AssertionSpec(type="javascript", value="output === 'x'"))
print(*sorted({heavy} & sys.modules.keys()))
"""


@pytest.mark.integration
def test_checking_imports_none_of_the_packages_that_measure():
    program = CHECKED.format(root=str(ROOT), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.integration
def test_a_thousand_cases_of_every_kind_are_checked_within_seconds():
    asserts = [
        {"type": "bleu", "value": "{{ t }}"},
        {"type": "levenshtein", "value": "{{ t }}"},
        {"type": "is-sql", "value": {"allowedTables": ["select::null::t"]}},
        {"type": "javascript", "value": "output.length > 2 && output === context.vars.t"},
        {"type": "equals", "value": "x", "transform": "output.trim()"},
    ]
    started = time.process_time()
    suite = Suite.from_data(
        {"prompt": "a", "tests": [{"vars": {"t": str(number)}, "assert": asserts} for number in range(1000)]}
    )
    assert len(suite.tests) == 1000
    assert time.process_time() - started < 10
