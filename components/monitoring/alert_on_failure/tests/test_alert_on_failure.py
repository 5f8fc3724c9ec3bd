"""Tests of `alert_on_failure`: that it always writes the outcome, and tells the right people once."""

import datetime
import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.components.monitoring.alert_on_failure.logic import alert_on_failure
from pipeparts.components.monitoring.write_outcome.logic import write_outcome
from pipeparts.runtime import alerting
from pipeparts.runtime.errors import InputError, ServiceError
from pipeparts.runtime.state import State
from tests.monitoring_services import mail_server, webhook

ROOT = Path(__file__).parents[4]
NOW = datetime.datetime(2026, 11, 23, 8, 15, tzinfo=datetime.UTC)
FAILED = {"ended_as": "FAILED", "error_code": 9, "error_message": "The failed tasks are: [validate-table]."}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(alerting, "WAITS_SECONDS", ())


@pytest.fixture
def mail():
    with mail_server() as server:
        yield server


def run(tmp_path, to, **arguments):
    arguments = {"run_name": "late-7", "subject": "Late flights", "state": str(tmp_path / "state")} | arguments
    return alert_on_failure(outcome_path=tmp_path / "outcome.md", to=to, now=NOW, **arguments)


def test_a_failed_run_is_told_of_with_its_error_and_links(tmp_path, mail):
    error = "ValueError: 3 | 4\n<b>not bold</b>\n  File 'x.py', line 3"
    metadata = run(
        tmp_path, [mail.url()], links={"Run": "https://kfp.example.com/runs/7"}, **{**FAILED, "error_message": error}
    )
    assert metadata["state"] == "FAILED"
    assert metadata["told"] == [f"ops@example.com (mail through 127.0.0.1:{mail.port})"]
    message = mail.mails[0].message
    assert message["Subject"] == "Late flights failed"
    assert message["X-Priority"] == "1"
    text = message.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert "run         late-7" in text
    assert "error code  9 (failed precondition)" in text
    assert "    ValueError: 3 | 4\n    <b>not bold</b>\n      File 'x.py', line 3" in text
    assert "Run: https://kfp.example.com/runs/7" in text
    page = message.get_body(("html",)).get_content().replace("\r\n", "\n")
    assert "&lt;b&gt;not bold&lt;/b&gt;\n  File" in page


def test_the_outcome_is_that_of_write_outcome(tmp_path, mail):
    run(tmp_path, [mail.url()], **FAILED)
    write_outcome(
        outcome_path=tmp_path / "other.md", state="FAILED", error_code=9, error_message=FAILED["error_message"],
        run_name="late-7", subject="Late flights", now=NOW,
    )  # fmt: skip
    assert (tmp_path / "outcome.md").read_bytes() == (tmp_path / "other.md").read_bytes()


@pytest.mark.parametrize("state", ["SUCCEEDED", "CANCELLED", "SKIPPED", "succeeded", "PIPELINE_TASK_STATE_SUCCEEDED"])
def test_nobody_is_told_where_nothing_failed(tmp_path, mail, state):
    metadata = run(tmp_path, [mail.url()], ended_as=state)
    assert "told" not in metadata
    assert (tmp_path / "outcome.md").read_text().startswith("# Late flights ")
    assert mail.connections == 0


def test_an_address_that_is_wrong_is_said_of_while_all_is_well(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path, ["env:NOT_SET_AT_ALL"], ended_as="SUCCEEDED")
    assert "nobody could be told if this run had failed" in caplog.text
    assert "NOT_SET_AT_ALL" in caplog.text


@pytest.mark.parametrize(
    ("state", "subject"),
    [(None, "ended as UNKNOWN"), ("", "ended as UNKNOWN"), ("PAUSED", "ended as PAUSED"), ("FAILED", "failed")],
)
def test_an_end_that_nobody_can_name_is_told_of(tmp_path, mail, state, subject):
    run(tmp_path, [mail.url()], ended_as=state)
    assert mail.mails[0].message["Subject"] == f"Late flights {subject}"
    text = mail.mails[0].message.get_body(("plain",)).get_content()
    assert ("the failed step's log has it" in text) == (state == "FAILED")


@given(
    st.dictionaries(st.sampled_from(["ended_as", "job", "task", "error_message"]), st.text() | st.none()),
    st.integers() | st.none(),
)
def test_no_status_makes_it_fail(tmp_path_factory, arguments, code):
    folder = tmp_path_factory.mktemp("outcome")
    metadata = alert_on_failure(outcome_path=folder / "outcome.md", error_code=code, **arguments)
    assert {"state", "run", "ended"} <= metadata.keys()
    assert (folder / "outcome.md").read_text().startswith("# ")


