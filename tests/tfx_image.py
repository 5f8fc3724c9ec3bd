"""What needs TFX's libraries is tested in their image: `python -m tests.tfx_image [ARGUMENTS]`, or `make tfx-test`.

The checkout is mounted over the image's own package, so only the image's libraries have to be this checkout's.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeparts import catalog, compiling

ROOT = Path(__file__).parent.parent
REQUIREMENTS = ROOT / "tests" / "images" / "tfx-tests.txt"
#: pytest for the image's Python, beside the environment that `make install` makes.
LIBRARIES = ROOT / ".tools" / "tfx-tests"
MODULE = "tensorflow_data_validation"
MARK = "pytest.mark.tfx"

_VARIABLE = "PIPEPARTS_TFX_IMAGE"
_PYTHON = ("--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_40")


def is_here() -> bool:
    """Whether this very environment has TFX's libraries."""
    return importlib.util.find_spec(MODULE) is not None


@functools.cache
def image() -> str | None:
    """The image to test in: the one named in the environment, this code's own, or the newest; None without any."""
    if named := os.environ.get(_VARIABLE):
        return named
    own = compiling.image_name("tfx")
    listing = [*_docker(), "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", own.partition(":")[0]]
    try:
        answer = subprocess.run(listing, capture_output=True, text=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    found = answer.stdout.split()
    return own if own in found else next(iter(found), None)


def why_not() -> str:
    """Why nothing can run in the image; empty where it can."""
    if image():
        return ""
    return "needs TFX's libraries, which are in their image alone: no docker here, or no image (make images FAMILY=tfx)"


def in_image(
    command: Sequence[str],
    *,
    reads: Sequence[Path] = (),
    writes: Path | None = None,
    environment: dict[str, str] | None = None,
) -> list[str]:
    """A command as one that runs in the image, with this checkout's code and without a network.

    Args:
        command: What to run.
        reads: Folders that it sees, under the same path.
        writes: The folder that it writes to, under the same path.
        environment: Variables for it.
    """
    limits = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec", "--cpus", "1", "--memory", "6g"]
    mounts = ["--volume", f"{ROOT}:/src:ro", "--workdir", "/src", "--user", f"{os.getuid()}:{os.getgid()}"]
    mounts += [part for path in reads for part in ("--volume", f"{path}:{path}:ro")]
    if writes is not None:
        mounts += ["--volume", f"{writes}:{writes}"]
    variables = {"PYTHONPATH": f"/src:/src/{LIBRARIES.relative_to(ROOT)}", **(environment or {})}
    given = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    return [*_docker(), "run", *limits, *mounts, *given, str(image()), *command]


def _docker() -> list[str]:
    return shlex.split(os.environ.get("DOCKER", "")) or ["docker"]


def install() -> None:
    """Puts pytest for the image's Python where the image sees it, once for each list of requirements."""
    done = LIBRARIES / REQUIREMENTS.name
    if done.exists() and done.read_bytes() == REQUIREMENTS.read_bytes():
        return
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    shutil.rmtree(LIBRARIES, ignore_errors=True)
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--require-hashes", *_PYTHON]
    subprocess.run([*command, "--target", str(LIBRARIES), "-r", str(REQUIREMENTS)], check=True)
    shutil.copy(REQUIREMENTS, done)


def test_files() -> list[str]:
    """The test modules that say they need TFX's libraries."""
    found = [path for folder in ("tests", "components") for path in (ROOT / folder).rglob("test_*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found if f"pytestmark = {MARK}" in path.read_text())


def main(arguments: Sequence[str]) -> int:
    """Runs those tests in the image, and the contract tests of its components; or only the tests that are named."""
    if reason := why_not():
        sys.stderr.write(f"cannot test: it {reason}\n")
        return 2
    install()
    named = any(part.partition("::")[0].endswith(".py") for part in arguments)
    files = [] if named else test_files()
    tests = ["python3", "-m", "pytest", "-p", "no:cacheprovider", *arguments, *files]
    failed = subprocess.run(in_image(tests), check=False).returncode
    if named or failed:
        return failed
    # These start the containers themselves: what the components read is made here.
    components = " or ".join(entry.name for entry in catalog.components() if entry.family == "tfx")
    contract = [sys.executable, "-m", "pytest", *arguments, "tests/contract", "-k", components]
    return subprocess.run(contract, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
