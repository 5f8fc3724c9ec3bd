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
_SHORTEST = 6


def find_secret(name: str, value: Any) -> str | None:
    """Says what a value looks like, with its first letters alone; None where it looks like no secret.

    Args:
        name: The variable's or parameter's name: under one such as DB_PASSWORD any text counts.
        value: The value.
    """
    if not isinstance(value, str) or not value:
        return None
    for kind, pattern in _KNOWN.items():
        if found := pattern.search(value):
            return f"{kind} ({_shown(found[0])})"
    literal = value.strip()
    if _NAMES.search(name) and len(literal) >= _SHORTEST and not re.search(r"\s", literal):
        if _REFERENCE.match(literal):
            return None
        return f"a value under a secret's name ({_shown(literal)})"
    return None


def _shown(value: str) -> str:
    """Enough to find it by, and no more."""
    return f"{value[:4]}..., {len(value)} characters"
