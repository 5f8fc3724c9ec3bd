"""Tests of `write_outcome`: its logic, and that it runs inside an exit handler whatever happened."""

import datetime
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.components.monitoring.write_outcome.logic import write_outcome

ROOT = Path(__file__).parents[4]
NOW = datetime.datetime(2026, 11, 23, 8, 15, tzinfo=datetime.UTC)


def outcome(tmp_path, **arguments):
    metadata = write_outcome(outcome_path=tmp_path / "outcome.md", now=NOW, **arguments)
    return metadata, (tmp_path / "outcome.md").read_text()


def test_a_success_says_what_when_and_nothing_of_errors(tmp_path):
    metadata, text = outcome(
        tmp_path,
        state="SUCCEEDED",
        job="projects/p/locations/l/pipelineJobs/late-7",
        task="body",
        subject="Late flights",
    )
    assert metadata == {"state": "SUCCEEDED", "run": "late-7", "ended": "2026-11-23T08:15:00+00:00"}
    assert text.startswith("# Late flights succeeded\n")
    assert "| run | late-7 |" in text
    assert "error" not in text


def test_a_failure_shows_the_error_as_it_is(tmp_path):
    error = "ValueError: 3 | 4\n```\n<b>not bold</b>"
    metadata, text = outcome(tmp_path, state="FAILED", run_name="late-7", error_code=9, error_message=error)
    assert metadata["error"] == error
    assert text.startswith("# late-7 failed\n")
    assert "| error code | 9 (failed precondition) |" in text
    assert f"````text\n{error}\n````" in text


def test_a_failure_without_a_text_says_where_to_look(tmp_path):
    _, text = outcome(tmp_path, state="FAILED")
    assert "the failed step's log has it" in text


@pytest.mark.parametrize(
    ("state", "headline"),
    [
        (None, "ended as UNKNOWN"),
        ("", "ended as UNKNOWN"),
        ("cancelled", "was cancelled"),
        ("PAUSED", "ended as PAUSED"),
    ],
)
def test_every_state_is_written(tmp_path, state, headline):
    _, text = outcome(tmp_path, state=state, job="run")
    assert text.startswith(f"# run {headline}\n")


def test_a_huge_error_is_cut(tmp_path):
    metadata, text = outcome(tmp_path, state="FAILED", error_message="x" * 1_000_000)
    assert len(metadata["error"]) == 500
    assert len(text) < 25_000
    assert "(1,000,000 characters)" in text


@given(
    st.dictionaries(st.sampled_from(["state", "job", "task", "error_message"]), st.text() | st.none()),
    st.integers() | st.none(),
)
def test_it_never_fails_and_the_table_keeps_its_form(tmp_path_factory, arguments, code):
    metadata, text = outcome(tmp_path_factory.mktemp("outcome"), error_code=code, **arguments)
    assert {"state", "run", "ended"} <= metadata.keys()
    head = text.split("\n\n## The error")[0]
    assert all(line.count(" | ") == 1 for line in head.split("\n") if line.startswith("| ") and line != "| | |")


PIPELINE = """
    import sys
    from kfp import compiler, dsl, local
    from pipeparts.components.monitoring.write_outcome.component import write_outcome

    @dsl.component(base_image="python", install_kfp_package=False)
    def divide(by: int) -> int:
        return 6 // by

    @dsl.component(base_image="python", install_kfp_package=False)
    def double(number: int) -> int:
        return 2 * number

    @dsl.pipeline(name="halves")
    def pipeline(by: int):
        last = write_outcome(run_name="run-1", subject="Halves").set_caching_options(False)
        with dsl.ExitHandler(last):
            double(number=divide(by=by).output)

    compiler.Compiler().compile(pipeline, "pipeline.yaml")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root", raise_on_error=False)
    print(pipeline(by=int(sys.argv[1])).outputs)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("by", "state"), [(2, "SUCCEEDED"), (0, "FAILED")])
def test_it_runs_as_an_exit_handler(tmp_path, by, state):
    (tmp_path / "run.py").write_text(textwrap.dedent(PIPELINE))
    result = subprocess.run(
        [sys.executable, "run.py", str(by)],
        cwd=tmp_path, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    log = result.stdout + result.stderr
    found = list(tmp_path.glob("root/*/write-outcome*/outcome"))
    assert len(found) == 1, log
    text = found[0].read_text()
    print(text)  # noqa: T201
    assert f"| state | {state} |" in text
    assert ("error" in text) == (state == "FAILED")
    answer = json.loads(next(tmp_path.glob("root/*/write-outcome*/executor_output.json")).read_text())
    metadata = answer["artifacts"]["outcome"]["artifacts"][0]["metadata"]
    assert (metadata["state"], metadata["run"]) == (state, "run-1")
