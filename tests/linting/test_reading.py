"""Text from anywhere: read with its lines, or refused in a sentence; never a traceback, a hang or a crash."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import InputError
from pipeparts.linting import engine, reading
from pipeparts.linting.document import Document

TEXTS = st.text(st.characters(exclude_categories=("C",)), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=5))
def test_what_yaml_writes_is_read_as_yaml_reads_it(value: dict[str, object]) -> None:
    text = yaml.safe_dump(value, sort_keys=False)
    assert reading.parse(text, "p.yaml").documents == list(yaml.safe_load_all(text))


@given(VALUES.filter(lambda value: isinstance(value, dict)))
def test_json_is_read_as_yaml_reads_it(value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    assert reading.parse(text, "p.json").documents == [yaml.safe_load(text)]


@given(st.dictionaries(st.just("text"), st.text(st.characters(exclude_categories=("Cs",)))))
def test_every_escape_of_json_is_read(value: dict[str, str]) -> None:
    assert reading.parse(json.dumps(value), "p.json").documents == [value]


def test_every_place_has_its_line() -> None:
    text = "a:\n  b: 1\n  c:\n  - x\n  - y: 2\nd: {e: 3,\n  f: 4}\n"
    lines = reading.parse(text, "p.yaml").lines
    assert lines == {
        ("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1): 5, ("a", "c", 1, "y"): 5,
        ("d",): 6, ("d", "e"): 6, ("d", "f"): 7,
    }  # fmt: skip


def test_aliases_and_merged_mappings_are_what_yaml_makes_of_them() -> None:
    text = "base: &b {image: x, cpu: 1}\none: *b\ntwo:\n  <<: *b\n  cpu: 2\nthree:\n  <<: [*b, {memory: 4}]\n"
    assert reading.parse(text, "p.yaml").documents == [yaml.safe_load(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("---\n---\n", "the file is empty"),
        ("a: [1, 2", "not YAML"),
        ('pipelineInfo:\n  name: "tra', "not YAML"),
        ("\x00\x01", "not YAML"),
        ("a: 2024-13-45", "not YAML"),
        ("a: !!python/name:os.system x", "not YAML"),
        ("a: *nothing", "an alias of nothing"),
        ("root: &r\n  dag: *r\n", "an alias of nothing, or of what it stands in"),
        ("? [a, b]\n: 1\n", "a key that is a list or a mapping"),
        ("just words", "not a compiled KFP v2 pipeline"),
        ("- 1\n- 2\n", "not a compiled KFP v2 pipeline"),
        ("root: " + "[" * 100_000, "nested too deeply"),
        ('{"root":' * 100_000, "nested too deeply"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_no_pipeline_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Document(text, "p.yaml")


def test_a_bomb_of_aliases_is_refused() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    bomb = "a: &a [x, x]\n" + "".join(f"{y}: &{y} [*{x}, *{x}]\n" for x, y in itertools.pairwise(letters))
    with pytest.raises(InputError, match="too large"):
        Document(bomb, "p.yaml")


def groups(levels: int, uses: int) -> str:
    """A pipeline of groups in groups, each used some times in the one above."""
    components: dict[str, object] = {f"comp-{levels}": {"executorLabel": "exec"}}
    for level in range(levels):
        tasks = {f"task-{n}": {"componentRef": {"name": f"comp-{level + 1}"}} for n in range(uses)}
        components[f"comp-{level}"] = {"dag": {"tasks": tasks}}
    root = {"dag": {"tasks": {"top": {"componentRef": {"name": "comp-0"}}}}}
    return json.dumps({"pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0", "root": root, "components": components})


@pytest.mark.parametrize(("levels", "uses"), [(24, 2), (500, 1)])
def test_groups_in_groups_without_end_are_refused(levels: int, uses: int) -> None:
    with pytest.raises(InputError, match="too many tasks"):
        engine.lint(Document(groups(levels, uses), "p.json"))
    engine.lint(Document(groups(5, 3), "p.json"))


def test_a_pipeline_that_contains_itself_ends() -> None:
    spec = json.loads(groups(1, 1))
    spec["components"]["comp-0"]["dag"]["tasks"]["again"] = {"componentRef": {"name": "comp-0"}}
    engine.lint(Document(json.dumps(spec), "p.json"))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for name, content in (("utf16.yaml", "root: {}".encode("utf-16")), ("archive.yaml", b"\x1f\x8b\x08\x00abc")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot read the pipeline"):
            Document.read(tmp_path / name)
    with pytest.raises(InputError, match="cannot read the pipeline"):
        Document.read(tmp_path)
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(reading.LARGEST_FILE_BYTES + 1)  # a hole: it takes no space
    with pytest.raises(InputError, match="too large for a pipeline"):
        Document.read(large)


def test_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfroot: {}\r\npipelineInfo: {name: p}\r\n")
    document = Document.read(path)
    assert document.size_bytes == path.stat().st_size
    assert document.spec == {"root": {}, "pipelineInfo": {"name": "p"}}
