"""What a container's command does when the step starts: the programs it calls, the addresses and settings it names.

A command is a list of words; a shell script or Python source may be one of them, and call programs of its own.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import ipaddress
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pipeparts.linting import shell

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh"))
_PYTHON = re.compile(r"python[0-9.]*|pypy[0-9.]*")
_PIP = re.compile(r"pip[0-9.]*")
_R = frozenset(("R", "Rscript"))
#: Program to the words after it that fetch packages; an empty tuple: whatever the words.
_INSTALLERS: dict[str, tuple[str, ...]] = {
    "uv": ("install", "sync", "add", "run", "download", "lock"),
    "uvx": (),
    "pipx": ("install", "run", "upgrade", "inject"),
    "poetry": ("install", "add", "update", "lock"),
    "pdm": ("install", "add", "sync", "update", "lock"),
    "pipenv": ("install", "sync", "update", "lock"),
    "easy_install": (),
    **dict.fromkeys(("conda", "mamba", "micromamba"), ("install", "create", "update", "upgrade")),
    **dict.fromkeys(("apt", "apt-get", "aptitude"), ("install", "update", "upgrade", "dist-upgrade", "download")),
    "apk": ("add", "update", "upgrade", "fetch"),
    **dict.fromkeys(("dnf", "yum", "microdnf", "zypper"), ("install", "update", "upgrade", "download", "in")),
    **dict.fromkeys(("npm", "pnpm", "yarn"), ("install", "i", "ci", "add", "update", "dlx", "exec")),
    **dict.fromkeys(("npx", "bunx"), ()),
    "gem": ("install", "update", "fetch"),
    "bundle": ("install", "update"),
    "go": ("install", "get", "run", "mod"),
    "cargo": ("install", "fetch", "add", "update"),
    "brew": ("install", "update", "upgrade"),
    "snap": ("install", "refresh"),
}
_FETCHERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("curl", "wget", "aria2c", "ftp", "lftp"), ()),
    "git": ("clone", "fetch", "pull", "submodule", "ls-remote"),
    "hg": ("clone", "pull"),
    "svn": ("checkout", "co", "export", "update"),
    "helm": ("pull", "install", "upgrade", "repo"),
    **dict.fromkeys(("docker", "podman", "nerdctl", "crane", "skopeo", "oras"), ("pull", "run", "copy", "build")),
    **dict.fromkeys(("huggingface-cli", "hf"), ("download",)),
    "kaggle": ("datasets", "competitions", "models"),
}
#: With one of these nothing is fetched, whatever else is said.
_OFFLINE = frozenset(("--no-index", "--offline", "--no-network", "--no-download"))
#: Programs that only show words or look for them.
_TALKERS = frozenset(("echo", "printf", "cat", "grep", "egrep", "sed", "awk", "test", "[", "which", "type"))
#: The words before a program that they start.
_STARTERS = frozenset(
    ("sudo", "env", "xargs", "timeout", "nice", "eval", "tini", "dumb-init", "--", "setsid", "stdbuf")
)
_CALLS = frozenset(
    ("system", "popen", "run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput")
)
_R_INSTALLS = re.compile(r"install\.packages\(|install_(?:github|cran|version|url)\(|BiocManager::install\(")
_SOURCE_INSTALLS = re.compile(r"\bpip3?['\"\s,]+(?:[^\n]{0,40}[\s'\",]+)?install\b[^\n]{0,60}")
_ADDRESS = re.compile(r"(?:--?[\w-]+=)?(https?://[^\s'\"]+)", re.IGNORECASE)
#: What looks like an address and is a name: the scopes of Google's tokens, namespaces of XML.
_NAMES = re.compile(r"https?://(?:www\.googleapis\.com/auth/|www\.w3\.org/|json-schema\.org/)", re.IGNORECASE)
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_STRUCTURED = re.compile(r'\{\s*"(?:Concat|IfPresent)"\s*:')
_INSIDE = (".svc", ".local", ".internal", ".localhost", ".cluster.local")
_LONGEST = 100
_DEEPEST = 10


@dataclasses.dataclass(frozen=True)
class Seen:
    """Something in a command.

    Attributes:
        kind: "install" or "fetch", a call of a program; "address"; "setting".
        text: The call as it stands there, the address, or the setting's value.
        position: The word of the command that it stands in.
        name: A setting's name.
        addresses: Those that a call names.
    """

    kind: str
    text: str
    position: int
    name: str = ""
    addresses: tuple[str, ...] = ()


def read(words: Sequence[str]) -> list[Seen]:
    """Everything that matters in a container's command and arguments, in their order and each once."""
    return list(_read(tuple(words)))


