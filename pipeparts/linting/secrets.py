"""What looks like a secret."""

from __future__ import annotations

import re
from typing import Any

#: Keys whose form their makers document; each name is for the message.
_KNOWN = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "a token of GitLab": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "a webhook of Slack": re.compile(r"https://hooks\.slack\.com/services/T\w+/B\w+/\w+"),
    "a key of Google's APIs": re.compile(r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    "a token of Google's": re.compile(r"\bya29\.[A-Za-z0-9_-]{20,}"),
    "a key of Stripe": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a token of Databricks": re.compile(r"\bdapi[a-f0-9]{32}\b"),
    "a key of OpenAI or Anthropic": re.compile(r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{32,}"),
    "a key of SendGrid": re.compile(r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    "a token of the Python index": re.compile(r"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
    "a token of npm": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
    "a secret of Google's OAuth": re.compile(r"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    "a key of an Azure storage account": re.compile(r"\bAccountKey=[A-Za-z0-9+/]{40,}={0,2}"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}]+:(?![$%{<])[^\s/:@'\"{}]{3,}@"),
}
#: `tokens` is a number of them.
_NAMES = re.compile(
    r"(?:^|[_-])(?:passwords?|passwd|pwd|secrets?|token|api_?keys?|access_?keys?|private_?keys?|credentials?)$",
    re.IGNORECASE,
)
#: What stands where a secret is meant and is none: a reference, a path, a placeholder, an example.
_REFERENCE = re.compile(
    r"(?:env:|file:|/|\.{1,2}/|gs://|s3://|https?://[^@]*$|projects/|secretmanager:|\$|\{|<|%|\*+$|x{3,}$|"
    r"changeme$|none$|null$|true$|false$|example|your[-_ ])",
    re.IGNORECASE,
)
#: Tokens of a text model, of a page: names that end as a secret's does.
_OTHER_TOKENS = re.compile(r"(?:pad|eos|bos|unk|sep|cls|mask|stop|end|start|next|page|special)_token$", re.IGNORECASE)
#: `NAME=value`, then `--name value`: the first may stand in the place of the second's value.
_SETTINGS = (re.compile(r"([\w-]+)(=)([^\s`'\"]+)"), re.compile(r"([\w-]+)( )([^\s`'\"]+)"))
_SHORTEST = 6
#: In code, under a secret's name, stand names of secrets and kinds of tokens as well: words alone are none.
_SHORTEST_IN_CODE = 8
_KINDS_IN_CODE = (re.compile(r"[A-Za-z]"), re.compile(r"[0-9]"), re.compile(r"[^A-Za-z0-9_.:-]"))


def find_secret(name: str, value: Any, *, is_in_code: bool = False) -> str | None:
    """Says what a value looks like, never all of it; None where it looks like no secret.

    Args:
        name: The variable's or parameter's name: under one such as DB_PASSWORD any text counts.
        value: The value.
        is_in_code: Whether it comes from a script or source, where it has to look like more than a word.
    """
    if not isinstance(value, str) or not value:
        return None
    for kind, pattern in _KNOWN.items():
        if found := pattern.search(value):
            return f"{kind} ({_shown(found[0])})"
    literal = value.strip()
    if not _NAMES.search(name) or _OTHER_TOKENS.search(name) or re.search(r"\s", literal) or _REFERENCE.match(literal):
        return None
    if is_in_code:
        kinds = sum(1 for kind in _KINDS_IN_CODE if kind.search(literal))
        is_long = len(literal) >= _SHORTEST_IN_CODE and kinds > 1
    else:
        is_long = len(literal) >= _SHORTEST
    return f"a value under a secret's name ({_shown(literal)})" if is_long else None


def redact(text: str) -> str:
    """A message without the secrets that a command or an address in it holds."""
    for kind, pattern in _KNOWN.items():
        text = pattern.sub(lambda found, kind=kind: f"[{kind}: {_shown(found[0])}]", text)  # type: ignore[misc]
    for setting in _SETTINGS:
        text = setting.sub(_redacted, text)
    return text


def _redacted(setting: re.Match[str]) -> str:
    name, between, value = setting.groups()
    found = find_secret(name.lstrip("-"), value, is_in_code=True)
    return f"{name}{between}[{found}]" if found else setting[0]


def _shown(value: str) -> str:
    """Enough to find it by, and no more."""
    return f"{value[: min(4, len(value) // 6)]}..., {len(value)} characters"
