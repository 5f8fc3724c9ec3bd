"""The catalog: finds every component and pipeline by its folder. Nothing lists them by hand."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeparts.errors import InputError, suggest

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

PACKAGE = Path(__file__).parent

#: The stages, in the order of the flow.
STAGES = (
    "ingestion",
    "data_validation",
    "feature_engineering",
    "training",
    "validation",
    "registry",
    "deployment",
    "prediction",
    "monitoring",
)

#: What every family's image is called in the source; compiling resolves it to a registry's address.
FAMILY_PREFIX = "pipeparts-python-"


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: As in the signature.
        type: "str", "int", "float", "bool", "dict", "list", or the artifact's class ("Dataset").
        doc: Its description.
        is_artifact: Whether it is an artifact rather than a parameter.
        required: Whether it has to be given (inputs only).
        default: The default, where it is not required.
    """

    name: str
    type: str
    doc: str
    is_artifact: bool
    required: bool = True
    default: Any = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A component or a pipeline of the catalog.

    Attributes:
        name: Its folder, its function and its module all have this name.
        kind: "component" or "pipeline".
        stage: The stage's folder; "pipelines" for a pipeline.
        folder: Where it is.
        summary: The first line of its docstring.
    """

    name: str
    kind: Literal["component", "pipeline"]
    stage: str
    folder: Path
    summary: str

    @property
    def source(self) -> Path:
        """The file with its KFP interface."""
        return self.folder / f"{self.kind}.py"

    @property
    def module(self) -> str:
        """The import path of that file."""
        middle = f"components.{self.stage}" if self.kind == "component" else "pipelines"
        return f"pipeparts.{middle}.{self.name}.{self.kind}"

    def load(self) -> BaseComponent:
        """Imports it (and kfp with it).

        Raises:
            InputError: Where the module has no component or pipeline of its folder's name.
        """
        module = importlib.import_module(self.module)
        loaded = getattr(module, self.name, None)
        if loaded is None or not hasattr(loaded, "pipeline_spec"):
            raise InputError(
                f"the module has no {self.kind} named like its folder",
                where=str(self.source),
                allowed=f"a function `{self.name}` decorated with @dsl.{self.kind}",
            )
        return loaded

    @property
    def family(self) -> str:
        """A component's image family: "data", "tensorflow", ...; empty for a pipeline."""
        return self._interface.family

    @property
    def description(self) -> str:
        """The docstring's text below its first line, up to its sections."""
        return self._interface.description

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in the order of the signature."""
        return self._interface.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The output artifacts, then the returned value as "Output"."""
        return self._interface.outputs

    @property
    def raises(self) -> tuple[tuple[str, str], ...]:
        """The errors, each with when it is raised."""
        return self._interface.raises

    @property
    def _interface(self) -> _Interface:
        return _interface_of(self)


@dataclasses.dataclass(frozen=True)
class _Interface:
    family: str
    description: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    raises: tuple[tuple[str, str], ...]


def components() -> list[Entry]:
    """Every component, by stage in the order of the flow, then by name."""
    found = [
        _entry(path.parent, "component", path.parent.parent.name)
        for path in PACKAGE.glob("components/*/*/component.py")
    ]
    order = {stage: position for position, stage in enumerate(STAGES)}
    return sorted(found, key=lambda entry: (order.get(entry.stage, len(order)), entry.name))


def pipelines() -> list[Entry]:
    """Every pipeline, by name."""
    found = [_entry(path.parent, "pipeline", "pipelines") for path in PACKAGE.glob("pipelines/*/pipeline.py")]
    return sorted(found, key=lambda entry: entry.name)


def find(name: str) -> Entry:
    """The component or pipeline of a name.

    Raises:
        InputError: Where there is none, with the close match.
    """
    entries = {entry.name: entry for entry in [*components(), *pipelines()]}
    wanted = name.replace("-", "_")
    if wanted not in entries:
        raise InputError(
            "no component or pipeline of this name",
            parameter="name",
            allowed=sorted(entries),
            received=name,
            hint=suggest(wanted, entries),
        )
    return entries[wanted]


def _entry(folder: Path, kind: Literal["component", "pipeline"], stage: str) -> Entry:
    tree = _parse(folder / f"{kind}.py")
    function = _function(tree, folder.name)
    docstring = ast.get_docstring(function) if function is not None else ast.get_docstring(tree)
    summary = (docstring or "").strip().partition("\n")[0]
    return Entry(name=folder.name, kind=kind, stage=stage, folder=folder, summary=summary)


@functools.cache
def _parse_source(source: str) -> ast.Module:
    return ast.parse(source)


def _parse(path: Path) -> ast.Module:
    return _parse_source(path.read_text(encoding="utf-8"))


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The function of that name, at the top or inside a factory; None where the module only calls one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _interface_of(entry: Entry) -> _Interface:
    if entry.kind == "component":
        return _component_interface(entry)
    return _pipeline_interface(entry)