def is_inside(address: str, hosts: Collection[str] = ()) -> bool:
    """Whether an address needs no way out: of this machine or cluster, of a private network, or of one of the hosts."""
    try:
        host = (urlsplit(address).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    if not host or re.search(r"[${}<>%]", host):
        return False
    if any(host == allowed or host.endswith(f".{allowed}") for allowed in (h.lower() for h in hosts)):
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_INSIDE)
    return number.is_private or number.is_loopback or number.is_link_local


def addresses_in(value: object) -> Iterator[str]:
    """Each web address that is a whole text in a value, in lists and dictionaries too."""
    if isinstance(value, str):
        found = _ADDRESS.match(value.strip())
        if found and not _NAMES.match(found[1]):
            yield found[1]
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from addresses_in(item)


@functools.lru_cache(maxsize=1024)
def _read(words: tuple[str, ...]) -> tuple[Seen, ...]:
    flat, positions = _flattened(words)
    found: dict[tuple[str, str, str], Seen] = {}
    for seen in _argv(flat, positions, 0):
        found.setdefault((seen.kind, seen.name, seen.text), seen)
    for word, position in zip(flat, positions, strict=True):
        for seen in _source(word, position, 0) if _is_source(word) else ():
            found.setdefault((seen.kind, seen.name, seen.text), seen)
    # KFP's own prelude tries to get pip from apt before it calls it: what it is for comes first.
    by_weight = sorted(found.values(), key=lambda seen: seen.kind == "install" and seen.text.startswith("apt"))
    called = {address for seen in found.values() for address in seen.addresses}
    return tuple(seen for seen in by_weight if seen.kind != "address" or seen.text not in called)


