"""What is seen of a command: installs, downloads and addresses, in every form that they come in."""

from __future__ import annotations

import pytest

from pipeparts.linting import commands, shell

PRELUDE = """
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'kfp==2.17.0' && "$0" "$@"
"""


def source(line: str) -> list[str]:
    """A lightweight component's command."""
    return [
        "sh",
        "-ec",
        'python3 -m kfp.dsl.executor_main "$0"',
        f"\nimport os\nfrom kfp import dsl\n\ndef f():\n    {line}\n",
    ]


INSTALLS = [
    ["pip", "install", "foo"],
    ["python", "-m", "pip", "install", "foo"],
    ["tini", "--", "pip3.11", "install", "foo"],
    ["sh", "-c", "/usr/bin/pip3 install foo"],
    ["sh", "-c", "pip --quiet --no-cache-dir install foo"],
    ["sh", "-c", "'pip' \\\n install foo"],
    ["bash", "-o", "pipefail", "-euxc", "cd /x; (pip install foo)"],
    ["bash", "-c", "pip install foo\npython - <<E\n\ndef f(): pass\nE"],
    ["bash", "-c", "bash <<'E'\npip install foo\nE\n"],
    ["sh", "-c", "echo $(pip install foo)"],
    ["sh", "-c", 'echo "`pip install foo`"'],
    ["sh", "-c", "# don't\npip install foo"],
    ["sh", "-c", "$PIP install foo"],
    ["sh", "-c", 'exec "$@"', "sh", "pip", "install", "foo"],
    ["sh", "-c", "bash -c 'sudo pip install foo'"],
    ["sh", "-c", "eval 'pip install foo'"],
    ["sh", "-c", "if true; then apt-get update; fi"],
    ["apk", "--no-cache", "add", "git"],
    ["conda", "install", "-y", "foo"],
    ["uv", "--quiet", "pip", "install", "foo"],
    ["uvx", "ruff"],
    ["npx", "foo"],
    ["Rscript", "-e", "install.packages('foo')"],
    ["python", "-c", "import pip; pip.main(['install', 'foo'])"],
    [
        '{"Concat": ["pip ", "install"]}',
        "sh",
        "-c",
        '{"IfPresent": {"InputName": "a", "Then": ["pip install x"]}}',
        "pip",
        "install",
        "x",
    ],
    ["sh", "-c", PRELUDE, *source("pass")],
    source("subprocess.run([sys.executable, '-m', 'pip', 'install', 'foo'])"),
    source("command = ['pip', 'install', 'foo']"),
    source("os.system(f'pip install {f}')"),
    source("print 'of Python 2'; os.system('pip install foo')"),
]
FETCHES = [
    ["curl", "-O", "https://data.example/x"],
    ["sh", "-c", "wget https://data.example/x"],
    ["sh", "-c", "git -C /x clone https://data.example/x"],
    source("os.system('curl https://data.example/x')"),
]
ADDRESSES = [
    ["tool", "--model=https://data.example/x"],
    ["sh", "-c", "MODEL=https://data.example/x tool"],
    ["python", "-c", "urlopen('https://data.example/x')"],
    source("pandas.read_csv('https://data.example/x')"),
    source("pandas.read_csv(f'https://data.example/{f}')"),
]
HARMLESS = [
    ["python3", "-m", "kfp.dsl.executor_main", "--executor_input", "{{$}}"],
    ["echo", "how to pip install"],
    ["sh", "-c", "echo pip install foo"],
    ["sh", "-c", "mypip install foo # pip install foo"],
    ["sh", "-c", "pip install --no-index --find-links /wheels foo"],
    ["sh", "-c", "PIP_NO_INDEX=1 pip install /wheels/foo.whl"],
    ["pip", "list"],
    ["sh", "-c", "command -v curl"],
    ["train", "--framework", "python", "--tool", "curl"],
    source('"""Runs pip install for you; see https://docs.example."""'),
    source("scopes = ['https://www.googleapis.com/auth/cloud-platform']"),
    source("text = 'pip install foo'"),
]


def kinds(words: list[str]) -> set[str]:
    return {seen.kind for seen in commands.read(words)} - {"setting"}


@pytest.mark.parametrize("words", INSTALLS, ids=repr)
def test_an_install_is_seen(words: list[str]) -> None:
    assert "install" in kinds(words)


@pytest.mark.parametrize("words", FETCHES, ids=repr)
def test_a_download_is_seen_with_its_address(words: list[str]) -> None:
    (seen,) = [seen for seen in commands.read(words) if seen.kind == "fetch"]
    assert seen.addresses == ("https://data.example/x",)
    assert "address" not in kinds(words)


@pytest.mark.parametrize("words", ADDRESSES, ids=repr)
def test_an_address_is_seen(words: list[str]) -> None:
    assert kinds(words) == {"address"}


@pytest.mark.parametrize("words", HARMLESS, ids=repr)
def test_what_fetches_nothing_is_let_be(words: list[str]) -> None:
    assert kinds(words) == set()


def test_of_kfp_s_own_prelude_the_install_that_it_is_for_comes_first() -> None:
    found = commands.read(["sh", "-c", PRELUDE, *source("pass")])
    first = next(seen for seen in found if seen.kind == "install")
    assert first.text == "python3 -m pip install --quiet --no-warn-script-location kfp==2.17.0"
    assert first.position == 2


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("http://localhost:8080", True),
        ("http://mlflow:5000", True),
        ("http://mlflow.tools.svc.cluster.local", True),
        ("http://metadata.google.internal/x", True),
        ("http://10.1.2.3/x", True),
        ("http://[::1]:80/x", True),
        ("https://mlflow.corp.example/x", True),
        ("https://corp.example.evil.example", False),
        ("https://notcorp.example", False),
        ("https://8.8.8.8", False),
        ("https://$HOST/x", False),
        ("https://pypi.org", False),
        ("https://[broken", False),
    ],
)
def test_what_is_inside(address: str, is_inside: bool) -> None:
    assert commands.is_inside(address, ["corp.example"]) is is_inside


@pytest.mark.parametrize("script", ["'", '"', "$(", "`", "<<E", "$(" * 200, "\\", "cat <<E\n", "((((", ";;;", '"$(\'"'])
def test_a_broken_script_is_read_to_its_end(script: str) -> None:
    list(shell.commands(script))
    assert "install" in kinds(["sh", "-c", f"pip install foo\n{script}"])
