"""The errors of hebbstream, one small typed tree.

::

    HebbstreamError
    ├── UsageError            the caller asked for something impossible         exit code 2
    │   ├── ConfigError       a pipeline file or parameter is wrong
    │   ├── GraphError        operators and edges do not fit together
    │   └── FormatError       a file is missing, damaged or of an unknown format
    └── RunError              something failed while running                    exit code 1
        ├── StreamError       an edge broke, a peer spoke nonsense, a count did not come out
        └── CapacityError     a program does not fit the chip, a core or the mesh overflowed

Every message gives the subject, what it got, what it wanted and the way out.
"""

__all__ = [
    "CapacityError",
    "ConfigError",
    "FormatError",
    "GraphError",
    "HebbstreamError",
    "RunError",
    "StreamError",
    "UsageError",
]


class HebbstreamError(Exception):
    """Anything hebbstream raises on purpose."""

    exit_code = 1


class UsageError(HebbstreamError):
    """The caller asked for something impossible."""

    exit_code = 2


class ConfigError(UsageError):
    """A pipeline file or a parameter is wrong; the message names the place."""


class GraphError(UsageError):
    """Operators and edges do not fit together."""


class FormatError(UsageError):
    """A file is missing, damaged or of an unknown format; what was read before the fault is kept."""


class RunError(HebbstreamError):
    """Something failed while the pipeline was running."""


class StreamError(RunError):
    """An edge broke, a peer spoke nonsense, or a ledger did not come out."""


class CapacityError(RunError):
    """A program does not fit the chip, or a core or the mesh overflowed."""
