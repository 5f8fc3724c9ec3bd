"""A new component from a template that passes the contract tests at once."""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

from pipeparts import catalog, docgen
from pipeparts.errors import InputError, PipepartsError, suggest
from pipeparts.runtime.files import whole_folder, write_text

_TEMPLATE = Path(__file__).parent / "template"


def new_component(name: str, *, components: Path | None = None) -> Path:
    """Makes a component's folder from the template.

    Args:
        name: "stage/verb_noun".
        components: The folder of the stages; the library's own unless said.

    Returns:
        The new folder.

    Raises:
        InputError: For an unknown stage, a name that is no `verb_noun`, or one that exists already.
    """
    components = components or catalog.PACKAGE / "components"
    stage, _, short = name.partition("/")
    if stage not in catalog.STAGES:
        raise InputError(
            "no such stage",
            parameter="NAME",
            allowed=catalog.STAGES,
            received=name,
            hint=suggest(stage, catalog.STAGES),
        )
    if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", short):
        raise InputError("a component is named verb_noun", parameter="NAME", allowed="stage/verb_noun", received=name)
    if any(path.is_dir() for path in components.glob(f"*/{short}")):
        raise InputError("a component of this name exists already", parameter="NAME", received=name)
    folder = components / stage / short
    package = folder.parent / "__init__.py"
    if not package.is_file():
        write_text(package, f'"""The stage {stage.replace("_", " ")}."""\n')
    values = {"NAME": short, "STAGE": stage, "TODAY": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"}
    with whole_folder(folder) as partial:
        for source in sorted(_TEMPLATE.rglob("*.txt")):
            target = partial / _fill(str(source.relative_to(_TEMPLATE).with_suffix("")), values)
            write_text(target, _fill(source.read_text(encoding="utf-8"), values))
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Makes the component and its README."""
    parser = argparse.ArgumentParser(prog="make component", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="stage/verb_noun, for example data_validation/count_rows")
    try:
        folder = new_component(parser.parse_args(arguments).name)
    except PipepartsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    entry = catalog.find(folder.name)
    write_text(folder / "README.md", docgen.component_readme(entry))
    sys.stderr.write(
        f"made components/{entry.stage}/{entry.name}\n"
        "write the work in logic.py and the interface in component.py, then `make docs` and `make test`\n"
    )
    return 0


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"__{key}__", value)
    return text


if __name__ == "__main__":
    raise SystemExit(main())
