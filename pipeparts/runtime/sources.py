"""Files by path, folder, glob or address: which ones match, and which version of them is there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pipeparts.runtime.errors import InputError, PipepartsError, ServiceError, suggest

#: The schemes that are understood; `gcs` and `s3a` are other spellings.
SCHEMES = ("gs", "s3", "https", "http", "file")
_ALIASES = {"gcs": "gs", "s3a": "s3"}
_ALLOWED = ("a path", "gs://bucket/path", "s3://bucket/path", "https://host/path")
_GLOB = re.compile(r"[*?\[]")

# What an object store says of an object's content, the surest first. Times stand for the content only
# where nothing better is said.
_CHECKSUMS = ("md5Hash", "crc32c", "ETag", "etag", "Content-MD5", "Digest")
_TIMES = ("LastModified", "updated", "Last-Modified", "last_modified", "mtime")


class SourceFile(NamedTuple):
    """One file of a source.

    Attributes:
        fs: The fsspec filesystem that opens it.
        path: Its path there.
        size: Its bytes; None where the server does not say.
        name: How people know it: the path or address as given, without any secret.
        version: Of its content, as far as the filesystem tells: an etag, or size and time.
    """

    fs: Any
    path: str
    size: int | None
    name: str
    version: str


def expand(source: str, *, parameter: str = "source") -> list[SourceFile]:
    """Finds the files that a source names, sorted by name.

    A folder gives every file in it and below it, without those whose own name or whose folder's name
    begins with `.` or `_` (a table's description, a job's markers). A glob may hold `*`, `?`, `[...]` and `**`.

    Args:
        source: A path, a folder, a glob, or an address (gs://, s3://, https://, http://).
        parameter: Its parameter's name, for the message.

    Raises:
        InputError: Where nothing matches, or the scheme, the address or the credentials are wrong.
        ServiceError: Where the server does not answer.
    """
    source = str(source)
    scheme = _scheme(source, parameter)
    if scheme == "file":
        found = _local(source.removeprefix("file://"))
    else:
        fs = _filesystem(scheme)
        with service_errors(source, parameter=parameter):
            found = _http(fs, source) if scheme in ("http", "https") else _objects(fs, scheme, source)
    if not found:
        kind = "glob" if _GLOB.search(source) else "source"
        raise InputError(
            f"no file matches the {kind}",
            parameter=parameter,
            allowed="a file, a folder with files in it, or a glob that matches some",
            received=public_name(source),
            hint=_near(source) if scheme == "file" else None,
        )
    return sorted(found, key=lambda file: file.name)


def source_version(source: str) -> str:
    """The fingerprint of every file that a source names, without reading them.

    It goes in as a parameter when a run is submitted, so that a file that changed under the same name
    is noticed by the cache. From names, sizes and checksums or etags; from the time of change
    (nanoseconds for local files) where there is no checksum.

    Returns:
        32 hexadecimal digits.

    Raises:
        InputError: Where nothing matches, or the scheme, the address or the credentials are wrong.
        ServiceError: Where the server does not answer.
    """
    return files_version(expand(source))


def files_version(files: list[SourceFile]) -> str:
    """The fingerprint of files that `expand` found: 32 hexadecimal digits."""
    document = [[file.name, file.size, file.version] for file in files]
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()[:32]


def public_name(source: str) -> str:
    """A source as it may be shown: without user, password, query (signatures live there) and fragment."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https"):
        return source.replace(f"{parts.netloc}/", f"{parts.netloc.rpartition('@')[2]}/", 1)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextlib.contextmanager
