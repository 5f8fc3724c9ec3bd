"""Tests of `publish_metrics`: against a real Pushgateway."""

import json
import logging
import math
import re
import subprocess
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.components.monitoring.publish_metrics.figures import HELP, Sample
from pipeparts.components.monitoring.publish_metrics.logic import publish_metrics, registry_of
from pipeparts.runtime.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.monitoring import Finding
from tests import monitoring_reports as reports
from tests.mlflow_services import answering
from tests.monitoring_services import GATEWAY_LOGIN, program, pushgateway, webhook
from tests.services import free_port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with pushgateway(tmp_path_factory.mktemp("gateway")) as address:
        yield address


def exposed(gateway, job):
    """What the gateway shows to Prometheus of a job: series to value."""
    with urllib.request.urlopen(f"{gateway}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs if f'job="{job}"' in name}


def publish(tmp_path, gateway, *, job, names=("drift", "performance", "decision"), changes=None, **arguments):
    given = {name: getattr(reports, name)(**(changes or {}).get(name, {})) for name in names}
    paths = reports.write(tmp_path, **given)
    metadata = publish_metrics(
        receipt_path=tmp_path / "receipt.json", pushgateway=gateway, job=job, **paths, **arguments
    )
    return metadata, json.loads((tmp_path / "receipt.json").read_text())


def test_all_that_the_reports_say_in_numbers(tmp_path, gateway):
    metadata, receipt = publish(tmp_path, gateway, job="all", labels={"environment": "staging"})
    found = exposed(gateway, "all")
    group = 'environment="staging",instance="",job="all"'
    end = f'{group},model="late_flights"'
    assert found[f"pipeparts_drift_detected{{{end}}}"] == 1
    assert found[f"pipeparts_drift_columns_ratio{{{end}}}"] == pytest.approx(1 / 3)
    assert found[f"pipeparts_drift_columns_limit_ratio{{{end}}}"] == 0.3
    psi = "pipeparts_drift_column_population_stability_index"
    assert found[f'{psi}{{column="temp",{end},role="feature"}}'] == 1.2345
    assert found[f'{psi}{{column="late",{end},role="prediction"}}'] == 0.034
    assert found[f'pipeparts_drift_column_missing_ratio{{column="temp",{end},role="feature"}}'] == 0.004
    assert found[f"pipeparts_batch_rows{{{end}}}"] == 27_123
    assert found[f"pipeparts_performance_degraded{{{end}}}"] == 1
    at = f'{group},metric="roc_auc",model="late_flights"'
    assert found[f"pipeparts_performance_value{{{at}}}"] == 0.68
    assert found[f"pipeparts_performance_registered_value{{{at}}}"] == 0.708
    assert found[f"pipeparts_performance_loss{{{at}}}"] == pytest.approx(0.028)
    lower_is_better = at.replace("roc_auc", "log_loss")
    assert found[f"pipeparts_performance_loss{{{lower_is_better}}}"] == pytest.approx(0.0319)
    assert found[f"pipeparts_performance_labelled_rows{{{end}}}"] == 26_900
    assert found[f"pipeparts_retraining_decided{{{end}}}"] == 1
    assert found[f'pipeparts_retraining_trigger_active{{{end},trigger="model_age_days"}}'] == 0
    assert found[f"pipeparts_model_age_seconds{{{end}}}"] == 62.5 * 86_400
    assert found[f"pipeparts_batch_timestamp_seconds{{{end}}}"] == 1_377_993_600
    assert found[f'pipeparts_model_info{{{end},uri="models:/late_flights/3",version="3"}}'] == 1
    ours = {name.partition("{")[0] for name in found if name.startswith("pipeparts_")}
    assert ours == set(HELP)
    assert not any("tail|num" in name for name in found)  # was not compared
    assert receipt["labels"] == {"job": "all", "environment": "staging", "model": "late_flights"}
    assert receipt["pushgateway"] == gateway
    assert metadata["published"] == len(receipt["metrics"]) == sum(name.startswith("pipeparts_") for name in found)


def test_what_is_not_defined_is_left_out(tmp_path, gateway):
    _, receipt = publish(tmp_path, gateway, job="undefined", names=["performance"])
    assert {"name": "pipeparts_performance_value", "labels": {"metric": "brier_score"}} in receipt["left_out"]
    names = exposed(gateway, "undefined")
    assert any('metric="brier_score"' in name and "registered" in name for name in names)
    assert not any(name.startswith("pipeparts_performance_value") and "brier" in name for name in names)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_is_left_out(value):
    assert not Sample("pipeparts_batch_rows", value).is_finite


def test_publishing_again_replaces(tmp_path, gateway):
    publish(tmp_path, gateway, job="again")
    before = exposed(gateway, "again")
    publish(tmp_path, gateway, job="again")
    times = {name for name in before if name.startswith("push_")}
    now = exposed(gateway, "again")
    assert {k: v for k, v in now.items() if k not in times} == {k: v for k, v in before.items() if k not in times}
    newer = {"drift": {"model": "models:/late_flights/4", "columns": (reports.column("temp", 0.1),), "drifted": False}}
    publish(tmp_path, gateway, job="again", names=["drift"], changes=newer)
    now = exposed(gateway, "again")
    assert not any('column="dep_time"' in name or "performance" in name for name in now)
    assert [name for name in now if "model_info" in name and 'version="4"' in name]
    assert not [name for name in now if "model_info" in name and 'version="3"' in name]


def test_two_models_do_not_replace_each_other(tmp_path, gateway):
    publish(tmp_path, gateway, job="two", names=["drift"])
    publish(tmp_path, gateway, job="two", names=["drift"], changes={"drift": {"model": "models:/fares/1"}})
    assert sum(name.startswith("pipeparts_drift_detected") for name in exposed(gateway, "two")) == 2


@pytest.mark.parametrize(("model", "version"), [("ab" * 16, "abababababab"), ("", None)])
def test_a_model_that_is_not_registered(tmp_path, gateway, model, version):
    _, receipt = publish(tmp_path, gateway, job="plain", names=["drift"], changes={"drift": {"model": model}})
    assert receipt["labels"] == {"job": "plain"}
    versions = [m["labels"]["version"] for m in receipt["metrics"] if m["name"] == "pipeparts_model_info"]
    assert versions == ([version] if version else [])


def test_labels_with_whatever_in_them(tmp_path, gateway):
    job = "nightly/flights & more"
    labels = {"model": 'späte "Flüge"/1', "empty": "", "number": 3}
    publish(tmp_path, gateway, job=job, labels=labels, names=["decision"])
    found = exposed(gateway, job)
    assert any('model="späte \\"Flüge\\"/1",number="3"' in name for name in found)


def test_nothing_is_published_without_an_address(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        metadata, receipt = publish(tmp_path, "", job="none")
    assert metadata["published"] == 0
    assert receipt["pushgateway"] == ""
    assert receipt["metrics"]
    assert "nothing is published, since `pushgateway` is empty" in caplog.text


def test_the_receipt_is_the_same_bytes_for_the_same_input(tmp_path, gateway):
    publish(tmp_path, gateway, job="bytes")
    first = (tmp_path / "receipt.json").read_bytes()
    publish(tmp_path, gateway, job="bytes")
    assert (tmp_path / "receipt.json").read_bytes() == first


def test_promtool_finds_no_fault_with_the_names(tmp_path, gateway):
    publish(tmp_path, gateway, job="lint")
    with urllib.request.urlopen(f"{gateway}/metrics", timeout=10) as answer:
        text = "\n".join(
            line for line in answer.read().decode().splitlines() if re.match(r"(# (HELP|TYPE) )?pipeparts_", line)
        )
    command = [program("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=text + "\n", capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_column_name_can_be_a_label(name, value):
    sample = Sample("pipeparts_drift_column_score", value, {"column": name, "role": "feature"})
    collected = next(iter(registry_of([sample]).collect())).samples[0]
    assert (collected.labels["column"], collected.value) == (name, value)


def test_a_huge_table_is_published(tmp_path, gateway):
    columns = tuple(reports.column(f"c{i}", 0.01) for i in range(3_000))
    metadata, _ = publish(tmp_path, gateway, job="huge", names=["drift"], changes={"drift": {"columns": columns}})
    assert metadata["published"] > 15_000


# --- logins ---------------------------------------------------------------------------------------------------------


def test_a_login(tmp_path, monkeypatch):
    user, password = GATEWAY_LOGIN
    monkeypatch.setenv("GATEWAY_PASSWORD", password)
    (tmp_path / "user").write_text(user + "\n")
    with pushgateway(tmp_path / "gateway", login=True) as gateway:
        for name in (user, f"file:{tmp_path / 'user'}"):
            metadata, _ = publish(tmp_path, gateway, job="login", user=name, password="env:GATEWAY_PASSWORD")
            assert metadata["published"] > 30
        monkeypatch.setenv("GATEWAY_PASSWORD", "hush-hush")
        for login in ({}, {"user": user, "password": "env:GATEWAY_PASSWORD"}):
            with pytest.raises(ServiceError, match="the Pushgateway refuses the login") as caught:
                publish(tmp_path, gateway, job="login", **login)
            assert caught.value.facts["received"] == "status 401: Unauthorized"
            assert caught.value.facts["where"] == gateway
            assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("login", "wrong"), [({"user": "me"}, "password"), ({"password": "env:X"}, "user")])
def test_half_a_login_is_refused(tmp_path, gateway, login, wrong):
    with pytest.raises(InputError, match="half a login") as caught:
        publish(tmp_path, gateway, job="half", **login)
    assert caught.value.facts["parameter"] == wrong


def test_a_password_in_the_open_is_refused(tmp_path, gateway):
    with pytest.raises(InputError, match="not a reference to a secret") as caught:
        publish(tmp_path, gateway, job="open", user="me", password="hush-hush")
    assert "hush" not in str(caught.value)


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "headline"),
    [
        ("http://me:hush-hush@127.0.0.1:9091", "an address with a login in it"),
        ("127.0.0.1:9091", "not the address of a Pushgateway"),
        ("ftp://127.0.0.1", "not the address of a Pushgateway"),
        ("http://", "not the address of a Pushgateway"),
        ("http://host:port", "not the address of a Pushgateway"),
        ("me:hush-hush@[", "not the address of a Pushgateway"),
    ],
)
def test_an_address_that_is_none(tmp_path, address, headline):
    with pytest.raises(InputError, match=headline) as caught:
        publish(tmp_path, address, job="x")
    assert caught.value.facts["parameter"] == "pushgateway"
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("labels", [{"1st": "x"}, {"__name": "x"}, {"a-b": "x"}, {"job": "x"}, {"column": "x"}])
def test_a_label_that_cannot_be_used(tmp_path, gateway, labels):
    with pytest.raises(InputError, match="a label that cannot be used") as caught:
        publish(tmp_path, gateway, job="x", labels=labels)
    assert caught.value.facts["parameter"] == f"labels.{next(iter(labels))}"


def test_a_label_that_is_no_text(tmp_path, gateway):
    with pytest.raises(InputError, match="a label's value that is no text"):
        publish(tmp_path, gateway, job="x", labels={"team": ["a"]})


def test_a_job_is_needed(tmp_path, gateway):
    with pytest.raises(InputError, match="the metrics need a job"):
        publish(tmp_path, gateway, job=" ")


def test_a_report_is_needed(tmp_path, gateway):
    with pytest.raises(InputError, match="nothing to publish"):
        publish(tmp_path, gateway, job="x", names=[])


def test_reports_of_two_models_are_refused(tmp_path, gateway):
    with pytest.raises(ContractError, match="the reports are of different models") as caught:
        publish(tmp_path, gateway, job="x", changes={"performance": {"model": "models:/fares/3"}})
    assert caught.value.facts["received"] == "fares, late_flights"


def test_nobody_listens(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServiceError, match="the Pushgateway does not answer") as caught:
        publish(tmp_path, address, job="x")
    assert caught.value.facts["where"] == address
    assert caught.value.facts["received"] == "the connection was refused"
    assert not (tmp_path / "receipt.json").exists()


def test_no_such_host(tmp_path):
    with pytest.raises(ServiceError) as caught:
        publish(tmp_path, "http://no-such-host.invalid:9091", job="x")
    assert caught.value.facts["received"] == "the host's name is not known"


def test_it_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeparts.components.monitoring.publish_metrics.logic._SECONDS", 0.3)
    with webhook() as server:
        server.hangs_seconds = 30
        with pytest.raises(ServiceError) as caught:
            publish(tmp_path, f"http://127.0.0.1:{server.port}", job="x")
    assert caught.value.facts["received"].startswith("no answer within")


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        (404, "there is no Pushgateway at this address"),
        (405, "there is no Pushgateway at this address"),
        (403, "refuses the login"),
        (500, "did not take the metrics"),
        (301, "did not take the metrics"),
    ],
)
def test_something_else_answers(tmp_path, status, headline):
    page = "<html><body><h1>Not\nhere</h1></body></html>"
    with answering(status, page, "text/html") as address, pytest.raises(ServiceError, match=headline) as caught:
        publish(tmp_path, address, job="x")
    assert caught.value.facts["received"] == f"status {status}: Not here"


def test_the_gateways_own_words_are_shown(tmp_path):
    """Another job publishes a metric of the same name with another type."""
    text = b"# TYPE pipeparts_drift_detected counter\npipeparts_drift_detected 1\n"
    with pushgateway(tmp_path / "gateway") as gateway:
        request = urllib.request.Request(f"{gateway}/metrics/job/other", data=text, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        with pytest.raises(ServiceError, match="the Pushgateway did not take the metrics") as caught:
            publish(tmp_path, gateway, job="x")
    assert caught.value.facts["received"].startswith("status 400: ")
    assert "pipeparts_drift_detected" in caught.value.facts["received"]
    assert "another type" in caught.value.facts["hint"]


def test_an_age_that_is_not_known(tmp_path, gateway):
    triggers = (Finding(name="model_age_days", exceeded=False, value=None, limit=90, reason="Nobody knows."),)
    _, receipt = publish(tmp_path, gateway, job="age", names=["decision"], changes={"decision": {"triggers": triggers}})
    assert receipt["left_out"] == [{"name": "pipeparts_model_age_seconds", "labels": {}}]
