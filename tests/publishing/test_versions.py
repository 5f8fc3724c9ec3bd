"""Semantic versions are read, ordered and grouped as semver.org says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import InputError
from pipeparts.publishing.versions import Version, check_tags, latest, previous

ORDERED = [
    *("0.0.1", "0.1.0", "0.2.0-rc.1", "0.2.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta"),
    *("1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"),
]


def test_the_order_of_the_specification() -> None:
    versions = [Version.parse(text) for text in ORDERED]
    for (i, a), (j, b) in itertools.product(enumerate(versions), repeat=2):
        assert (a < b) == (i < j)
        assert (a >= b) == (i >= j)
        assert (a == b) == (i == j)


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.from_regex(r"(rc|0a|-)\.[1-9]", fullmatch=True),
)
def test_a_version_comes_back_as_it_was(major: int, minor: int, patch: int, pre: str) -> None:
    for text in (f"{major}.{minor}.{patch}", f"{major}.{minor}.{patch}-{pre}"):
        assert str(Version.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+build",
        "1.2.3rc1",
        "latest",
        "1.2.3\n",
        "١.2.3",
    ],
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InputError, match="not a semantic version"):
        Version.parse(text)


def test_a_version_with_a_v_has_a_hint() -> None:
    with pytest.raises(InputError) as error:
        Version.parse("v1.2.3")
    assert error.value.facts["hint"] == "did you mean 1.2.3?"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.10.1", "1.10.0"),
        ("1.2.1", "1.2.0"),
        ("1.1.0", "1.0.1"),
        ("1.0.0", None),
        ("2.1.0", "2.0.0"),
        ("2.0.0", None),
        ("3.0.0", None),
        ("0.2.1", "0.2.0"),
        ("0.2.0", None),
        ("0.3.0", None),
        ("0.1.5", "0.1.0"),
        ("1.2.0-rc.1", "1.0.1"),
    ],
)
def test_the_version_whose_interface_is_kept(version: str, expected: str | None) -> None:
    found = previous(Version.parse(version), [Version.parse(text) for text in ORDERED])
    assert (str(found) if found else None) == expected


def test_the_latest_is_no_pre_release() -> None:
    assert str(latest(map(Version.parse, ["1.0.0", "1.1.0-rc.1", "0.9.0"]))) == "1.0.0"
    assert latest(map(Version.parse, ["1.1.0-rc.1"])) is None


def test_tags() -> None:
    assert check_tags(["stable", "team_a", "stable"]) == ("stable", "team_a")
    for wrong in ("", "a/b", "1.0.0", "v1.0.0", "latest", "a b", "x" * 129, "../x", ".hidden"):
        with pytest.raises(InputError, match="a tag that cannot be given"):
            check_tags([wrong])