def service_errors(source: str, *, parameter: str = "source", action: str = "read") -> Iterator[None]:
    """Turns what the filesystems' clients raise into errors of this library."""
    try:
        yield
    except (PipepartsError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _explain(error, source, parameter, action) from error


def server_status(error: Exception) -> int | None:
    """The status (404, 503) of the server's answer that an error of a filesystem's client carries, or None."""
    return next((status for link in _chain(error) if (status := _status(link)) is not None), None)


def _scheme(source: str, parameter: str) -> str:
    if not source.strip():
        raise InputError("no source is given", parameter=parameter, allowed=_ALLOWED, received="an empty text")
    given, mark, _ = source.partition("://")
    if not mark:
        return "file"
    scheme = _ALIASES.get(given.lower(), given.lower())
    if scheme not in SCHEMES:
        raise InputError(
            "a source with a scheme that is not known",
            parameter=parameter,
            allowed=[*SCHEMES, *_ALIASES],
            received=public_name(source),
            hint=suggest(given, [*SCHEMES, *_ALIASES]),
        )
    return scheme


def open_filesystem(address: str, *, parameter: str = "source") -> Any:
    """The fsspec filesystem of an address: this library's own way for the schemes it reads from, fsspec's for others.

    Raises:
        InputError: For a scheme that is not known, or whose package is not installed.
    """
    given = address.partition("://")[0].lower()
    scheme = _ALIASES.get(given, given)
    if scheme in SCHEMES and scheme != "file":
        return _filesystem(scheme)
    import fsspec

    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(
            "an address whose scheme is not known here",
            parameter=parameter,
            allowed=[*SCHEMES, *_ALIASES, "what fsspec has a package for"],
            received=public_name(address),
            hint=suggest(given, [*SCHEMES, *_ALIASES]) or " ".join(str(error).split()),
        ) from error


def _filesystem(scheme: str) -> Any:
    # A listing of an earlier call would hide a change.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if scheme in ("http", "https"):
            import aiohttp
            import fsspec

            # aiohttp's own limit of five minutes for a whole download would cut large files short.
            limit = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=120)
            return fsspec.filesystem(scheme, client_kwargs={"timeout": limit}, **options)
        if scheme == "gs":
            # The class that speaks the JSON API for all it does; fsspec would give one that asks over gRPC as well.
            from gcsfs.core import GCSFileSystem

            # An emulator asks for no account, and the search for one takes long.
            token = "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else None
            return GCSFileSystem(token=token, **options)
        from s3fs import S3FileSystem

        return S3FileSystem(**options)
    except ImportError as error:
        raise InputError(
            f"reading {scheme}:// needs a package that is not installed",
            received=str(error),
            hint="install pipeparts[data]",
        ) from error


def _local(source: str) -> list[SourceFile]:
    import fsspec

    fs = fsspec.filesystem("file")
    given = Path(source).expanduser()
    if given.is_file():
        paths = [given]
    elif given.is_dir():
        paths = [path for path in given.rglob("*") if path.is_file() and _counts(path.relative_to(given).parts)]
        _refuse_partitions([str(path.relative_to(given)) for path in paths], source)
    elif _GLOB.search(source):
        import glob

        hidden = Path(source).name.startswith((".", "_"))
        matches = (Path(match) for match in glob.glob(str(given), recursive=True, include_hidden=hidden))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        paths = [path for path in matches if path.is_file() and (hidden or _counts(path.parts[-1:]))]
    else:
        paths = []
    found = []
    for path in paths:
        facts = path.stat()
        # Nanoseconds: a file written twice within a second is another file.
        found.append(SourceFile(fs, str(path), facts.st_size, str(path), f"mtime_ns={facts.st_mtime_ns}"))
    return found


def _http(fs: Any, source: str) -> list[SourceFile]:
    if "*" in source or urlsplit(source).path.endswith("/"):
        raise InputError(
            "globs and folders are not possible over http",
            parameter="source",
            allowed="the address of one file",
            received=public_name(source),
        )
    facts = fs.info(source)
    return [SourceFile(fs, source, facts.get("size"), public_name(source), _version(facts))]


def _objects(fs: Any, scheme: str, source: str) -> list[SourceFile]:
    path = source.partition("://")[2]
    if not path.strip("/"):
        raise InputError(
            "a source without a bucket", parameter="source", allowed=f"{scheme}://bucket/path", received=source
        )
    if _GLOB.search(path) and not fs.exists(path):
        listed = fs.glob(path, detail=True)
        hidden = path.rpartition("/")[2].startswith((".", "_"))
        facts = [info for name, info in listed.items() if hidden or _counts((name.rpartition("/")[2],))]
    else:
        facts = list(fs.find(path, detail=True).values())
        root = path.rstrip("/") + "/"
        inside = [info for info in facts if info["name"].startswith(root)]
        if not inside:
            facts = [info for info in facts if info["name"] == path]
        else:
            facts = [info for info in inside if _counts(tuple(info["name"].removeprefix(root).split("/")))]
            _refuse_partitions([info["name"].removeprefix(root) for info in facts], source)
    return [
        SourceFile(fs, info["name"], info.get("size"), f"{scheme}://{info['name']}", _version(info))
        for info in facts
        if info.get("type") == "file" and not info["name"].endswith("/")
    ]


