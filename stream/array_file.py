"""A file of named arrays and what they mean: safetensors, with a description in JSON. No pickles: reading runs no code.

The file's metadata hold one key, which tells what kind of file it is; its value is the description. Networks
(``neurons.graph_file``) and programs (``chip.program_file``) are such files. Both describe tuples with names: arrays in
them stand under their place (``projection.0.weight``), everything else in the description.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from stream.errors import FormatError
from stream.places import write_whole

__all__ = ["Value", "apart", "read_arrays", "together", "write_arrays"]

Kind = TypeVar("Kind", bound=msgspec.Struct)

Value = float | int | str | list[int]
"""What a description says of a field that is no array."""


def write_arrays(path: str | Path, key: str, description: msgspec.Struct, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file, whole or not at all.

    Parameters
    ----------
    path
        Where; what is there is replaced.
    key
        Of the metadata: the kind of file.
    description, arrays
        What it is to hold.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = safetensors.numpy.save(whole, {key: msgspec.json.encode(description).decode()})
    write_whole(Path(path).expanduser(), data)


def read_arrays(
    path: str | Path, key: str, kind: type[Kind], subject: str, maker: str
) -> tuple[Kind, dict[str, NDArray[Any]]]:
    """Read a file.

    Parameters
    ----------
    path
        Where.
    key, kind
        What it must hold, and what the description must look like.
    subject, maker
        What such a file is called, and who writes it; for messages.

    Returns
    -------
    description, arrays

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of another kind.
    """
    path = Path(path).expanduser()
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise FormatError(f"{subject} {path}: not there") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise FormatError(f"{subject} {path}: damaged, or not a safetensors file: {error}") from None
    if key not in metadata:
        raise FormatError(f"{subject} {path}: no '{key}' in its metadata; wanted a file written by {maker}")
    try:
        return msgspec.json.decode(metadata[key], type=kind), arrays
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise FormatError(f"{subject} {path}: {error}") from None


def apart(place: str, item: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, Value]:
    """Take a named tuple apart: what is an array goes to ``arrays``, under its place; the rest is returned."""
    values: dict[str, Value] = {}
    for name, value in item._asdict().items():
        if isinstance(value, np.ndarray) and value.ndim:
            arrays[f"{place}.{name}"] = value
        elif isinstance(value, str):
            values[name] = value
        elif isinstance(value, tuple | list):
            values[name] = [int(number) for number in value]
        else:
            values[name] = int(value) if isinstance(value, int | np.integer) else float(value)
    return values


def together(
    subject: str,
    kinds: Mapping[str, Any],
    kind: str,
    place: str,
    values: Mapping[str, Value],
    arrays: Mapping[str, NDArray[Any]],
) -> Any:
    """Put a named tuple together again.

    Parameters
    ----------
    subject
        The file, for messages.
    kinds, kind
        The tuples that there are, by name; the one that is wanted.
    place, values, arrays
        As :func:`apart` left them.

    Raises
    ------
    FormatError
        If there is no such kind, or its fields are not those that are given.
    """
    if kind not in kinds:
        raise FormatError(f"{subject}: {place} is a {kind}, wanted one of {', '.join(kinds)}")
    own = {name.removeprefix(f"{place}."): array for name, array in arrays.items() if name.startswith(f"{place}.")}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()} | own
    fields = kinds[kind]._fields
    if set(given) != set(fields):
        raise FormatError(f"{subject}: {place} has {', '.join(given) or 'nothing'}, wanted {', '.join(fields)}")
    return kinds[kind](**given)
