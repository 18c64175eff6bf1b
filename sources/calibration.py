"""Calibration files: what a lens does to a picture, as OpenCV and ROS write it.

Read are, told apart by their content and not by their name:

- OpenCV's ``FileStorage``, YAML or JSON: matrices with ``rows``, ``cols`` and ``data``;
- ROS ``camera_info`` YAML, as ``camera_calibration`` writes it and ``camera_info_manager`` reads it; a ``CameraInfo``
  message as text (``k``, ``d``);
- JSON or YAML with bare lists: ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`` or the same nine numbers in one row.

The camera matrix is looked for under ``camera_matrix``, ``cameraMatrix`` or ``K``, the distortion coefficients under
``distortion_coefficients``, ``dist_coeffs``, ``distCoeffs`` or ``D``, upper or lower case, and the size of the picture
under ``image_width`` and ``image_height``, or ``width`` and ``height``. Rectification and projection, which are about
two cameras, are left aside.

The lens model is the one of both, k1 k2 p1 p2 k3 (ROS: ``plumb_bob``): see ``filter_undistort``. Fisheye
(``equidistant``) and rational models are refused rather than half obeyed.

Formats: OpenCV, "File input and output using XML / YAML / JSON files"; ROS, ``sensor_msgs/CameraInfo`` and
``camera_calibration_parsers``.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stream.errors import ConfigError, FormatError

__all__ = ["Calibration", "read_calibration"]

MOST_BYTES = 1 << 16
_MATRIX = ("cameramatrix", "k")
_DISTORTION = ("distortioncoefficients", "distcoeffs", "d")
_MOST_NUMBERS = 20  # OpenCV has lens models with up to 14
_MODELS = ("", "plumb_bob", "radtan", "rational_polynomial")  # the last only if its further coefficients are zero


class Calibration(NamedTuple):
    """A pinhole and a lens before it."""

    fx: float  # focal lengths, pixels
    fy: float
    cx: float  # where the axis meets the sensor, pixels; (0, 0) is the centre of the top left pixel
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    k3: float = 0.0
    width: int | None = None  # of the sensor that was calibrated, pixels; None = the file does not say
    height: int | None = None


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises
    ------
    FormatError
        If the file is missing, damaged, lacks a part, or describes another lens model.
    ConfigError
        If it is YAML and PyYAML is not installed.
    """
    subject = f"calibration {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{subject}: {error.strerror or error}; give a calibration file") from None
    if len(data) > MOST_BYTES:
        raise FormatError(f"{subject}: over {MOST_BYTES} bytes, wanted some dozen numbers; is it a calibration file?")
    content = _parse(subject, data)
    if not isinstance(content, dict):
        raise FormatError(f"{subject}: got {type(content).__name__}, wanted names and values")
    found = {key.lower().replace("_", ""): value for key, value in content.items() if isinstance(key, str)}
    model = found.get("distortionmodel", "")
    model = "fisheye" if found.get("fisheyemodel") else model
    if model not in _MODELS:
        raise FormatError(
            f"{subject}: lens model {_shown(model)}, wanted plumb_bob: k1 k2 p1 p2 k3; calibrate with that model"
        )
    matrix = _numbers(subject, "camera_matrix", found, _MATRIX)
    if len(matrix) != 9:
        raise FormatError(f"{subject}: camera_matrix has {len(matrix)} numbers, wanted 9")
    fx, skew, cx, zero, fy, cy, *last = matrix
    if not (fx > 0 and fy > 0) or (skew, zero, *last) != (0, 0, 0, 0, 1):
        raise FormatError(f"{subject}: camera_matrix is not fx 0 cx, 0 fy cy, 0 0 1 with fx and fy above 0")
    lens = _numbers(subject, "distortion_coefficients", found, _DISTORTION)
    if len(lens) in (1, 2, 3) or any(lens[5:]):
        raise FormatError(
            f"{subject}: distortion_coefficients has {len(lens)} numbers, wanted k1 k2 p1 p2 and maybe k3"
        )
    k1, k2, p1, p2, k3 = (lens + [0.0] * 5)[:5]
    width, height = _size(subject, found, "width"), _size(subject, found, "height")
    return Calibration(fx, fy, cx, cy, k1, k2, p1, p2, k3, width, height)


def _parse(subject: str, data: bytes) -> Any:
    try:
        if data.lstrip().startswith(b"{"):
            return msgspec.json.decode(data)
        # OpenCV writes a first line and a tag that are not YAML
        data = re.sub(rb"\A\s*%YAML:?\s*\d\.\d[^\n]*", b"", data).replace(b"!!opencv-matrix", b"")
        return _parse_yaml(data)
    except ImportError:
        raise ConfigError(f"{subject}: YAML is read by PyYAML; pip install pyyaml, or give the file as JSON") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{subject}: neither JSON nor YAML: {what}; write it anew") from None


def _parse_yaml(data: bytes) -> Any:
    import yaml  # type: ignore[import-untyped]  # optional: only those with a YAML file need it

    try:
        # not the loader in C (nor msgspec.yaml, which takes it): it dies of 60 kB of open brackets
        return yaml.load(data, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _shown(value: Any) -> str:
    """Return a value for a message; only its type if it is a structure, which in YAML may unfold without end."""
    return repr(value)[:40] if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _numbers(subject: str, name: str, found: dict[str, Any], words: tuple[str, ...]) -> list[float]:
    node = next((found[word] for word in words if word in found), None)
    if node is None:
        raise FormatError(f"{subject}: no {name} in it, only {', '.join(sorted(found))[:200] or 'nothing'}")
    if isinstance(node, dict):
        node = node.get("data")
    if isinstance(node, list) and all(isinstance(row, list) for row in node):
        node = [number for row in node[:_MOST_NUMBERS] for number in row[:_MOST_NUMBERS]]
    if isinstance(node, list) and len(node) > _MOST_NUMBERS:
        raise FormatError(f"{subject}: {name} has over {_MOST_NUMBERS} numbers; is it a calibration file?")
    try:
        # not strict: YAML 1.1 takes 1e-05, which has no point, for a word
        numbers = msgspec.convert(node, list[float], strict=False)
    except msgspec.ValidationError as error:
        raise FormatError(f"{subject}: {name}: {error}; wanted a list of numbers") from None
    if not all(math.isfinite(number) for number in numbers):
        raise FormatError(f"{subject}: {name} holds a number that is not finite; calibrate again")
    return numbers


def _size(subject: str, found: dict[str, Any], side: str) -> int | None:
    value = found.get(f"image{side}", found.get(side))
    if value is None or (type(value) is int and 0 < value <= 1 << 16):
        return value
    raise FormatError(f"{subject}: image_{side} is {_shown(value)}, wanted a number of pixels")