def _flattened(words: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The words; those of KFP's `{"Concat": ...}` and `{"IfPresent": ...}` are taken out of their JSON."""
    flat: list[str] = []
    positions: list[int] = []
    for position, word in enumerate(words):
        inner = [word]
        if _STRUCTURED.match(word):
            with contextlib.suppress(ValueError):
                inner = list(_texts(json.loads(word)))
        flat += inner
        positions += [position] * len(inner)
    return flat, positions


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and isinstance(value.get("Concat"), list):
        parts = [list(_texts(part)) for part in value["Concat"]]
        yield "".join(text for part in parts for text in part)
    elif isinstance(value, (list, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key != "InputName":
                yield from _texts(item)


def _argv(words: Sequence[str], positions: Sequence[int], level: int) -> Iterator[Seen]:
    """A call by its words: programs that it starts by name are among them, as in `tini -- bash -c ...`."""
    yield from _named(words, positions)
    if not words or level > _DEEPEST or _program(words[0]) in _TALKERS:
        return
    is_known = False
    for start, word in enumerate(words):
        program = _program(word)
        rest, places = words[start:], positions[start:]
        if program in _SHELLS:
            if (script := _script(rest)) is not None:
                yield from _shell(rest[script], places[script], level + 1)
        elif _PYTHON.fullmatch(program):
            if "-c" in rest[1:]:
                code = list(rest).index("-c", 1) + 1
                if code < len(rest):
                    yield from _source(rest[code], places[code], level + 1)
        elif program == "eval":
            yield from _shell(" ".join(rest[1:]), places[0], level + 1)
        is_first = start == 0 or words[start - 1] in _STARTERS
        if not is_known and (kind := _kind(rest, is_first=is_first)) is not None:
            is_known = True  # `python -m pip install` is one call, not that of pip as well
            yield Seen(kind, _shown(rest), places[0], addresses=tuple(addresses_in(list(rest))))


def _shell(script: str, position: int, level: int) -> Iterator[Seen]:
    if level > _DEEPEST:
        return
    if _is_source(script):  # a here-document may hold it
        yield from _source(script, position, level)
    for words in shell.commands(script):
        for name, value in shell.assignments(words).items():
            yield Seen("setting", value, position, name=name)
            for address in addresses_in(value):
                yield Seen("address", address, position)
        if "PIP_NO_INDEX=1" in words:
            continue
        call = shell.strip_prefix(words)
        yield from _argv(call, [position] * len(call), level)


def _named(words: Sequence[str], positions: Sequence[int]) -> Iterator[Seen]:
    """The addresses among the words, and the settings: `--token x`, `--token=x`."""
    for index, word in enumerate(words):
        for address in addresses_in(word):
            yield Seen("address", address, positions[index])
        if word.startswith("--"):
            name, equals, value = word.lstrip("-").partition("=")
            if not equals and index + 1 < len(words):
                value = words[index + 1]
            if inner := _ASSIGNED.match(value):  # `--env NAME=value`
                name, value = inner[1], value[inner.end() :]
            if not value.startswith("-"):
                yield Seen("setting", value, positions[index], name=name)


def _script(words: Sequence[str]) -> int | None:
    """The position of a shell's script: what follows `-c`, alone or among other letters."""
    index = 1
    while index < len(words) and words[index].startswith(("-", "+")):
        letters = words[index].lstrip("-+")
        takes_a_word = not words[index].startswith("--") and letters.endswith(("o", "O"))
        if not words[index].startswith("--") and "c" in letters:
            index += 2 if takes_a_word else 1
            while index < len(words) and words[index].startswith("-"):
                index += 1
            return index if index < len(words) else None
        index += 2 if takes_a_word else 1
    return None


def _kind(words: Sequence[str], *, is_first: bool) -> str | None:
    """What a call fetches, where it does; a program in the middle of other words counts if what follows says so."""
    program = _program(words[0])
    rest = list(words[1:])
    if _PYTHON.fullmatch(program) and rest[:1] != ["-m"]:
        module = rest.index("-m") if "-m" in rest else len(rest)
        rest = rest[module:]
    if _PYTHON.fullmatch(program):
        if len(rest) < 2:
            return None
        program, rest = rest[1], rest[2:]
    if _OFFLINE & set(rest):
        return None
    if _PIP.fullmatch(program):
        return "install" if {"install", "download", "wheel"} & set(rest) else None
    if program in _R:
        return "install" if any(_R_INSTALLS.search(word) for word in rest) else None
    if program.startswith("$"):  # whatever it is, it is told to install
        return "install" if {"install", "download"} & set(rest[:3]) else None
    for kind, programs in (("install", _INSTALLERS), ("fetch", _FETCHERS)):
        wanted = programs.get(program)
        if wanted is None:
            continue
        if wanted:
            return kind if set(wanted) & set(rest) else None
        if is_first or any(_ADDRESS.match(word) for word in rest):
            return kind
    return None


def _program(word: str) -> str:
    return PurePosixPath(word).name if "/" in word and "\n" not in word else word


def _is_source(text: str) -> bool:
    """Whether a text is Python source of some length: a lightweight component's, or that of a here-document."""
    return "\n" in text and re.search(r"^\s*(?:def|import|from)\s", text, re.MULTILINE) is not None


def _source(text: str, position: int, level: int) -> Iterator[Seen]:
    """What Python source calls by name: programs, pip; and the addresses and settings that it names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of the step's author, about escapes and the like
            tree = ast.parse(text.lstrip("\n"))
        yield from list(_tree(tree, position, level))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        if found := _SOURCE_INSTALLS.search(text):
            yield Seen("install", _shown([found[0]]), position)


def _tree(tree: ast.Module, position: int, level: int) -> Iterator[Seen]:
    unread = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple)):
            words = [_word(item) for item in node.elts]
            if len(words) > 1:
                yield from _calls(_argv(words, [position] * len(words), level + 1))
        elif isinstance(node, ast.Call):
            yield from _python_call(node, position, level)
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from _settings(names, node.value, position)
        elif isinstance(node, ast.keyword) and node.arg:
            yield from _settings([node.arg], node.value, position)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unread:
            for address in addresses_in(node.value):
                yield Seen("address", address, position)


def _calls(found: Iterable[Seen]) -> Iterator[Seen]:
    return (seen for seen in found if seen.kind in ("install", "fetch"))


def _python_call(node: ast.Call, position: int, level: int) -> Iterator[Seen]:
    function = ast.unparse(node.func)
    name = function.rpartition(".")[2]
    if function in ("pip.main", "pip._internal.main", "pip._internal.cli.main.main"):
        yield Seen("install", _shown([ast.unparse(node)]), position)
    elif name in _CALLS and node.args:
        text = _word(node.args[0])
        if isinstance(node.args[0], (ast.Constant, ast.JoinedStr)) and text:
            yield from _calls(_shell(text, position, level + 1))


def _settings(names: Sequence[str], value: ast.expr, position: int) -> Iterator[Seen]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        for name in names:
            yield Seen("setting", value.value, position, name=name)


def _word(node: ast.expr) -> str:
    """A word of a list in Python: as it stands, or what it is known to be."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return "python" if ast.unparse(node) == "sys.executable" else "..."


def _shown(words: Sequence[str]) -> str:
    text = " ".join(" ".join(words).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