def _counts(parts: tuple[str, ...]) -> bool:
    return not any(part.startswith((".", "_")) for part in parts)


def _refuse_partitions(names: list[str], source: str) -> None:
    for name in names:
        folders = name.split("/")[:-1]
        if any(re.fullmatch(r"[^=]+=[^=]*", folder) for folder in folders):
            raise InputError(
                "folders whose names hold values of columns are not read",
                parameter="source",
                where=name,
                allowed="a folder of files that hold all their columns",
                received=public_name(source),
                hint="a glob such as folder/*/*.parquet reads them without the columns in the names",
            )


def _version(facts: dict[str, Any]) -> str:
    for names in (_CHECKSUMS, _TIMES):
        for name in names:
            if facts.get(name):
                return f"{name}={facts[name]}"
    return "unknown"


def _near(source: str) -> str | None:
    """The close match in the folder that is there, for a name mistyped."""
    path = Path(source)
    if _GLOB.search(source):
        return None if path.parent.is_dir() or _GLOB.search(str(path.parent)) else f"there is no folder {path.parent}"
    if path.is_dir():
        return "the folder holds no file that counts: names that begin with . or _ do not"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return suggest(path.name, [entry.name for entry in path.parent.iterdir()])


_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, the role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud's default login, the account of the machine",
}


def _explain(error: Exception, source: str, parameter: str, action: str) -> PipepartsError:
    scheme = source.partition("://")[0]
    chain = _chain(error)
    names = {type(link).__name__ for link in chain}
    status = server_status(error)
    kind: type[PipepartsError] = InputError
    hint = None
    # aiohttp's client errors stand behind fsspec's "file not found", whatever went wrong.
    unreachable = any(type(link).__module__.startswith("aiohttp") for link in chain) and status is None
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}:
        headline = "no credentials were found"
        hint = f"looked in: {_CREDENTIALS.get(_ALIASES.get(scheme, scheme), 'the environment')}"
    elif isinstance(error, PermissionError) or status in (401, 403):
        headline = "access is denied"
        hint = f"{'the credentials lack' if '://' in source else 'this user lacks'} the right to {action} it"
    elif status == 404 or (isinstance(error, FileNotFoundError) and not unreachable and status is None):
        headline = "no such file"
    elif isinstance(error, (IsADirectoryError, NotADirectoryError)):
        headline = "not a file"
    elif "ClientPayloadError" in names or "IncompleteRead" in names:
        headline, kind = "the server does not answer to the end", ServiceError
    elif status is not None:
        headline, kind = f"the server answered with status {status}", ServiceError
    else:
        local = "the file cannot be read" if action == "read" else f"cannot {action} the file"
        headline, kind = "the server does not answer" if "://" in source else local, ServiceError
    return kind(headline, parameter=parameter, where=public_name(source), received=_words(chain[-1], source), hint=hint)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and those behind it, the root last."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _status(error: BaseException) -> int | None:
    """The status of the server's answer that an error of aiohttp, botocore or gcsfs carries."""
    response = getattr(error, "response", None)
    facts = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    for name in ("status", "code"):  # one after the other: aiohttp warns of its `code` where it has a `status`
        status = getattr(error, name, None)
        if isinstance(status, int) and status >= 400:
            return status
    status = facts.get("HTTPStatusCode")
    return status if isinstance(status, int) and status >= 400 else None


def _words(error: BaseException, source: str) -> str:
    """What an error says, without the secrets that an address in it may hold."""
    words = " ".join(f"{type(error).__name__}: {error}".split()).replace(source, public_name(source))
    words = re.sub(r"(://)[^\s/@'\"]+@", r"\1", words)
    return re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\")]*", r"\1", words)
