import contextlib
import os
import time
from pathlib import Path

import pytest
from pydantic_core import PydanticCustomError

from suites.assertions import AssertionErrored, AssertionSpec
from suites.assertions.folders import ScriptFolders
from suites.assertions.python import check_folders
from tests.suites.assertions.judging import errored, holds, judged, refused

CHECKS = """
import os
import subprocess
import sys
import time

from helper import WANTED


def get_assert(output, context):
    print("noise on stdout")
    return output == WANTED


def score(output, context):
    return len(output) / 10


def graded(output, context):
    return {"pass_": output == "x", "score": 0.5, "reason": context["vars"]["a"], "named_scores": {"tone": 1}}


def configured(output, context):
    return output == context["config"]["wanted"]


def word(output, context):
    return "true"


def secrets(output, context):
    return {"pass": True, "score": 1, "reason": ",".join(sorted(os.environ)) + "|" + os.getcwd()}


def text(output, context):
    return "well"


def fails(output, context):
    raise ValueError("oh")


def exits(output, context):
    os._exit(3)


def leaves(output, context):
    sys.exit(3)


def sleeps(output, context):
    time.sleep(60)


def hungry(output, context):
    return len("x" * 2**33) > 0


def starts(output, context):
    command = "import os, time; os.fork(); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", command, output], start_new_session=True)
    if context["vars"]["a"] == "exits":
        os._exit(3)
    if context["vars"]["a"] == "orphans":
        time.sleep(0.5)
        started.kill()
    if context["vars"]["a"] == "sleeps":
        time.sleep(60)
    return True


def odd(output, context):
    return object()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "checks").mkdir()
    (root / "checks" / "tone.py").write_text(CHECKS)
    (root / "checks" / "helper.py").write_text("WANTED = 'x'\n")
    (root / "elsewhere.py").write_text("def get_assert(output, context):\n    return True\n")
    (root / "checks" / "link.py").symlink_to(root / "elsewhere.py")
    return root


@pytest.fixture(scope="module")
def scene(project):
    return {"variables": {"a": "v"}, "folders": ScriptFolders(project, (Path("checks"),))}


def test_a_function_of_a_listed_folder_judges(scene):
    assert holds("python", "x", "checks/tone.py", scene=scene)
    assert not holds("python", "y", "checks/tone.py:get_assert", scene=scene)
    assert holds("not-python", "y", "checks/tone.py:get_assert", scene=scene)
    assert holds("python", "x", "tone.py", scene=scene)
    assert holds("python", "x", "checks/tone.py:word", scene=scene)


def test_scores_and_verdicts_are_those_of_promptfoo(scene):
    assert judged("python", "abc", "checks/tone.py:score", scene=scene).score == 0.3
    assert not holds("python", "abc", "checks/tone.py:score", scene=scene, threshold=0.4)
    found = judged("python", "x", "checks/tone.py:graded", scene=scene)
    assert (found.passed, found.score, found.reason) == (True, 0.5, "v")
    assert [(part.metric, part.score) for part in found.parts] == [("tone", 1.0)]
    assert holds("python", "w", "checks/tone.py:configured", config={"wanted": "w"}, scene=scene)


def test_a_script_sees_no_environment_and_works_in_a_folder_of_its_own(scene, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    names, _, folder = judged("python", "x", "checks/tone.py:secrets", scene=scene).reason.partition("|")
    assert set(names.split(",")) <= {"TMPDIR", "LC_CTYPE"}
    assert Path(folder) != Path.cwd()
    assert "turnout-script-" in folder


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("text", "the script gave 'well'"),
        ("fails", "tone.py failed: ValueError: oh"),
        ("leaves", "tone.py failed: SystemExit: 3"),
        ("exits", "tone.py ended Python: it ended without an answer"),
        ("hungry", "tone.py failed: MemoryError"),
        ("odd", "its answer is no JSON"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_what_goes_wrong_is_errored_and_the_next_script_runs(scene, function, reason):
    assert reason in errored("python", "x", f"checks/tone.py:{function}", scene=scene)
    assert holds("python", "x", "checks/tone.py", scene=scene)


def test_a_script_that_takes_too_long_is_killed(scene):
    started = time.perf_counter()
    reason = errored("python", "x", "checks/tone.py:sleeps", config={"timeout_ms": 300}, scene=scene)
    assert reason == "tone.py took more than 0.3 s and was stopped"
    assert time.perf_counter() - started < 20


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux can find them")
@pytest.mark.parametrize("ending", ["returns", "orphans", "exits", "sleeps"])
def test_no_process_that_a_script_starts_outlives_it(scene, ending):
    mark = f"turnout-test-{os.getpid()}-{ending}"
    scene = {**scene, "variables": {"a": ending}}
    with contextlib.suppress(AssertionErrored):
        judged("python", mark, "checks/tone.py:starts", config={"timeout_ms": 1500}, scene=scene)
    assert list(_running_with(mark)) == []


def _running_with(mark):
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes():
                yield int(file.parent.name)


def test_a_file_that_was_changed_is_read_anew(tmp_path):
    file = tmp_path / "a.py"
    scene = {"folders": ScriptFolders(tmp_path, (tmp_path,))}
    for number, answer in enumerate((True, False)):
        file.write_text(f"def get_assert(output, context):\n    return {answer}\n")
        os.utime(file, ns=(number, number))
        assert holds("python", "x", "a.py", scene=scene) is answer


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("elsewhere.py", "lies outside the folders that may be run (checks)"),
        ("checks/link.py", "lies outside the folders"),
        ("checks/none.py", "is not in the folders"),
    ],
)
def test_only_files_of_listed_folders_are_run(scene, value, message):
    assert message in errored("python", "x", value, scene=scene)
    with pytest.raises(PydanticCustomError, match="the folders"):
        check_folders(AssertionSpec(type="python", value=value), scene["folders"])


def test_without_a_listed_folder_nothing_is_run_and_the_fix_says_how_to_switch_on(project):
    assert "python_dirs: [checks]" in errored("python", "x", "checks/tone.py")
    with pytest.raises(PydanticCustomError) as refusal:
        check_folders(AssertionSpec(type="not-python", value="checks/tone.py"), ScriptFolders(project))
    assert refusal.value.message() == "`not-python`: no Python is run here"
    assert "assertions: {python_dirs: [checks]}" in refusal.value.context["fix"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("len(output) > 3", "Python within a suite is never run"),
        ("import os\nreturn True", "Python within a suite is never run"),
        (None, "Python within a suite is never run"),
        ("/etc/x.py", "is no path within the project"),
        ("../x.py", "is no path within the project"),
        ("a/../../x.py:f", "is no path within the project"),
    ],
)
def test_inline_python_and_paths_that_leave_the_project_are_refused(value, message):
    found, fix = refused(type="python", value=value)
    assert message in found
    assert "file://checks/tone.py:get_assert" in fix


def test_a_limit_beyond_a_minute_is_refused():
    assert "write 1 to 60,000" in refused(type="python", value="a.py", config={"timeout_ms": 10**6})[0]
