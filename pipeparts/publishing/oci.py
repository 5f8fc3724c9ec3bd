"""Templates in an OCI registry, beside the images: each an artifact of one layer, which is the YAML.

`oci://HOST/REPOSITORY/NAME:VERSION`; `oras pull` gives the file back. Credentials are those of `docker login`.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeparts.errors import ContractError, InputError, PipepartsError, ServiceError
from pipeparts.publishing.templates import Template, digest_of
from pipeparts.publishing.versions import LATEST, Version, latest

if TYPE_CHECKING:
    import requests

#: What the artifact is, and what its layer is.
ARTIFACT_TYPE = "application/vnd.pipeparts.template.config.v1+json"
LAYER_TYPE = "application/vnd.pipeparts.template.v1+yaml"

_SCHEME = "oci://"
_SECONDS = 60.0
_ATTEMPTS = 4
_WAIT_SECONDS = 0.5
_LONGEST = 10_000


class OciRegistry:
    """A repository of an OCI registry, by its address.

    Raises:
        InputError: For an address that is none, or where the package that speaks to registries is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        host, _, repository = self.address.removeprefix(_SCHEME).partition("/")
        known = "." in host or ":" in host
        if not known or not repository or repository != repository.lower() or set(address) & {"@", "?", "#", " "}:
            raise InputError(
                "not a repository of an OCI registry",
                parameter="--to",
                allowed="oci://HOST/REPOSITORY, as oci://ghcr.io/team/components, in small letters",
                received=address.rpartition("@")[2],
                hint="log in with `docker login` first" if "@" in address else None,
            )
        self._host = host
        self._repository = f"{host}/{repository}"

    def location(self, template: Template) -> str:
        """Where a template is, or will be."""
        return f"{_SCHEME}{self._target(template, str(template.version))}"

    def versions(self, template: Template) -> list[Version]:
        """The versions that are tags of a template's repository."""
        try:
            tags = self._client.get_tags(self._target(template, LATEST))
        except _NotThereError:
            return []
        return [version for tag in tags if (version := Version.find(tag)) is not None]

    def read(self, template: Template, version: Version) -> bytes | None:
        """The content of a version; None where there is none.

        Raises:
            ContractError: For an artifact that is no template.
        """
        target = self._target(template, str(version))
        manifest = self._manifest(target)
        if manifest is None:
            return None
        layers = [layer for layer in manifest.get("layers", []) if layer.get("mediaType") == LAYER_TYPE]
        if len(layers) != 1:
            raise ContractError(
                "an artifact that is no template",
                parameter="--to",
                where=f"{_SCHEME}{target}",
                allowed=f"one layer of type {LAYER_TYPE}",
                received=[layer.get("mediaType") for layer in manifest.get("layers", [])],
            )
        content: bytes = self._client.get_blob(target, layers[0]["digest"]).content
        if digest_of(content) != layers[0]["digest"]:
            raise ServiceError("the registry gave other bytes than it promised", where=f"{_SCHEME}{target}")
        return content

    def publish(self, templates: Sequence[Template], tags: Sequence[str]) -> dict[str, str]:
        """Pushes templates under their versions, then moves the tags to them.

        Returns:
            Template name to the manifest's digest.

        Raises:
            ServiceError: Where the registry does not answer, or somebody else gave the version at the same moment.
        """
        return {template.name: self._publish(template, tags) for template in templates}

    def _publish(self, template: Template, tags: Sequence[str]) -> str:
        target = self._target(template, str(template.version))
        if self._manifest(target) is None:
            self._push(template, target)
            if self.read(template, template.version) != template.content:
                raise ServiceError(
                    "somebody else published this version at the same moment", where=self.location(template)
                )
        moving = [*tags]
        if not template.version.pre and latest([*self.versions(template), template.version]) == template.version:
            moving.append(LATEST)
        manifest = self._manifest(target) or {}
        for tag in moving:
            container = self._client.get_container(self._target(template, tag))
            self._client._check_200_response(self._client.upload_manifest(manifest, container))
        return str(self._client.digest(target))

    def _push(self, template: Template, target: str) -> None:
        # The layers go first, the manifest last: an artifact is there whole or not at all.
        with tempfile.TemporaryDirectory(prefix="pipeparts-publish-") as folder:
            layer, config = Path(folder) / template.file, Path(folder) / "config.json"
            layer.write_bytes(template.content)
            facts = {
                "kind": template.kind,
                "stage": template.stage,
                "inputs": template.inputs,
                "outputs": template.outputs,
            }
            config.write_text(json.dumps(facts, sort_keys=True, ensure_ascii=False), encoding="utf-8")
            self._client.push(
                target,
                files=[f"{layer}:{LAYER_TYPE}"],
                manifest_config=f"{config}:{ARTIFACT_TYPE}",
                manifest_annotations={
                    "org.opencontainers.image.title": template.name,
                    "org.opencontainers.image.version": str(template.version),
                    "org.opencontainers.image.description": template.summary,
                },
                disable_path_validation=True,
                quiet=True,
            )

    def _manifest(self, target: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.get_manifest(target)
        except _NotThereError:
            return None
        return found

    def _target(self, template: Template, tag: str) -> str:
        return f"{self._repository}/{template.name}:{tag}"

    @functools.cached_property
    def _client(self) -> Any:
        try:
            from oras.logger import setup_logger
        except ImportError as error:
            raise InputError(
                "publishing to oci:// needs a package that is not installed",
                parameter="--to",
                received=str(error),
                hint="install pipeparts[publish]",
            ) from error
        setup_logger(quiet=True)  # what went wrong is in the error
        return _client(self._host)


class _NotThereError(InputError):
    """The registry has no such tag or repository."""


def _client(host: str) -> Any:
    """A client with limits of time, and errors that say what the registry answered."""
    import requests
    from oras.client import OrasClient
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Adapter(HTTPAdapter):  # type: ignore[misc]
        def send(self, *arguments: Any, **options: Any) -> requests.Response:
            options["timeout"] = options.get("timeout") or _SECONDS
            return super().send(*arguments, **options)

    class Client(OrasClient):  # type: ignore[misc]
        def do_request(self, url: str, method: str = "GET", **options: Any) -> requests.Response:
            """One request; the client's own would wait for minutes before it says what went wrong."""
            try:
                response = OrasClient.do_request.__wrapped__(self, url, method, **options)
            except (requests.RequestException, ValueError) as error:
                raise _explain(error, url) from error
            # That a blob is not there is what the client asks before it sends it.
            if response.status_code >= 400 and not (response.status_code == 404 and method == "HEAD"):
                raise _refused(response)
            return response

        def digest(self, target: str) -> str:
            """The digest of a manifest."""
            address = f"{self.prefix}://{self.get_container(target).manifest_url()}"
            kind = "application/vnd.oci.image.manifest.v1+json"
            response = self.do_request(address, headers={"Accept": kind})
            return str(
                response.headers.get("Docker-Content-Digest")
                or f"sha256:{hashlib.sha256(response.content).hexdigest()}"
            )

    # Every request may be repeated: a blob is what its digest says, and a lost session is begun anew.
    retries = Retry(
        total=_ATTEMPTS - 1,
        backoff_factor=_WAIT_SECONDS,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    insecure = _is_loopback(host)
    address = f"{'http' if insecure else 'https'}://{host}/v2/"
    with requests.Session() as session:
        session.mount(address, Adapter(max_retries=retries))
        try:
            challenge = session.get(address).headers.get("WWW-Authenticate", "")
        except requests.RequestException as error:
            raise _explain(error, address) from error
    by_password = challenge.lower().startswith("basic")  # each time, where others give a token for it
    client = Client(hostname=host, insecure=insecure, auth_backend="basic" if by_password else "token")
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, Adapter(max_retries=retries))
    try:
        client.auth.load_configs(client.get_container(f"{host}/any"))
    except (OSError, ValueError) as error:
        raise InputError("cannot read the logins of docker", parameter="--to", received=str(error)) from error
    if by_password and not hasattr(client.auth, "_basic_auth"):
        raise _denied(address, "no login for this registry")
    return client


def _is_loopback(host: str) -> bool:
    """As Docker: a registry of this machine speaks plain HTTP."""
    name = host.rpartition(":")[0] or host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def _explain(error: Exception, url: str) -> PipepartsError:
    if isinstance(error, PipepartsError):
        return error
    received = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ValueError) and "authentication" in str(error):
        return _denied(url, received)
    return ServiceError(
        "the registry does not answer", parameter="--to", where=url.partition("?")[0], received=received
    )


def _refused(response: requests.Response) -> PipepartsError:
    status, where = response.status_code, str(response.url).partition("?")[0]
    try:
        said = "; ".join(f"{each.get('code')}: {each.get('message')}" for each in response.json()["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = " ".join(response.text.split())
    received = f"{status}: {said or response.reason}"[:_LONGEST]
    if status in (401, 403):
        return _denied(where, received)
    if status == 404:
        return _NotThereError("there is no such repository", parameter="--to", where=where, received=received)
    if 400 <= status < 500 and status != 429:
        return InputError("the registry refuses the template", parameter="--to", where=where, received=received)
    return ServiceError(f"the registry answered with status {status}", parameter="--to", where=where, received=received)


def _denied(url: str, received: str) -> InputError:
    return InputError(
        "access is denied",
        parameter="--to",
        where=url.partition("?")[0],
        received=received,
        hint="log in with `docker login HOST`, as an account that may push to the repository",
    )
