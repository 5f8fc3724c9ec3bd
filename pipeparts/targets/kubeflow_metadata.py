"""Reads what the steps of a run gave from Kubeflow's metadata store, as the console does: gRPC-web over HTTP.

The API of the pipelines names no artifact's address and no parameter's value; ML Metadata does. Its messages are built
here from the numbers of their fields (ml_metadata/proto/metadata_store.proto and metadata_store_service.proto): its own
package has no wheels for the Pythons that this library runs on.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from pipeparts.errors import ServiceError
from pipeparts.targets.base import Output

SERVICE = "ml_metadata.MetadataStoreService"

_RUN_CONTEXT = "system.PipelineRun"
_STEPS = ("system.ContainerExecution", "system.ImporterExecution")
_OUTPUT_EVENT = 4
_NOT_FOUND = 5
#: What Kubeflow's launcher keeps beside an artifact's own metadata.
_INTERNAL = ("display_name", "store_session_info")
_TRAILERS = 0x80

#: Message to its fields: name, number, type; a type with a capital letter is a message, "*" is repeated, "{}" a map.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Value": (
        ("int_value", 1, "int64"),
        ("double_value", 2, "double"),
        ("string_value", 3, "string"),
        ("struct_value", 4, ".google.protobuf.Struct"),
        ("bool_value", 6, "bool"),
    ),
    "Context": (("id", 1, "int64"), ("name", 3, "string")),
    "Execution": (
        ("id", 1, "int64"),
        ("type", 7, "string"),
        ("custom_properties", 5, "{}Value"),
    ),
    "Step": (("index", 1, "int64"), ("key", 2, "string")),
    "Path": (("steps", 1, "*Step"),),
    "Event": (
        ("artifact_id", 1, "int64"),
        ("execution_id", 2, "int64"),
        ("path", 3, "Path"),
        ("type", 4, "int32"),
    ),
    "Artifact": (
        ("id", 1, "int64"),
        ("type_id", 2, "int64"),
        ("uri", 3, "string"),
        ("custom_properties", 5, "{}Value"),
        ("type", 8, "string"),
    ),
    "ArtifactType": (("id", 1, "int64"), ("name", 2, "string")),
    "GetContextByTypeAndNameRequest": (("type_name", 1, "string"), ("context_name", 2, "string")),
    "GetContextByTypeAndNameResponse": (("context", 1, "Context"),),
    "GetExecutionsByContextRequest": (("context_id", 1, "int64"),),
    "GetExecutionsByContextResponse": (("executions", 1, "*Execution"),),
    "GetEventsByExecutionIDsRequest": (("execution_ids", 1, "*int64"),),
    "GetEventsByExecutionIDsResponse": (("events", 1, "*Event"),),
    "GetArtifactsByIDRequest": (("artifact_ids", 1, "*int64"), ("populate_artifact_types", 3, "bool")),
    "GetArtifactsByIDResponse": (("artifacts", 1, "*Artifact"), ("artifact_types", 2, "*ArtifactType")),
}

#: Sends the bytes of a message to a method, and gives the answer's status, headers and bytes.
Post = Callable[[str, bytes, dict[str, str]], tuple[int, dict[str, str], bytes]]


def read_outputs(run_id: str, post: Post) -> list[Output]:
    """What the steps of a run gave: artifacts with their addresses and metadata, and the values of parameters.

    Args:
        run_id: The run; its context in the store is called so.
        post: Sends a request.

    Raises:
        ServiceError: Where the store does not answer as it should. A run that has no context yet gave nothing.
    """
    ask = functools.partial(_ask, post)
    context = ask("GetContextByTypeAndName", type_name=_RUN_CONTEXT, context_name=run_id).context
    if not context.id:
        return []
    found = ask("GetExecutionsByContext", context_id=context.id).executions
    steps = {execution.id: execution for execution in found if execution.type in _STEPS}
    events = ask("GetEventsByExecutionIDs", execution_ids=list(steps)).events if steps else []
    made = [event for event in events if event.type == _OUTPUT_EVENT and event.execution_id in steps]
    wanted = sorted({event.artifact_id for event in made})
    answer = ask("GetArtifactsByID", artifact_ids=wanted, populate_artifact_types=True) if wanted else None
    types = {kind.id: kind.name for kind in answer.artifact_types} if answer else {}
    artifacts = {artifact.id: artifact for artifact in answer.artifacts} if answer else {}
    outputs: list[Output] = []
    for identifier in sorted(steps):
        execution = steps[identifier]
        name = _name_of(execution)
        for event in made:
            if event.execution_id == identifier and event.artifact_id in artifacts:
                artifact = artifacts[event.artifact_id]
                metadata = {key: _plain(value) for key, value in artifact.custom_properties.items()}
                outputs.append(
                    Output(
                        task=name,
                        name=next((step.key for step in event.path.steps if step.key), ""),
                        value=artifact.uri,
                        type=artifact.type or types.get(artifact.type_id, "system.Artifact"),
                        metadata={key: metadata[key] for key in sorted(metadata) if key not in _INTERNAL},
                    )
                )
        if "outputs" in execution.custom_properties:
            values = _plain(execution.custom_properties["outputs"])
            outputs += [Output(name, key, values[key]) for key in sorted(values)]
    return outputs


def _name_of(execution: Any) -> str:
    """The task's name, with the iteration's number in a loop."""
    properties = {key: _plain(execution.custom_properties[key]) for key in execution.custom_properties}
    name = str(properties.get("display_name") or properties.get("task_name") or "")
    iteration = properties.get("iteration_index")
    return name if iteration is None else f"{name} [iteration {iteration}]"


def _plain(value: Any) -> Any:
    """A value of the store as Python has it."""
    from google.protobuf import json_format

    kind = next((field.name for field, _ in value.ListFields()), None)
    if kind is None:
        return ""
    found = getattr(value, kind)
    return json_format.MessageToDict(found) if kind == "struct_value" else found


def _ask(post: Post, method: str, **fields: Any) -> Any:
    """Calls a method of the store; an answer that says "not found" is an empty one."""
    request = message_class(f"{method}Request")(**fields)
    content: bytes = request.SerializeToString()
    frame = struct.pack(">BI", 0, len(content)) + content
    headers = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1", "Accept": "application/grpc-web+proto"}
    status, answered, body = post(f"{SERVICE}/{method}", frame, headers)
    kind = answered.get("Content-Type", "")
    if status != 200 or not kind.startswith("application/grpc-web"):
        raise _unreadable(f"status {status}, {kind or 'no content type'}")
    said, response = dict(answered), message_class(f"{method}Response")()
    try:
        for flags, part in _frames(body):
            if flags & _TRAILERS:
                lines = part.decode("latin-1").splitlines()
                said.update({name.strip().lower(): text.strip() for name, _, text in (e.partition(":") for e in lines)})
            else:
                response.MergeFromString(part)
    except (ValueError, struct.error) as error:
        raise _unreadable(f"an answer that cannot be read: {error}") from error
    said = {name.lower(): text for name, text in said.items()}
    if "grpc-status" not in said:
        raise _unreadable("an answer that was cut short")
    if said["grpc-status"] not in ("0", str(_NOT_FOUND)):
        raise _unreadable(f"gRPC status {said['grpc-status']}: {unquote(said.get('grpc-message', ''))}")
    return response


def _frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        flags, length = struct.unpack_from(">BI", body)
        if len(body) < 5 + length:
            raise ValueError(f"{len(body) - 5} bytes of {length}")
        yield flags, body[5 : 5 + length]
        body = body[5 + length :]


def _unreadable(received: str) -> ServiceError:
    return ServiceError(
        "cannot read what the run gave on Kubeflow Pipelines: its metadata store does not answer as it should",
        parameter="metadata_host",
        allowed="the address below which /ml_metadata.MetadataStoreService is: the console's, or the one of "
        "metadata-envoy-service",
        received=received,
    )


@functools.cache
def message_class(name: str) -> Any:
    """The class of one of the store's messages."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"ml_metadata.{name}"))


@functools.cache
def _pool() -> Any:
    """The messages, in a pool of their own: in another they would clash with those of the ml_metadata package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name="pipeparts/metadata.proto",
        package="ml_metadata",
        syntax="proto2",
        dependency=["google/protobuf/struct.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    many = kind[0] in "*{"
    base = kind.lstrip("*{}")
    label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
    if kind.startswith("{}"):
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, base)
        base = f".ml_metadata.{message.name}.{entry.name}"
    if base.startswith(".") or base[0].isupper():
        path = base if base.startswith(".") else f".ml_metadata.{base}"
        message.field.add(name=name, number=number, label=label, type=Field.TYPE_MESSAGE, type_name=path)
    else:
        message.field.add(name=name, number=number, label=label, type=getattr(Field, f"TYPE_{base.upper()}"))
