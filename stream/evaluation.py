"""What the commands of ``hebbstream eval`` share: results that are kept, and gone on from.

``OUT/results.json`` holds ``settings``, which must be the same to go on, and ``results``, one object for each figure.
"""

import json
from pathlib import Path
from typing import Any

__all__ = ["read_results", "write_results"]


def read_results(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was found so far; ConfigError if it was found with other settings."""
    from stream.errors import ConfigError

    if not path.exists():
        return []
    kept = json.loads(path.read_text())
    if kept["settings"] != settings:
        raise ConfigError(f"{path}: holds results of {kept['settings']}, wanted {settings}; give another --out")
    results: list[dict[str, Any]] = kept["results"]
    return results


def write_results(path: Path, settings: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Write what was found so far, whole or not at all."""
    side = path.with_suffix(".part")
    side.write_text(json.dumps({"settings": settings, "results": found}, indent=1) + "\n")
    side.replace(path)
