"""Tests of `send_alert`: against a real SMTP server and a real web server, killed and started again."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.components.monitoring.send_alert.logic import send_alert
from pipeparts.runtime import alerting
from pipeparts.runtime.alert_text import Alert, Figure, alert_on_reports
from pipeparts.runtime.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.state import State
from tests import monitoring_reports as reports
from tests.monitoring_services import mail_server, self_signed, webhook
from tests.services import free_port

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(alerting, "WAITS_SECONDS", (0.01, 0.01))


@pytest.fixture
def mail():
    with mail_server() as server:
        yield server


@pytest.fixture
def hook():
    with webhook() as server:
        yield server


def send(tmp_path, to, **arguments):
    arguments.setdefault("subject", "Late flights drifted")
    return send_alert(alert_path=tmp_path / "alert.md", to=to, state=str(tmp_path / "state"), **arguments)


# --- what it says ---------------------------------------------------------------------------------------------------


def test_a_mail_says_what_was_decided_and_why(tmp_path, mail):
    paths = reports.write(
        tmp_path, decision=reports.decision(), drift=reports.drift(), performance=reports.performance()
    )
    told = send(tmp_path, [mail.url()], subject="", links={"Report": "https://kfp.example.com/runs/1?a=b&c=d"}, **paths)
    assert len(told.told) == 1
    message = mail.mails[0].message
    assert message["Subject"] == "late_flights, version 3 is to be trained again"
    assert message["From"] == "pipeparts <ml@example.com>"
    assert message["To"] == "ops@example.com"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_body(("plain",)).get_content()
    page = message.get_body(("html",)).get_content()
    artifact = (tmp_path / "alert.md").read_text()
    (tmp_path / "mail.html").write_text(page)
    for form in (text, page, artifact):
        flat = " ".join(form.split())
        assert "temp (PSI 1.23), dep_time (PSI 0.31)." in flat
        assert "0.028 lost" in flat
        assert "1.234" in flat
        assert "0.708 when it was registered" in flat
        assert "27,123" in flat
        assert "62.5" in flat
    assert "https://kfp.example.com/runs/1?a=b&c=d" in text
    assert 'href="https://kfp.example.com/runs/1?a=b&amp;c=d"' in page
    assert max(len(line) for line in text.splitlines() if "http" not in line) <= 80
    assert artifact.startswith("# late_flights, version 3 is to be trained again\n")
    assert "| ROC AUC where origin=JFK | 0.61 | limit 0.66 |" in artifact


def test_a_webhook_gets_markdown_without_tables(tmp_path, hook):
    paths = reports.write(tmp_path, drift=reports.drift())
    send(tmp_path, [hook.url()], subject="", **paths)
    body = hook.calls[0].body
    assert body["title"] == "late_flights, version 3: the data drifted"
    assert body["type"] == "warning"
    assert "- PSI of temp: 1.234 (limit 0.2)" in body["message"]
    assert "|" not in body["message"]


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({"decision": reports.decision(retrain=False)}, "late_flights, version 3 stays"),
        ({"decision": reports.decision(model="")}, "the model is to be trained again"),
        ({"performance": reports.performance()}, "late_flights, version 3: the performance fell"),
        (
            {"drift": reports.drift(drifted=False), "performance": reports.performance(degraded=False)},
            "late_flights, version 3: the data did not drift, the performance holds",
        ),
        ({"drift": reports.drift(model="ab" * 16)}, "model abababababab: the data drifted"),
        ({"drift": reports.drift(model="")}, "the data drifted"),
        ({"text": "Look at this.\nAt once."}, "Look at this. At once."),
        ({"subject": "x" * 500, "text": "y"}, "x" * 157 + "..."),
        ({"subject": "two\r\nlines\tof it"}, "two lines of it"),
    ],
)
def test_the_subject_says_it_in_one_line(given, subject):
    assert alert_on_reports(**given).subject == subject


def test_many_drifted_columns_are_named_in_a_line():
    columns = tuple(reports.column(f"c{i}", 1.0) for i in range(40))
    alert = alert_on_reports(drift=reports.drift(columns=columns))
    assert len(alert.figures) < 12
    assert alert.figures[-1].name == "drifted as well"
    assert alert.figures[-1].value.startswith("c5, c6, c7")


@given(st.text(), st.lists(st.text(), max_size=3), st.text(), st.text(), st.text())
def test_nothing_that_comes_from_outside_is_markup(subject, reasons, name, details, link):
    alert = Alert(
        subject=" ".join(subject.split()) or "x",
        text=subject,
        reasons=tuple(reasons),
        figures=(Figure(name, subject, details),),
        details=details,
        links=((name, link),),
    )
    page = alert.to_html()
    assert "<script" not in page.lower() or "<script" not in f"{subject}{reasons}{name}{details}{link}".lower()
    assert page.count("<td") == 3
    table = [line for line in alert.to_markdown().split("\n") if line.startswith("| ") and "---" not in line]
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 4 for line in table[:2])
    assert alert.to_text().endswith("\n")
    assert alert.to_chat().endswith("\n")


def test_html_from_outside_is_shown_as_text(tmp_path, mail):
    send(tmp_path, [mail.url()], subject="<b>fat</b> & thin", text="<script>alert(1)</script>")
    page = mail.mails[0].message.get_body(("html",)).get_content()
    assert "<script>" not in page
    assert "&lt;b&gt;fat&lt;/b&gt; &amp; thin" in page


def test_a_subject_that_is_not_ascii_arrives(tmp_path, mail):
    send(tmp_path, [mail.url()], subject="Verspätung: µ = 0,3 ✈")
    assert mail.mails[0].message["Subject"] == "Verspätung: µ = 0,3 ✈"


# --- whom it tells --------------------------------------------------------------------------------------------------


def test_nobody_is_told_without_an_address(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        told = send_alert(alert_path=tmp_path / "alert.md", to=["", " "], subject="Drift")
    assert told.told == ()
    assert (tmp_path / "alert.md").read_text() == "# Drift\n"
    assert "nobody is told, since `to` is empty: Drift" in caplog.text


def test_references_hold_one_address_a_line(tmp_path, mail, hook, monkeypatch):
    (tmp_path / "addresses").write_text(f"# who is on duty\n{mail.url()}\n\n{hook.url('/a', login='me:hush-hush@')}\n")
    monkeypatch.setenv("ALERTS", hook.url("/b"))
    told = send(tmp_path, [f"file:{tmp_path / 'addresses'}", "env:ALERTS"])
    assert told.told == (
        f"ops@example.com (mail through 127.0.0.1:{mail.port})",
        f"JSON 127.0.0.1 (to[0], file:{tmp_path / 'addresses'}, line 4)",
        "JSON 127.0.0.1 (to[1], env:ALERTS, line 1)",
    )
    assert [call.path for call in hook.calls] == ["/a", "/b"]
    assert hook.calls[0].headers["Authorization"].startswith("Basic ")
    kept = [path.read_text() for path in (tmp_path / "state").rglob("*.json")]
    assert len(kept) == 3
    assert not any("hush-hush" in text for text in kept)


@pytest.mark.parametrize(
    "address",
    [
        "mailtos://me:hush-hush@smtp.example.com/ops@example.com",
        "json://me:hush-hush@127.0.0.1/hook",
        "json://127.0.0.1/hook?+Authorization=hush-hush",
        "json://127.0.0.1/hook?-api_token=hush-hush",
        "slack://T1JJ3T3L2/A1BRTD4JD/hushhushhushhushhushhush/#general",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/hushhushhushhushhushhush",
        "tgram://123456789:hush-hushhush-hush/12315544/",
        "workflows://example.com:443/643736/hush-hush/",
    ],
)
def test_a_secret_in_the_open_is_refused_and_not_shown(tmp_path, address):
    with pytest.raises(InputError, match="a password or a token in it, written in the open") as caught:
        send(tmp_path, [address])
    assert caught.value.facts["parameter"] == "to[0]"
    assert "'env:NAME'" in caught.value.facts["allowed"]
    assert "compiled YAML" in caught.value.facts["hint"]
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "headline", "hint"),
    [
        ("nosuch://somewhere/hush-hush", "a kind that is not known", None),
        ("mailt://somewhere/hush-hush", "a kind that is not known", "did you mean 'mailto'?"),
        ("ops@example.com", "a kind that is not known", None),
        ("mailto://smtp.example.com/ops@example.com", "nobody can be told at", "needs a sender: ?from="),
        ("slack://", "nobody can be told at", None),
    ],
)
def test_what_is_no_address_is_refused(tmp_path, address, headline, hint):
    with pytest.raises(InputError, match=headline) as caught:
        send(tmp_path, [address])
    assert caught.value.facts["parameter"] == "to[0]"
    assert "mailtos://smtp.example.com" in caught.value.facts["allowed"]
    assert "hush" not in str(caught.value)
    assert "apprise" not in caught.value.facts["received"]
    if hint:
        assert hint in caught.value.facts["hint"]


def test_a_reference_to_nothing_says_where_it_looked(tmp_path):
    with pytest.raises(InputError, match="the secret is not where its reference says") as caught:
        send(tmp_path, ["env:NOT_SET_AT_ALL"])
    assert "NOT_SET_AT_ALL" in caught.value.facts["where"]


@pytest.mark.parametrize("to", ["mailto://x", [3], [None]])
def test_to_is_a_list_of_texts(tmp_path, to):
    with pytest.raises(InputError, match="not a list of addresses"):
        send(tmp_path, to)


def test_an_alert_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="an alert that says nothing"):
        send(tmp_path, [], subject=" ", text="")


@pytest.mark.parametrize(("link", "words"), [("https://me:hush-hush@example.com", "password"), (3, "no text")])
def test_a_link_that_cannot_be_told_is_refused(tmp_path, link, words):
    with pytest.raises(InputError, match=words) as caught:
        send(tmp_path, [], links={"Report": link})
    assert caught.value.facts["parameter"] == "links.Report"
    assert "hush" not in str(caught.value)


def test_a_report_of_another_kind_is_refused(tmp_path):
    paths = reports.write(tmp_path, drift=reports.drift())
    with pytest.raises(ContractError, match="not a decision"):
        send(tmp_path, [], decision_path=paths["drift_path"])


def test_without_a_place_for_receipts_nobody_is_told(tmp_path, mail, monkeypatch):
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    with pytest.raises(InputError, match="nowhere to keep") as caught:
        send_alert(alert_path=tmp_path / "alert.md", to=[mail.url()], subject="Drift")
    assert caught.value.facts["parameter"] == "state"
    assert mail.connections == 0


# --- once -----------------------------------------------------------------------------------------------------------


def test_who_has_been_told_is_not_told_again(tmp_path, mail, hook):
    first = send(tmp_path, [mail.url(), hook.url()])
    again = send(tmp_path, [hook.url(), mail.url("new@example.com"), mail.url()])
    assert len(first.told) == 2
    assert again.told == (f"new@example.com (mail through 127.0.0.1:{mail.port})",)
    assert len(again.told_before) == 2
    assert [m.recipients for m in mail.mails] == [["ops@example.com"], ["new@example.com"]]
    assert len(hook.calls) == 1


def test_the_same_address_twice_is_told_once(tmp_path, mail, hook):
    told = send(
        tmp_path, [mail.url("a@example.com", "b@example.com"), mail.url("b@example.com"), hook.url(), hook.url()]
    )
    assert len(told.told) == 3
    assert [m.recipients for m in mail.mails] == [["a@example.com", "b@example.com"]]
    assert len(hook.calls) == 1


def test_a_decision_is_told_of_once_whatever_else_is_said(tmp_path, mail):
    paths = reports.write(tmp_path, decision=reports.decision())
    send(tmp_path, [mail.url()], subject="", **paths)
    send(tmp_path, [mail.url()], subject="", text="of run 2", **paths)
    assert len(mail.mails) == 1
    send(tmp_path, [mail.url()], subject="It was trained again", **paths)
    other = reports.write(tmp_path, decision=reports.decision(id="f" * 32))
    send(tmp_path, [mail.url()], subject="", **other)
    assert len(mail.mails) == 3
    assert len(mail.mailbox) == 3


def test_a_key_of_ones_own(tmp_path, mail):
    send(tmp_path, [mail.url()], subject="one", key="nightly/2026-11-23 &")
    send(tmp_path, [mail.url()], subject="two", key="nightly/2026-11-23 &")
    send(tmp_path, [mail.url()], subject="two", key="nightly/2026-11-24 &")
    assert [m.message["Subject"] for m in mail.mails] == ["one", "two"]


CHILD = """
    import json, os, signal, sys
    from pipeparts.components.monitoring.send_alert.logic import send_alert
    from pipeparts.runtime import alerting
    from pipeparts.runtime.state import State

    alerting.WAITS_SECONDS = ()
    if sys.argv[1] == "before the receipt":
        State.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    print(send_alert(alert_path="alert.md", to=json.loads(sys.argv[2]), subject="Drift", state="state").told)
