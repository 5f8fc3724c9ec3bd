"""Artifact Registry through the real client, over TLS, with a service account's key: see `artifact_registry_server`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeparts.errors import InputError, ServiceError
from pipeparts.publishing import artifact_registry as module
from pipeparts.publishing.publisher import open_destination, publish
from tests.publishing.artifact_registry_server import ADDRESS, Registry, artifact_registry
from tests.publishing.conftest import Make


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    folder = tmp_path / "google"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, artifact_registry(folder) as found:
        patch.setattr(module, "_WAIT_SECONDS", 0.0)
        yield found


def test_what_is_published(registry: Registry, make: Make, tmp_path: Path) -> None:
    template = make("load", "1.0.0")
    (published,) = publish(open_destination(ADDRESS), [template], tags=["stable"])
    assert (published.state, published.digest) == ("published", template.digest)
    assert published.location == f"{ADDRESS}/load/1.0.0"
    assert registry.packages == {"load": {template.digest: template.content}}
    assert registry.tags == {"load": dict.fromkeys(["1.0.0", "latest", "stable"], template.digest)}

    from kfp.registry import RegistryClient

    client = RegistryClient(host=ADDRESS)
    client.download_pipeline("load", tag="stable", file_name=str(tmp_path / "got.yaml"))
    assert (tmp_path / "got.yaml").read_bytes() == template.content
    assert [each["name"].rpartition("/")[2] for each in client.list_packages()] == ["load"]
    assert client.delete_package("load")


def test_the_same_again_uploads_nothing(registry: Registry, make: Make) -> None:
    publish(open_destination(ADDRESS), [make()])
    registry.requests.clear()
    (published,) = publish(open_destination(ADDRESS), [make()])
    assert (published.state, published.digest) == ("already there", make().digest)
    assert {request.partition(" ")[0] for request in registry.requests if "oauth2" not in request} == {"GET"}


def test_a_version_never_changes(registry: Registry, make: Make) -> None:
    publish(open_destination(ADDRESS), [make()])
    with pytest.raises(InputError, match="published already, with another content"):
        publish(open_destination(ADDRESS), [make(note="changed")])
    assert list(registry.packages["load"]) == [make().digest]


def test_versions_and_tags_over_several_pages(registry: Registry, make: Make) -> None:
    for version in ("1.0.0", "1.2.0", "1.1.0", "1.3.0-rc.1"):
        publish(open_destination(ADDRESS), [make("load", version, note=version)], tags=["newest"])
    tags = registry.tags["load"]
    assert tags["latest"] == tags["1.2.0"]
    assert tags["newest"] == tags["1.3.0-rc.1"]
    destination = open_destination(ADDRESS)
    assert sorted(map(str, destination.versions(make()))) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0-rc.1"]
    assert any("pageToken=2" in request for request in registry.requests)


def test_an_interface_is_kept_within_a_major_version(registry: Registry, make: Make) -> None:
    publish(open_destination(ADDRESS), [make("load", "1.0.0")])
    with pytest.raises(InputError, match=r"the interface breaks the one of 1\.0\.0"):
        publish(open_destination(ADDRESS), [make("load", "1.0.1", without_rows=True)])
    assert "1.0.1" not in registry.tags["load"]
    publish(open_destination(ADDRESS), [make("load", "2.0.0", without_rows=True)])


def test_a_dry_run_writes_nothing(registry: Registry, make: Make) -> None:
    (published,) = publish(open_destination(ADDRESS), [make()], tags=["stable"], dry_run=True)
    assert published.state == "to be published"
    assert registry.packages == {}


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "cut after"])
@pytest.mark.parametrize(
    "place", [r"^POST europe-kfp", r"^GET .*/tags/1\.0\.0", r"^POST .*tagId=latest", r"^GET .*tags\?"]
)
def test_a_passing_fault_is_got_over(registry: Registry, make: Make, fault: int | str, place: str) -> None:
    registry.faults = [(place, fault)]
    template = make()
    (published,) = publish(open_destination(ADDRESS), [template])
    assert published.digest == template.digest
    assert registry.faults == []
    assert registry.packages == {"load": {template.digest: template.content}}
    assert registry.tags == {"load": dict.fromkeys(["1.0.0", "latest"], template.digest)}


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (401, InputError, "access is denied"),
        (403, InputError, "access is denied"),
        (404, InputError, "there is no such repository"),
        (400, InputError, "the registry refuses the template"),
        (409, InputError, "the registry refuses the template"),
        (429, ServiceError, "the registry answered with status 429"),
        (500, ServiceError, "the registry answered with status 500"),
        ("cut", ServiceError, "the registry does not answer"),
    ],
)
def test_a_fault_that_stays_is_an_error(
    registry: Registry, make: Make, fault: int | str, kind: type[Exception], message: str
) -> None:
    registry.faults = [("^POST europe-kfp", fault)] * 9
    with pytest.raises(kind, match=message) as error:
        publish(open_destination(ADDRESS), [make()])
    assert error.value.facts["where"] == f"{ADDRESS}/load/1.0.0"
    if fault != "cut":
        assert error.value.facts["received"] == f"{fault}: planted {fault}"
    assert registry.packages == {}
    registry.faults = []
    publish(open_destination(ADDRESS), [make()])
    assert registry.tags == {"load": dict.fromkeys(["1.0.0", "latest"], make().digest)}


def test_an_account_without_the_role(registry: Registry, make: Make) -> None:
    registry.denied = True
    with pytest.raises(InputError, match="access is denied") as error:
        publish(open_destination(ADDRESS), [make()])
    assert "roles/artifactregistry.writer" in error.value.facts["hint"]


def test_no_credentials(registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    with pytest.raises(InputError, match="no credentials were found"):
        publish(open_destination(ADDRESS), [make()])


def test_credentials_that_google_refuses(registry: Registry, make: Make) -> None:
    registry.faults = [("oauth2", 400)] * 9
    with pytest.raises(InputError, match="Google gave no access token"):
        publish(open_destination(ADDRESS), [make()])


def test_no_such_repository(registry: Registry, make: Make) -> None:
    with pytest.raises(InputError, match="there is no such repository"):
        publish(open_destination("https://europe-kfp.pkg.dev/project/other"), [make()])


def test_a_server_that_never_answers(registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    waiting = threading.Event()
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    monkeypatch.setattr(registry, "fault", lambda request: waiting.wait(60) and None)
    with pytest.raises(ServiceError, match="the registry does not answer") as error:
        publish(open_destination(ADDRESS), [make()])
    waiting.set()
    assert "no answer within" in error.value.facts["received"]


def test_somebody_else_at_the_same_moment(registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = make(), make(note="theirs")
    destination = open_destination(ADDRESS)
    assert isinstance(destination, module.ArtifactRegistry)
    upload = destination._upload

    def upload_both(template: object) -> tuple[str, str]:
        uploaded = upload(mine)
        upload(theirs)
        return uploaded

    monkeypatch.setattr(destination, "_upload", upload_both)
    with pytest.raises(ServiceError, match="somebody else published this version at the same moment"):
        publish(destination, [mine])
