"""Commands that fetch software when a step starts."""

from __future__ import annotations

import re

#: What is fetched, as it stands behind the program's name.
_WHAT = r"(?:[ \t]+[^\s;&|()]+)*"
_PIP = re.compile(r"(?<![\w./-])pip[0-9.]*\s+(?:install|download|wheel)\b" + _WHAT)
_OTHERS = re.compile(
    r"(?<![\w./-])(?:"
    r"uv\s+(?:pip\s+install|sync|add|run|tool\s+install)|pipx\s+install|poetry\s+install|"
    r"(?:conda|mamba|micromamba)\s+(?:install|create|env\s+create)|"
    r"apt(?:-get)?\s+(?:-\S+\s+)*install|apk\s+(?:-\S+\s+)*add|(?:dnf|yum|microdnf)\s+(?:-\S+\s+)*install|"
    r"npm\s+(?:install|ci)|gem\s+install|go\s+install|cargo\s+install|R\s+CMD\s+INSTALL)\b" + _WHAT
)
_FETCHES = re.compile(
    r"(?<![\w./-])(?:curl|wget|git\s+clone|gsutil\s+cp|gcloud\s+storage\s+cp|aws\s+s3\s+cp)\s" + _WHAT
)
#: In Python source, a call of a program is a list of its words.
_LISTED = re.compile(r"['\"]pip3?['\"]\s*,\s*['\"]install['\"]|\bpip\.main\(|\bensurepip\.bootstrap\(")
_LONGEST = 100


def find_install(text: str) -> str | None:
    """The first call in a command that installs packages, as it stands there; None where there is none."""
    return None if _is_source(text) else _shown(_PIP.search(text) or _OTHERS.search(text))


def find_fetch(text: str) -> str | None:
    """The first call in a command, or in Python source, that fetches anything; None where none is seen."""
    if _is_source(text):
        return _shown(_LISTED.search(text))
    return _shown(_PIP.search(text) or _OTHERS.search(text) or _FETCHES.search(text))


def _shown(found: re.Match[str] | None) -> str | None:
    text = " ".join(found[0].split()) if found else ""
    return (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...") or None


def _is_source(text: str) -> bool:
    """Whether a part of a command is a lightweight component's Python source."""
    return "\ndef " in text or text.startswith(("def ", "import ", "from "))
