"""What is settled at submission, whatever the target: the arguments, and the versions of what they name."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeparts.compiling import Spec, spec_hash
from pipeparts.config import read_mapping
from pipeparts.errors import InputError, suggest

#: "package.module:function"
_IMPORT_PATH = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$")
#: A scheme has two letters at least: C: is a drive.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
_DATA_SCHEMES = ("file", "gs", "gcs", "s3", "s3a", "http", "https")
_QUERY = re.compile(r"^\s*(select|with)\s", re.IGNORECASE)
_VERSION = "_version"
#: In a dictionary of a parameter file: it begins with the parameters of that file.
_FILE_KEY = "parameters_of"
_PIPELINE_HASH = "pipeline_hash"

#: For each parameter type: its name for people, and what is accepted.
_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "STRING": ("a string", (str,)),
    "NUMBER_INTEGER": ("a whole number", (int,)),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", (bool,)),
    "LIST": ("a list", (list,)),
    "STRUCT": ("a dictionary", (dict,)),
}


def prepare_arguments(spec: Spec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments to submit: checked, and with the versions of what they name filled in.

    Args:
        spec: The compiled pipeline.
        arguments: What the user gave.

    Raises:
        InputError: For a name the pipeline does not have, a wrong type, a required one that is missing, a
            source that is not there.
    """
    return fill_versions(spec, check_arguments(spec, arguments))


def parameters_of(spec: Spec) -> dict[str, dict[str, Any]]:
    """The pipeline's parameters, as compiled."""
    found: dict[str, dict[str, Any]] = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return found


