"""Templates in a Kubeflow Pipelines repository of Google's Artifact Registry.

The registry names a version after its content; the semantic version is a tag. Vertex AI takes the address
`https://LOCATION-kfp.pkg.dev/PROJECT/REPOSITORY/NAME/TAG` for a template.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from pipeparts.errors import InputError, PipepartsError, ServiceError
from pipeparts.publishing.templates import Template
from pipeparts.publishing.versions import LATEST, Version, latest

_ADDRESS = re.compile(r"https://[a-z0-9-]+-kfp\.pkg\.dev/[^/?#]+/[^/?#]+")
_ATTEMPTS = 4
_SECONDS = 120.0
_WAIT_SECONDS = 0.5
_PAGE_SIZE = 1000

T = TypeVar("T")


class ArtifactRegistry:
    """A repository, by its address.

    Raises:
        InputError: For an address that is none, and where there are no credentials.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if not _ADDRESS.fullmatch(self.address):
            raise InputError(
                "not a Kubeflow Pipelines repository of Artifact Registry",
                parameter="--to",
                allowed="https://LOCATION-kfp.pkg.dev/PROJECT/REPOSITORY",
                received=address,
            )
        self._digests: dict[str, str] = {}

    def location(self, template: Template) -> str:
        """Where a template is, or will be: what Vertex AI takes for its address."""
        return f"{self.address}/{template.package}/{template.version}"

    def versions(self, template: Template) -> list[Version]:
        """The versions that are tags of a package."""
        names = (str(tag.get("name", "")).rpartition("/")[2] for tag in self._tags(template))
        return [version for name in names if (version := Version.find(name)) is not None]

    def read(self, template: Template, version: Version) -> bytes | None:
        """The content of a version; None where there is none."""
        with tempfile.TemporaryDirectory(prefix="pipeparts-publish-") as folder:
            path = Path(folder) / "template.yaml"
            found = self._call(
                lambda: self._client.download_pipeline(template.package, tag=str(version), file_name=str(path)),
                f"{self.address}/{template.package}/{version}",
                missing=None,
            )
            return path.read_bytes() if found is not None else None

    def publish(self, templates: Sequence[Template], tags: Sequence[str]) -> dict[str, str]:
        """Uploads templates with their version as a tag, then moves the other tags to them.

        Returns:
            Template name to the version that the registry gave it: "sha256:...".

        Raises:
            InputError: Where an upload was taken for another package.
            ServiceError: Where the registry does not answer, or somebody else gave the version at the same moment.
        """
        return {template.name: self._publish(template, tags) for template in templates}

    def _publish(self, template: Template, tags: Sequence[str]) -> str:
        version = str(template.version)
        digest = self._tagged(template, version)
        if digest is None:
            package, digest = self._upload(template)
            if package != template.package:
                raise InputError(
                    "the registry took the template for another package",
                    parameter="--to",
                    where=self.address,
                    allowed=template.package,
                    received=package,
                )
            there = self._tagged(template, version)
            if there != digest:  # tags have no condition: the last one wins
                raise ServiceError(
                    "somebody else published this version at the same moment",
                    where=self.location(template),
                    allowed=digest,
                    received=there,
                    hint="look at which of the two is right, then publish under the next version",
                )
        moving = [*tags]
        if not template.version.pre and latest([*self.versions(template), template.version]) == template.version:
            moving.append(LATEST)
        for tag in moving:
            self._tag(template, digest, tag)
        return digest

    def _upload(self, template: Template) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(prefix="pipeparts-publish-") as folder:
            path = Path(folder) / template.file
            path.write_bytes(template.content)
            # The same bytes are the same version: an upload whose answer was lost may be sent again.
            package, version = self._call(
                lambda: self._client.upload_pipeline(str(path), tags=[str(template.version)]), self.location(template)
            )
        return str(package), str(version)

    def _tag(self, template: Template, digest: str, tag: str) -> None:
        there = self._tagged(template, tag)
        if there == digest:
            return
        where = f"{self.address}/{template.package}/{tag}"
        if there is None:
            made = self._call(lambda: self._client.create_tag(template.package, digest, tag), where, taken=False)
            if made is not False:
                return
        self._call(lambda: self._client.update_tag(template.package, digest, tag), where)

    def _tagged(self, template: Template, tag: str) -> str | None:
        """The registry's version that a tag points at."""
        found = self._call(
            lambda: self._client.get_tag(template.package, tag),
            f"{self.address}/{template.package}/{tag}",
            missing=None,
        )
        return str(found.get("version", "")).rpartition("/")[2] if found is not None else None

    def _tags(self, template: Template) -> list[dict[str, Any]]:
        """Every tag of a package; the client's own `list_tags` gives the first page only."""
        address = self._client._config["list_tags_url"].format(package_name=template.package)
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            query = urlencode({"pageSize": _PAGE_SIZE, **({"pageToken": token} if token else {})})
            page = self._call(
                lambda query=query: self._client._request(f"{address}?{query}").json(),  # type: ignore[misc]
                f"{self.address}/{template.package}",
                missing={},
            )
            found += page.get("tags") or []
            token = page.get("nextPageToken") or ""
            if not token:
                return found

    @functools.cached_property
    def _client(self) -> Any:
        from google.auth import exceptions
        from kfp.registry import RegistryClient

        try:
            return RegistryClient(host=self.address)
        except exceptions.DefaultCredentialsError as error:
            raise InputError(
                "no credentials were found",
                parameter="--to",
                where=self.address,
                received=" ".join(str(error).split()),
                hint="looked in: GOOGLE_APPLICATION_CREDENTIALS, gcloud's default login, the account of the machine",
            ) from error

    def _call(self, ask: Callable[[], Any], where: str, **special: Any) -> Any:
        """Asks the registry, again where that may help.

        Args:
            ask: The call; each of them may be repeated.
            where: What it concerns.
            special: `missing`: what to give where that is not there; `taken`: where it is there already.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return _in_time(ask)
            except Exception as error:
                status = _status(error)
                if status == 404 and "missing" in special:
                    return special["missing"]
                if status == 409 and "taken" in special:
                    return special["taken"]
                explained = _explain(error, status, where)
                if not explained.retryable or attempt == _ATTEMPTS - 1:
                    raise explained from error
                time.sleep(_WAIT_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def _in_time(ask: Callable[[], T]) -> T:
    """Gives up on a server that never answers: the client sets no limit of its own."""
    answer: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(ask())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="artifact-registry", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if failed:
        raise failed[0]
    if not answer:
        raise TimeoutError(f"no answer within {_SECONDS:.0f} s")
    return answer[0]


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _explain(error: Exception, status: int | None, where: str) -> PipepartsError:
    if isinstance(error, PipepartsError):
        return error
    received = " ".join(f"{type(error).__name__}: {error}".split())
    with contextlib.suppress(Exception):  # the registry says in JSON what is wrong
        received = f"{status}: {error.response.json()['error']['message']}"  # type: ignore[attr-defined]
    if type(error).__module__.startswith("google.auth") and status is None:
        retryable = getattr(error, "retryable", False)
        kind: type[PipepartsError] = ServiceError if retryable else InputError
        hint = "log in again: gcloud auth application-default login"
        return kind("Google gave no access token", parameter="--to", where=where, received=received, hint=hint)
    if status in (401, 403):
        return InputError(
            "access is denied",
            parameter="--to",
            where=where,
            received=received,
            hint="the account needs roles/artifactregistry.writer on the repository",
        )
    if status == 404:
        return InputError(
            "there is no such repository",
            parameter="--to",
            where=where,
            received=received,
            hint="gcloud artifacts repositories create REPOSITORY --location LOCATION --repository-format kfp",
        )
    if status is not None and 400 <= status < 500 and status != 429:
        return InputError("the registry refuses the template", parameter="--to", where=where, received=received)
    if status is not None:
        return ServiceError(
            f"the registry answered with status {status}", parameter="--to", where=where, received=received
        )
    return ServiceError("the registry does not answer", parameter="--to", where=where, received=received)