def test_without_an_address_it_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path, [], **FAILED)
    assert "nobody is told, since `to` is empty: Late flights failed" in caplog.text


def test_a_run_is_told_of_once(tmp_path, mail):
    run(tmp_path, [mail.url()], **FAILED)
    again = run(tmp_path, [mail.url()], **{**FAILED, "error_message": "said otherwise"})
    assert again["told"] == []
    run(tmp_path, [mail.url()], run_name="late-8", **FAILED)
    assert len(mail.mails) == len(mail.mailbox) == 2


@pytest.mark.parametrize("arguments", [{"state": ""}, {"run_name": "", "job": ""}])
def test_it_alerts_where_no_receipts_can_be_kept(tmp_path, mail, monkeypatch, caplog, arguments):
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, [mail.url()], **FAILED, **arguments)
    assert len(mail.mails) == 1
    assert "people are told again" in caplog.text


@pytest.mark.parametrize("method", ["read", "write"])
def test_it_alerts_where_the_state_does_not_answer(tmp_path, mail, monkeypatch, caplog, method):
    def refuse(*_):
        raise ServiceError("the bucket does not answer")

    monkeypatch.setattr(State, method, refuse)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, [mail.url()], **FAILED)
    assert len(mail.mails) == 1
    assert "it may be sent twice: the bucket does not answer" in caplog.text


def test_a_failure_to_tell_is_an_error_after_the_outcome(tmp_path, mail):
    mail.answers = ["554 5.7.1 No spam here"]
    with webhook() as hook, pytest.raises(ServiceError, match="the alert did not reach 1 of 2") as caught:
        run(tmp_path, [mail.url(), hook.url()], **FAILED)
    assert "554 5.7.1 No spam here" in str(caught.value)
    assert "| state | FAILED |" in (tmp_path / "outcome.md").read_text()
    assert hook.calls[0].body["type"] == "failure"
    assert "The failed tasks are: [validate-table]." in hook.calls[0].body["message"]


def test_a_wrong_address_is_an_error_after_the_outcome(tmp_path):
    with pytest.raises(InputError, match="a kind that is not known"):
        run(tmp_path, ["nosuch://x"], **FAILED)
    assert "| state | FAILED |" in (tmp_path / "outcome.md").read_text()


def test_a_huge_error_is_cut(tmp_path, mail):
    run(tmp_path, [mail.url()], ended_as="FAILED", error_message="x" * 1_000_000)
    text = mail.mails[0].message.get_body(("plain",)).get_content()
    assert len(text) < 10_000
    assert "(1,000,000 characters)" in text


PIPELINE = """
    import sys
    from kfp import compiler, dsl, local
    from pipeparts.components.monitoring.alert_on_failure.component import alert_on_failure

    @dsl.component(base_image="python", install_kfp_package=False)
    def divide(by: int) -> int:
        return 6 // by

    @dsl.component(base_image="python", install_kfp_package=False)
    def double(number: int) -> int:
        return 2 * number

    @dsl.pipeline(name="halves")
    def pipeline(by: int, to: list, state: str):
        last = alert_on_failure(to=to, run_name="run-1", subject="Halves", state=state).set_caching_options(False)
        with dsl.ExitHandler(last):
            double(number=divide(by=by).output)

    compiler.Compiler().compile(pipeline, "pipeline.yaml")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root", raise_on_error=False)
    pipeline(by=int(sys.argv[1]), to=[sys.argv[2]], state="state")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("by", "state"), [(2, "SUCCEEDED"), (0, "FAILED")])
def test_it_runs_as_an_exit_handler(tmp_path, mail, by, state):
    (tmp_path / "run.py").write_text(textwrap.dedent(PIPELINE))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        [sys.executable, "run.py", str(by), mail.url()],
        cwd=tmp_path, env={"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    log = result.stdout + result.stderr
    found = list(tmp_path.glob("root/*/alert-on-failure*/outcome"))
    assert len(found) == 1, log
    assert f"| state | {state} |" in found[0].read_text()
    answer = json.loads(next(tmp_path.glob("root/*/alert-on-failure*/executor_output.json")).read_text())
    metadata = answer["artifacts"]["outcome"]["artifacts"][0]["metadata"]
    assert (metadata["state"], metadata["run"]) == (state, "run-1")
    assert [m.message["Subject"] for m in mail.mails] == (["Halves failed"] if state == "FAILED" else [])
