from __future__ import annotations

from typing import Any

import pytest

from pipeparts.runtime.beam import is_local, pipeline_options, runner_of
from pipeparts.runtime.errors import InputError

pytestmark = pytest.mark.tfx

DATAFLOW = {
    "runner": "DataflowRunner",
    "project": "my-project",
    "region": "europe-west1",
    "temp_location": "gs://bucket/tmp",
}


def options_of(given: dict[str, Any]) -> dict[str, Any]:
    return pipeline_options(given).get_all_options()


@pytest.mark.parametrize("given", [None, {}, {"runner": "DirectRunner"}, {"runner": "direct"}])
def test_the_direct_runner_asks_no_network_and_has_one_worker(given: Any) -> None:
    found = pipeline_options(given).get_all_options()
    assert (found["runner"], found["direct_num_workers"], found["direct_running_mode"]) == (
        "FnApiRunner",
        1,
        "in_memory",
    )
    assert is_local(given)


def test_a_pipeline_really_runs_with_them() -> None:
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    options = pipeline_options({"direct_num_workers": 2.0, "direct_running_mode": "multi_threading"})
    with beam.Pipeline(options=options) as pipeline:
        doubled = pipeline | beam.Create([1, 2, 3]) | beam.Map(lambda number: number * 2)
        assert_that(doubled, equal_to([2, 4, 6]))


def test_numbers_of_kfp_become_whole_again() -> None:
    assert options_of({**DATAFLOW, "num_workers": 3.0, "disk_size_gb": 50.0})["num_workers"] == 3


def test_options_that_repeat_and_switches_arrive() -> None:
    found = options_of(
        {**DATAFLOW, "experiments": ["use_runner_v2", "shuffle_mode=service"], "use_public_ips": False, "no_auth": True}
    )
    assert found["experiments"][:2] == ["use_runner_v2", "shuffle_mode=service"]
    assert (found["use_public_ips"], found["no_auth"]) == (False, True)


def test_an_option_that_repeats_takes_a_single_value() -> None:
    assert options_of({**DATAFLOW, "labels": "team=risk"})["labels"] == ["team=risk"]


def test_defaults_give_way() -> None:
    assert (
        pipeline_options({"job_name": "mine"}, defaults={"job_name": "theirs"}).get_all_options()["job_name"] == "mine"
    )
    assert pipeline_options({}, defaults={"job_name": "theirs"}).get_all_options()["job_name"] == "theirs"


@pytest.mark.parametrize("runner", ["dataflow", "DATAFLOWRUNNER", "DataflowRunner"])
def test_a_runner_is_spelled_as_beam_spells_it(runner: str) -> None:
    assert runner_of({"runner": runner}) == "DataflowRunner"
    assert not is_local({"runner": runner})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"runner": "DataflowRuner"}, ["beam_options.runner", "did you mean 'DataflowRunner'"]),
        ({"runner": 3}, ["beam_options.runner", "received: 3"]),
        ({"num_worker": 3}, ["beam_options.num_worker", "did you mean 'num_workers'"]),
        ({"--num-workers": 3}, ["did you mean 'num_workers'"]),
        ({"num_workers": "many"}, ["beam_options.num_workers", "invalid int value", "'many'"]),
        ({"num_workers": [1, 2]}, ["beam_options.num_workers", "list: [1, 2]"]),
        ({"num_workers": 2.5}, ["beam_options.num_workers", "2.5"]),
        ({"num_workers": None}, ["beam_options.num_workers", "NoneType"]),
        ({"project": ""}, ["beam_options.project"]),
        ({"no_auth": "yes"}, ["beam_options.no_auth", "true or false"]),
        ({"direct_running_mode": "threads"}, ["beam_options.direct_running_mode", "multi_threading"]),
        ({"streaming": True}, ["beam_options.streaming", "the step waits"]),
        ({"no_wait_until_finish": True}, ["the step waits"]),
        ({"runner": "DataflowRunner"}, ["beam_options.project", "received: nothing"]),
        ({**DATAFLOW, "temp_location": "/tmp"}, ["beam_options.temp_location", "gs://", "'/tmp'"]),
        (["--runner=DirectRunner"], ["not a dictionary", "list"]),
    ],
)
def test_what_is_wrong_is_said(given: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        pipeline_options(given)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["s3_secret_access_key", "s3_session_token", "azure_connection_string", "my_password"])
def test_a_credential_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(InputError) as caught:
        pipeline_options({name: "hunter2"})
    assert "a credential" in str(caught.value)
    assert "hunter2" not in str(caught.value)
