"""Takes a shell script apart into its commands, as far as that goes without running it."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Words before a command that are not its name.
_KEYWORDS = frozenset(
    ("if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "exec", "command", "builtin", "nohup")
)
_ENDS = frozenset(";&|()\n")
_HERE = re.compile(r"<<-?[ \t]*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1")
#: Substitutions inside substitutions; below that, words alone are read.
_DEEPEST = 20
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a script, quotes undone; assignments before it among them.

    Commands inside `$(...)`, backticks and here-documents are given too. A variable stays as it stands: `$PIP`.
    """
    pending = [(script, 0)]
    while pending:
        text, level = pending.pop()
        if level > _DEEPEST:
            yield text.split()
            continue
        reader = _Reader(text)
        yield from reader.read()
        pending += [(inner, level + 1) for inner in reader.inner]


def strip_prefix(words: list[str]) -> list[str]:
    """A command's words without keywords and assignments before its name."""
    start = 0
    while start < len(words) and (words[start] in _KEYWORDS or _ASSIGNMENT.match(words[start])):
        start += 1
    return words[start:]


def assignments(words: list[str]) -> dict[str, str]:
    """The variables that are set before a command, or by `export`, `env` and the like."""
    found = {}
    for word in words:
        if _ASSIGNMENT.match(word):
            name, _, value = word.partition("=")
            found[name] = value
        elif word not in _KEYWORDS and word not in ("export", "env", "declare", "readonly", "local"):
            break
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.inner: list[str] = []  # scripts inside this one
        self.at = 0
        self.words: list[str] = []
        self.word: list[str] | None = None
        self.here: list[str] = []

    def read(self) -> Iterator[list[str]]:
        text = self.text
        while self.at < len(text):
            character = text[self.at]
            if character == "\\":
                if text[self.at + 1 : self.at + 2] != "\n":  # a line that goes on adds nothing
                    self._append(text[self.at + 1 : self.at + 2])
                self.at += 2
            elif character == "'":
                end = self._find("'", self.at + 1)
                self._append(text[self.at + 1 : end])
                self.at = end + 1
            elif character == '"':
                self._double_quoted()
            elif character == "`" or text.startswith("$(", self.at):
                self._append(self._substitution())
            elif character == "#" and self.word is None:
                self.at = self._find("\n", self.at)
            elif character == "<" and (found := _HERE.match(text, self.at)):
                self.here.append(found[2])
                self.at = found.end()
            elif character in " \t\r":
                self._end_word()
                self.at += 1
            elif character in _ENDS:
                self._end_word()
                self.at += 1
                if self.words:
                    yield self.words
                self.words = []
                if character == "\n" and self.here:
                    self._here_documents()
            else:
                self._append(character)
                self.at += 1
        self._end_word()
        if self.words:
            yield self.words

    def _append(self, text: str) -> None:
        if self.word is None:
            self.word = []
        self.word.append(text)

    def _end_word(self) -> None:
        if self.word is not None:
            self.words.append("".join(self.word))
        self.word = None

    def _find(self, what: str, start: int) -> int:
        found = self.text.find(what, start)
        return len(self.text) if found < 0 else found

    def _double_quoted(self) -> None:
        self.at += 1
        self._append("")
        while self.at < len(self.text) and self.text[self.at] != '"':
            character = self.text[self.at]
            if character == "\\":
                self._append(self.text[self.at + 1 : self.at + 2].replace("\n", ""))
                self.at += 2
            elif character == "`" or self.text.startswith("$(", self.at):
                self._append(self._substitution())
            else:
                self._append(character)
                self.at += 1
        self.at += 1

    def _substitution(self) -> str:
        """Keeps the script inside `$(...)` or backticks for later; the word gets `$(...)` in its place."""
        if self.text[self.at] == "`":
            end = self._find("`", self.at + 1)
            self.inner.append(self.text[self.at + 1 : end])
        else:
            start, depth, end = self.at + 2, 1, self.at + 2
            while end < len(self.text) and depth:
                depth += {"(": 1, ")": -1}.get(self.text[end], 0)
                end += 1
            end -= 1 if depth == 0 else 0
            self.inner.append(self.text[start:end])
        self.at = end + 1
        return "$(...)"

    def _here_documents(self) -> None:
        for mark in self.here:
            start = self.at
            while self.at < len(self.text):
                end = self._find("\n", self.at)
                line = self.text[self.at : end]
                self.at = end + 1
                if line.strip() == mark:
                    self.inner.append(self.text[start : end - len(line)])
                    break
            else:
                self.inner.append(self.text[start:])
        self.here = []