def _component_interface(entry: Entry) -> _Interface:
    """Read from the source, so that listing needs no import of kfp."""
    import docstring_parser

    function = _function(_parse(entry.source), entry.name)
    if function is None:
        raise InputError("the module has no function named like its folder", where=str(entry.source))
    doc = docstring_parser.parse(ast.get_docstring(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    docs = {item.arg_name: (item.description or "").strip() for item in doc.params}
    return_docs = _returns(doc)
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    positional = [*function.args.posonlyargs, *function.args.args]
    defaults: dict[str, ast.expr] = dict(
        zip(
            [a.arg for a in positional[len(positional) - len(function.args.defaults) :]],
            function.args.defaults,
            strict=True,
        )
    )
    defaults.update(
        {a.arg: d for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is not None}
    )
    inputs, outputs = [], []
    for argument in arguments:
        kind, is_artifact, is_output = _annotation(argument.annotation)
        if is_output:
            outputs.append(Port(argument.arg, kind, return_docs.get(argument.arg, ""), is_artifact))
            continue
        default = defaults.get(argument.arg)
        inputs.append(
            Port(
                argument.arg,
                kind,
                docs.get(argument.arg, ""),
                is_artifact,
                required=default is None,
                default=ast.literal_eval(default) if default is not None else None,
            )
        )
    if function.returns is not None and not (
        isinstance(function.returns, ast.Constant) and function.returns.value is None
    ):
        text = return_docs.get("Output") or return_docs.get("", "")
        outputs.append(Port("Output", ast.unparse(function.returns), text, False))
    return _Interface(
        family=_family(function),
        description=(doc.long_description or "").strip(),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        raises=tuple((item.type_name or "", (item.description or "").strip()) for item in doc.raises),
    )


def _returns(doc: Any) -> dict[str, str]:
    """The outputs' descriptions from `Returns:`, where each is `name: text`; a lone text has the name ""."""
    found: dict[str, str] = {}
    for item in doc.many_returns or ([doc.returns] if doc.returns else []):
        found[item.type_name or item.return_name or ""] = (item.description or "").strip()
    # The parser takes "a: x\nb: y" as one return with the rest in its description.
    for name, text in list(found.items()):
        lines = text.split("\n")
        current = name
        for line in lines:
            head, colon, tail = line.partition(": ")
            if colon and head.isidentifier() and line is not lines[0]:
                current = head
                found[current] = tail.strip()
            elif line is lines[0]:
                found[current] = line.strip()
            else:
                found[current] = f"{found[current]} {line.strip()}".strip()
    return found


def _annotation(annotation: ast.expr | None) -> tuple[str, bool, bool]:
    """The type's name, whether it is an artifact, whether it is an output."""
    text = ast.unparse(annotation).replace("dsl.", "") if annotation is not None else "str"
    is_output = text.startswith("Output[")
    if text.startswith("Optional["):
        text = text.removeprefix("Optional[")[:-1]
    is_artifact = text.startswith(("Input[", "Output["))
    if is_artifact:
        text = text.partition("[")[2][:-1]
    return text, is_artifact, is_output


def _family(function: ast.FunctionDef) -> str:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if keyword.arg == "base_image" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value).removeprefix(FAMILY_PREFIX)
    return ""


_TYPES = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "BOOLEAN": "bool",
    "STRUCT": "dict",
    "LIST": "list",
}


def _pipeline_interface(entry: Entry) -> _Interface:
    from google.protobuf import json_format

    pipeline = entry.load()
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    found = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    # A message keeps its parameters in no order; the signature does.
    parameters = {name: found[name] for name in pipeline.component_spec.inputs if name in found}
    outputs = spec["root"].get("outputDefinitions", {})
    described = spec["pipelineInfo"].get("description", "").partition("\n")[2]
    return _Interface(
        family="",
        description=described.strip(),
        inputs=tuple(
            Port(
                name,
                _TYPES.get(parameter["parameterType"], parameter["parameterType"]),
                parameter.get("description", ""),
                False,
                required=not parameter.get("isOptional", False),
                default=_default(parameter),
            )
            for name, parameter in parameters.items()
        ),
        outputs=tuple(
            Port(name, port["artifactType"]["schemaTitle"].removeprefix("system."), port.get("description", ""), True)
            for name, port in outputs.get("artifacts", {}).items()
        )
        + tuple(
            Port(name, _TYPES.get(port["parameterType"], port["parameterType"]), port.get("description", ""), False)
            for name, port in outputs.get("parameters", {}).items()
        ),
        raises=(),
    )


def _default(parameter: dict[str, Any]) -> Any:
    """The default; a message keeps whole numbers as floats."""
    value = parameter.get("defaultValue")
    return int(value) if parameter["parameterType"] == "NUMBER_INTEGER" and value is not None else value