"""


class Child:
    """The step in a process of its own."""

    def __init__(self, folder, to, when=""):
        (folder / "child.py").write_text(textwrap.dedent(CHILD))
        self.process = subprocess.Popen(
            [sys.executable, "child.py", when, json.dumps(to)],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def wait(self):
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, (out + err).decode()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "during DATA, taken", "during DATA, not taken", "before the receipt"])
def test_killed_and_started_again_there_is_one_mail(tmp_path, mail, moment):
    children = []
    if moment == "before":
        mail.during_hello = lambda: children[0].kill() if mail.connections == 1 else None
    elif moment.startswith("during DATA"):
        mail.during_data = lambda: children[0].kill() if len(children) == 1 else None
        mail.answers = [None] if "not" in moment else []
    children.append(Child(tmp_path, [mail.url()], moment))
    assert children[0].wait()[0] == -signal.SIGKILL
    delivered_before = len(mail.mails)
    assert delivered_before == (1 if moment in ("during DATA, taken", "before the receipt") else 0)
    children.append(Child(tmp_path, [mail.url()]))
    code, log = children[1].wait()
    assert code == 0, log
    # Between the delivery and the receipt nothing can be known: the Message-ID tells the mail system.
    assert len(mail.mails) == delivered_before + 1
    assert len(mail.mailbox) == 1
    children.append(Child(tmp_path, [mail.url()]))
    assert children[2].wait() == (0, "()\n")
    assert len(mail.mails) == delivered_before + 1


@pytest.mark.slow
def test_killed_after_the_mail_only_the_others_are_told(tmp_path, mail, hook):
    children = []
    hook.during_call = lambda: children[0].kill() if len(hook.calls) == 1 else None
    children.append(Child(tmp_path, [mail.url(), hook.url()]))
    assert children[0].wait()[0] == -signal.SIGKILL
    assert len(mail.mails) == 1
    code, log = Child(tmp_path, [mail.url(), hook.url()]).wait()
    assert code == 0, log
    assert len(mail.mails) == 1
    assert log == "('JSON 127.0.0.1 (to[1])',)\n"
    keys = {call.headers["Idempotency-Key"] for call in hook.calls}
    assert len(hook.calls) == 2
    assert len(keys) == 1


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_login(tmp_path, monkeypatch):
    with mail_server(login=("me", "pa ss@w:rd")) as mail:
        monkeypatch.setenv("MAIL", mail.url(login="me:pa%20ss%40w%3Ard@"))
        assert len(send(tmp_path, ["env:MAIL"]).told) == 1
        assert mail.logins == [("me", "pa ss@w:rd")]
        monkeypatch.setenv("MAIL", mail.url("b@example.com", login="me:hush-hush@"))
        with pytest.raises(ServiceError) as caught:
            send(tmp_path, ["env:MAIL"], subject="other")
        assert "b@example.com (mail through 127.0.0.1:" in str(caught.value)
        assert "the server said 535" in str(caught.value)
        assert "a retry cannot help" in caught.value.facts["hint"]
        assert "hush" not in str(caught.value)
        assert mail.connections == 2  # tried once


def test_a_login_that_cannot_be_sent(tmp_path, monkeypatch):
    with mail_server(login=("me", "hush-hüsh")) as mail:
        monkeypatch.setenv("MAIL", mail.url(login="me:hush-h%C3%BCsh@"))
        with pytest.raises(ServiceError) as caught:
            send(tmp_path, ["env:MAIL"])
    assert "characters beyond ASCII" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_login_that_is_missing(tmp_path):
    with mail_server(login=("me", "x")) as mail, pytest.raises(ServiceError) as caught:
        send(tmp_path, [mail.url()])
    assert "the server said 530 5.7.0 Authentication required" in str(caught.value)


def test_greylisting_is_waited_for(tmp_path, mail):
    mail.answers = ["451 4.7.1 Greylisted, try again later"]
    assert len(send(tmp_path, [mail.url()]).told) == 1
    assert mail.connections == 2
    assert len(mail.mails) == 1


def test_a_connection_cut_during_data_is_tried_again(tmp_path, mail):
    mail.answers = [None]
    assert len(send(tmp_path, [mail.url()]).told) == 1
    assert len(mail.mails) == 1


def test_greylisting_without_an_end_is_said(tmp_path, mail):
    mail.answers = ["451 4.7.1 Greylisted"] * 10
    with pytest.raises(ServiceError, match="the alert did not reach 1 of 1 recipient\n") as caught:
        send(tmp_path, [mail.url()])
    assert "the server said 451 4.7.1 Greylisted" in str(caught.value)
    assert caught.value.retryable
    assert mail.connections == 3


def test_a_refused_mail_is_not_tried_again(tmp_path, mail):
    mail.answers = ["554 5.7.1 No spam here"]
    with pytest.raises(ServiceError) as caught:
        send(tmp_path, [mail.url()])
    assert "the server said 554 5.7.1 No spam here" in str(caught.value)
    assert mail.connections == 1
    assert (tmp_path / "alert.md").read_text() == "# Late flights drifted\n"


def test_one_refused_recipient_keeps_nobody_else_from_the_mail(tmp_path, mail, hook):
    mail.refused = {"gone@example.com": "550 5.1.1 No such user", "full@example.com": "452 4.2.2 Mailbox full"}
    to = [mail.url("gone@example.com", "ops@example.com", "full@example.com"), hook.url()]
    with pytest.raises(ServiceError, match="the alert did not reach 2 of 4 recipients") as caught:
        send(tmp_path, to)
    assert "gone@example.com (mail through 127.0.0.1:" in str(caught.value)
    assert "550 5.1.1 No such user" in str(caught.value)
    assert "452 4.2.2 Mailbox full" in str(caught.value)
    assert "the others have been told" in caught.value.facts["hint"]
    assert [m.recipients for m in mail.mails] == [["ops@example.com"]]
    assert len(hook.calls) == 1
    mail.refused = {}
    assert len(send(tmp_path, to).told) == 2
    assert [m.recipients for m in mail.mails] == [["ops@example.com"], ["gone@example.com", "full@example.com"]]
    assert len(mail.mailbox) == 1
    assert len(hook.calls) == 1


def test_a_webhook_that_stumbles_is_tried_again(tmp_path, hook):
    hook.answers = [500, 429]
    assert len(send(tmp_path, [hook.url()]).told) == 1
    assert len(hook.calls) == 3
    assert len({call.headers["Idempotency-Key"] for call in hook.calls}) == 1


def test_a_webhook_that_refuses_is_not_tried_again(tmp_path, hook, mail):
    hook.answers = [(404, "no hook of that name")]
    with pytest.raises(ServiceError, match="did not reach 1 of 2 recipients") as caught:
        send(tmp_path, [hook.url("/wrong"), mail.url()])
    assert "JSON 127.0.0.1 (to[0]): the service answered 404 Not Found no hook of that name" in str(caught.value)
    assert len(hook.calls) == 1
    assert len(mail.mails) == 1


def test_a_secret_that_a_service_repeats_is_not_shown(tmp_path, hook, monkeypatch, caplog):
    monkeypatch.setenv("HOOK", hook.url("/hook", login="me:hush-hush@", options="?+X-Api-Key=silent-one"))
    hook.answers = [(403, "me:hush-hush with silent-one may not")]
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceError) as caught:
        send(tmp_path, ["env:HOOK"])
    assert "403 Forbidden me:*** with *** may not" in str(caught.value)
    assert "hush" not in caplog.text
    assert "silent-one" not in caplog.text


def test_a_webhook_that_hangs_is_given_up(tmp_path, hook):
    hook.hangs_seconds = 30
    with pytest.raises(ServiceError) as caught:
        send(tmp_path, [hook.url(options="?rto=0.2")])
    assert "no answer in time" in str(caught.value)
    assert len(hook.calls) == 3


def test_a_mail_server_that_hangs_is_given_up(tmp_path, mail):
    import threading

    stop = threading.Event()
    mail.during_hello = lambda: stop.wait(30)
    try:
        with pytest.raises(ServiceError) as caught:
            send(tmp_path, [mail.url(options="&rto=0.3")])
    finally:
        stop.set()
    assert "no answer in time" in str(caught.value)


def test_where_nobody_listens(tmp_path):
    port = free_port()
    to = [f"mailto://127.0.0.1:{port}/ops@example.com?from=ml@example.com", f"json://127.0.0.1:{port}/hook"]
    with pytest.raises(ServiceError, match="did not reach 2 of 2 recipients") as caught:
        send(tmp_path, to)
    assert str(caught.value).count("the connection was refused") == 2
    assert "hint" not in caught.value.facts


def test_where_there_is_no_host(tmp_path):
    to = ["mailto://no-such-host.invalid/ops@example.com?from=ml@example.com", "json://no-such-host.invalid/hook"]
    with pytest.raises(ServiceError) as caught:
        send(tmp_path, to)
    assert str(caught.value).count("the host's name is not known") == 2


def test_encryption_that_the_server_does_not_have(tmp_path, mail):
    to = mail.url().replace("mailto", "mailtos")
    with pytest.raises(ServiceError) as caught:
        send(tmp_path, [to])
    assert "STARTTLS extension not supported" in str(caught.value)
    assert not mail.mails


def test_encryption_with_a_certificate(tmp_path):
    with mail_server(tls=self_signed(tmp_path)) as mail:
        to = mail.url().replace("mailto", "mailtos")
        with pytest.raises(ServiceError) as caught:
            send(tmp_path, [to])
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
        assert not mail.mails
        assert len(send(tmp_path, [f"{to}&verify=no"]).told) == 1


def test_a_receipt_that_cannot_be_kept_is_an_error_after_everybody_was_told(tmp_path, mail, hook, monkeypatch):
    def refuse(*_):
        raise ServiceError("the bucket is full")

    monkeypatch.setattr(State, "write", refuse)
    with pytest.raises(ServiceError, match="the bucket is full"):
        send(tmp_path, [mail.url(), hook.url()])
    assert len(mail.mails) == 1
    assert len(hook.calls) == 1


def test_receipts_that_cannot_be_read_stop_it_before_anybody_is_told(tmp_path, mail, monkeypatch):
    def refuse(*_):
        raise ServiceError("the bucket does not answer")

    monkeypatch.setattr(State, "read", refuse)
    with pytest.raises(ServiceError, match="the bucket does not answer"):
        send(tmp_path, [mail.url()])
    assert mail.connections == 0