def check_arguments(spec: Spec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Checks arguments against a pipeline's signature.

    Args:
        spec: The compiled pipeline.
        arguments: What the user gave; None counts as not given where the parameter is optional.

    Returns:
        The arguments, with numbers as the parameter's type.

    Raises:
        InputError: For an unknown name (with the close match), a wrong type, a required one that is missing.
    """
    parameters = parameters_of(spec)
    pipeline = spec["pipelineInfo"]["name"]
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in parameters:
            raise InputError(
                f"pipeline {pipeline!r} has no parameter of this name",
                parameter=name,
                allowed=sorted(parameters),
                received=name,
                hint=suggest(name, parameters),
            )
        parameter = parameters[name]
        if value is None and parameter.get("isOptional"):
            continue
        checked[name] = _typed(name, value, parameter["parameterType"])
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in checked and not parameter.get("isOptional") and "defaultValue" not in parameter
    ]
    if missing:
        kinds = {name: _TYPES.get(parameters[name]["parameterType"], ("a value", ()))[0] for name in missing}
        lacks = "a parameter that was" if len(missing) == 1 else f"{len(missing)} parameters that were"
        described = parameters[missing[0]].get("description") if len(missing) == 1 else None
        raise InputError(
            f"pipeline {pipeline!r} needs {lacks} not given",
            parameter=", ".join(missing),
            allowed=kinds[missing[0]] if len(missing) == 1 else [f"{name}: {kind}" for name, kind in kinds.items()],
            received=f"values for {', '.join(checked)}" if checked else "no parameters",
            hint=" ".join(described.split()) if described else None,
        )
    return checked


def fill_versions(spec: Spec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the parameters that keep the caches honest.

    A parameter `X_version` that is empty gets the version of what `X` names: a data source's (its files with
    their etags, or sizes and times), or the hash of the code behind an import path "package.module:function".
    An empty `pipeline_hash` gets the compiled pipeline's.

    Args:
        spec: The compiled pipeline.
        arguments: Checked arguments.

    Raises:
        InputError: For a source that is not there, or code that cannot be found.
    """
    filled = dict(arguments)
    is_text = parameters_of(spec).get(_PIPELINE_HASH, {}).get("parameterType") == "STRING"
    if is_text and not _value_of(spec, arguments, _PIPELINE_HASH):
        filled[_PIPELINE_HASH] = spec_hash(spec)
    for name, partner in _empty_versions(spec, arguments):
        version = version_of(_value_of(spec, arguments, partner), parameter=partner)
        if version:
            filled[name] = version
    return filled


def data_versions(spec: Spec, arguments: Mapping[str, Any]) -> list[str]:
    """The parameters that `fill_versions` would give the version that data has now.

    Nothing is looked at: what comes later than a submission, as the runs of a schedule, must not keep it.

    Args:
        spec: The compiled pipeline.
        arguments: What the user gave.
    """
    return [
        name for name, partner in _empty_versions(spec, arguments) if _may_be_data(_value_of(spec, arguments, partner))
    ]


def _empty_versions(spec: Spec, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters `X_version` that are empty, each with its `X`."""
    parameters = parameters_of(spec)
    named = [(name, name.removesuffix(_VERSION)) for name in parameters if name.endswith(_VERSION)]
    return [
        (name, partner)
        for name, partner in named
        if partner in parameters
        and parameters[name]["parameterType"] == "STRING"
        and not _value_of(spec, arguments, name)
    ]


def _value_of(spec: Spec, arguments: Mapping[str, Any], name: str) -> Any:
    return arguments.get(name, parameters_of(spec)[name].get("defaultValue"))


def _may_be_data(value: Any) -> bool:
    """Whether `version_of` would look for files under a value."""
    if not isinstance(value, str) or not value.strip() or _QUERY.match(value):
        return False
    if _IMPORT_PATH.match(value) and not _exists(value):
        return False
    scheme = _SCHEME.match(value)
    if scheme is not None and scheme.group(1).lower() not in _DATA_SCHEMES:
        return False  # a database's URL, a registry's
    return any(mark in value for mark in "/\\*.") or _exists(value)


def version_of(value: Any, *, parameter: str) -> str:
    """The version of what a parameter names; "" where it names neither data nor code.

    Args:
        value: A path, a glob, a URL, or an import path.
        parameter: The parameter's name, for messages.

    Raises:
        InputError: Where it names something that is not there.
    """
    if isinstance(value, str) and _IMPORT_PATH.match(value) and not _exists(value):
        return code_version(value, parameter=parameter)
    if _may_be_data(value):
        from pipeparts.runtime import sources

        return sources.files_version(sources.expand(value, parameter=parameter))
    return ""


def _exists(value: str) -> bool:
    return os.path.exists(value)  # noqa: PTH110 (Path.exists raises for a text too long to be a name)


def code_version(path: str, *, parameter: str) -> str:
    """A hash of the code behind an import path: the module, and all modules of its top-level package.

    Nothing is imported.

    Args:
        path: "package.module:function".
        parameter: The parameter's name, for messages.

    Raises:
        InputError: Where there is no such module or function.
    """
    module, _, function = path.partition(":")
    source = _module_source(module, parameter=parameter, received=path)
    text = source.read_bytes()
    names = _names_in(text, source)
    if names is not None and function not in names:
        raise InputError(
            f"module {module!r} has no function of this name",
            parameter=parameter,
            where=str(source),
            allowed=sorted(name for name in names if not name.startswith("_")),
            received=function,
            hint=suggest(function, names),
        )
    top = source.parents[module.count(".") + (source.name == "__init__.py") - 1] if "." in module else source
    if "." not in module and source.name == "__init__.py":
        top = source.parent
    total = hashlib.sha256(text)
    installed = any(part in ("site-packages", "dist-packages") for part in top.parts)
    for file in sorted(top.rglob("*.py")) if top.is_dir() else []:
        total.update(f"{file.relative_to(top)}\0".encode())
        # A whole installed framework is too much to read: a file that changed has another size or time.
        status = file.stat()
        total.update(f"{status.st_size} {status.st_mtime_ns}".encode() if installed else file.read_bytes())
    return total.hexdigest()[:16]


def _module_source(module: str, *, parameter: str, received: str) -> Path:
    """The file of a module, looked for as a step would find it: from the working directory, then sys.path."""
    places = list(dict.fromkeys([str(Path.cwd()), *(place or str(Path.cwd()) for place in sys.path)]))
    parts = module.split(".")
    for place in places:
        folder = Path(place).joinpath(*parts)
        for candidate in (folder / "__init__.py", folder.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    # Editable installs and other finders.
    try:
        found = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        found = None
    for location in (found.submodule_search_locations or []) if found else []:
        folder = Path(location).joinpath(*parts[1:])
        for candidate in (folder / "__init__.py", folder.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    if found and found.origin and len(parts) == 1 and found.origin.endswith(".py"):
        return Path(found.origin)
    raise InputError(
        "no module of this name, or none with Python source",
        parameter=parameter,
        allowed="an import path package.module:function, importable from the working directory",
        received=received,
        where=f"looked in {', '.join(places)}",
    )


def _names_in(text: bytes, source: Path) -> set[str] | None:
    """The names at the top of a module; None where a `*` import hides some."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(
            "the module is not valid Python", where=f"{source}, line {error.lineno}", received=str(error.msg)
        ) from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if any(alias.name == "*" for alias in node.names):
                return None
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if "__getattr__" in names else names


def read_parameter_file(path: str | os.PathLike[str]) -> tuple[str | None, dict[str, Any]]:
    """Reads a file of parameters: `pipeline: NAME`, `schedule: {...}` (both optional) and `parameters: {...}`.

    A dictionary with the key `parameters_of: FILE` begins with the parameters of that file, its path seen from this
    one, and sets its other keys over them: the training that a monitoring starts is the training there is.

    Returns:
        The pipeline's name, or None, and the parameters.

    Raises:
        InputError: For a file that cannot be read, is not YAML, or has other keys.
    """
    return _read_parameter_file(Path(path), ())


def _read_parameter_file(path: Path, above: tuple[Path, ...]) -> tuple[str | None, dict[str, Any]]:
    content = read_mapping(path, what="the file of parameters")
    allowed = ("pipeline", "schedule", "parameters")
    for key in content:
        if key not in allowed:
            raise InputError(
                "the file of parameters has a key that is not known",
                where=str(path),
                parameter=key,
                allowed=allowed,
                received=key,
                hint=suggest(key, allowed) or "the pipeline's parameters go under `parameters:`",
            )
    parameters = content.get("parameters") or {}
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise InputError(
            "`parameters` is not a mapping of names to values",
            where=str(path),
            parameter="parameters",
            allowed="name: value, a line each",
            received=f"{type(parameters).__name__}: {parameters!r}",
        )
    pipeline = content.get("pipeline")
    if pipeline is not None and not isinstance(pipeline, str):
        raise InputError(
            "`pipeline` is not a name", where=str(path), parameter="pipeline", allowed="a string", received=pipeline
        )
    return pipeline, {name: _with_files(value, (*above, path.resolve()), name) for name, value in parameters.items()}


def _with_files(value: Any, above: tuple[Path, ...], place: str) -> Any:
    """A value in which each `parameters_of: FILE` is replaced by what that file says."""
    if isinstance(value, list):
        return [_with_files(item, above, place) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: _with_files(item, above, f"{place}.{key}") for key, item in value.items() if key != _FILE_KEY}
    if _FILE_KEY not in value:
        return own
    named = value[_FILE_KEY]
    if not isinstance(named, str):
        raise InputError(
            f"`{_FILE_KEY}` is not a path",
            where=str(above[-1]),
            parameter=f"{place}.{_FILE_KEY}",
            allowed="a file of parameters, seen from this one",
            received=named,
        )
    path = (above[-1].parent / named).resolve()
    if path in above:
        raise InputError(
            "files of parameters that begin with each other",
            where=str(above[-1]),
            parameter=f"{place}.{_FILE_KEY}",
            received=" -> ".join(str(file) for file in (*above, path)),
        )
    return {**_read_parameter_file(path, above)[1], **own}


def override(spec: Spec, arguments: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Sets single parameters from `name=value` texts.

    The value is read as YAML; for a string parameter a text stays as it is. A dotted name sets inside a dictionary:
    `hyperparameters.epochs=3`.

    Args:
        spec: The compiled pipeline.
        arguments: The arguments so far; left as they are.
        settings: The texts, applied in their order.

    Raises:
        InputError: For a text that is no `name=value`, a value that is not YAML, a name the pipeline does not have.
    """
    import copy

    import yaml

    parameters = parameters_of(spec)
    result: dict[str, Any] = copy.deepcopy(dict(arguments))
    for setting in settings:
        path, equals, text = setting.partition("=")
        name, *inner = path.strip().split(".")
        if not equals or not name or not all(inner):
            raise InputError("not a setting", parameter="--param", allowed="name=value", received=setting)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(
                "the value is not YAML", parameter=path, received=text, hint=" ".join(str(error).split())
            ) from error
        is_string = parameters.get(name, {}).get("parameterType") == "STRING"
        if not inner:
            # 2013 or "yes" for a string parameter is meant as it stands.
            result[name] = text if is_string and not isinstance(value, str) else value
            continue
        if name not in result:
            result[name] = copy.deepcopy(parameters.get(name, {}).get("defaultValue")) or {}
        _set_inside(result, [name, *inner], value, setting)
    return result


def _set_inside(target: dict[str, Any], keys: list[str], value: Any, setting: str) -> None:
    *outer, last = keys
    current: Any = target
    for depth, key in enumerate(outer):
        if current.get(key) is None:
            current[key] = {}
        current = current[key]
        if not isinstance(current, dict):
            raise InputError(
                "a dotted name sets inside a dictionary, and this is none",
                parameter=".".join(outer[: depth + 1]),
                allowed="a dictionary",
                received=f"{type(current).__name__}: {current!r} (in {setting!r})",
            )
    current[last] = value


def _typed(name: str, value: Any, kind: str) -> Any:
    if kind not in _TYPES:
        return value
    allowed, types = _TYPES[kind]
    # A bool is an int to Python, but no number to a person.
    fits = isinstance(value, types) and (not isinstance(value, bool) or bool in types)
    if fits:
        return float(value) if kind == "NUMBER_DOUBLE" else value
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    quoted = kind == "STRING" and isinstance(value, (int, float))
    raise InputError(
        f"parameter {name!r} has a value of the wrong type",
        parameter=name,
        allowed=allowed,
        received=f"{_type_name(value)}: {value!r}",
        hint=f'in a file, put it in quotes: {name}: "{value}"' if quoted else None,
    )


def _type_name(value: Any) -> str:
    names: dict[type, str] = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
    names |= {list: "a list", dict: "a dictionary", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
