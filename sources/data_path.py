"""Paths as people write them in pipeline files: ``~/recordings``, ``${HEBBSTREAM_DATA}/nmnist/train``."""

import os
import re
from pathlib import Path

from stream.errors import ConfigError

__all__ = ["expand_path"]

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expand_path(path: str) -> Path:
    """Replace environment variables and ``~``.

    Raises
    ------
    ConfigError
        A variable is not set. (``os.path.expandvars`` leaves it in the text, and the error then speaks of a
        folder called ``${...}``.)
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise ConfigError(
                f"path {path!r}: the environment variable {name} is not set; "
                f"set it (export {name}=/some/folder) or write the folder out"
            )
        return os.environ[name]

    return Path(_VARIABLE.sub(value, path)).expanduser()
