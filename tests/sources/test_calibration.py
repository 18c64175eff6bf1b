"""Calibration files in the forms of OpenCV and ROS, and what is refused."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sources.calibration import MOST_BYTES, Calibration, read_calibration
from stream.errors import FormatError

WANTED = Calibration(250.5, 251.25, 160.0, 119.5, -0.25, 0.125, 1e-05, -0.002, 0.5, 320, 240)

OPENCV_YAML = """%YAML:1.0
---
calibration_time: "Mon 01 Jan 2024 10:00:00"
image_width: 320
image_height: 240
flags: 0
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 2.5050000000000000e+02, 0., 160., 0., 251.25, 1.195e+02, 0.,
       0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.5e-01, 1.25e-01, 1.0000000000000001e-05, -2.0e-03,
       0.5 ]
avg_reprojection_error: 3.1e-01
"""
OPENCV_JSON = """{
    "image_width": 320, "image_height": 240,
    "camera_matrix": {"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d",
        "data": [ 250.5, 0.0, 160.0, 0.0, 251.25, 119.5, 0.0, 0.0, 1.0 ]},
    "distortion_coefficients": {"type_id": "opencv-matrix", "rows": 1, "cols": 5, "dt": "d",
        "data": [ -0.25, 0.125, 1e-05, -0.002, 0.5 ]}
}"""
ROS = """image_width: 320
image_height: 240
camera_name: dvs
camera_matrix:
  rows: 3
  cols: 3
  data: [250.5, 0, 160, 0, 251.25, 119.5, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.25, 0.125, 1e-05, -0.002, 0.5]
projection_matrix:
  rows: 3
  cols: 4
  data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
"""
ROS_MESSAGE = """header:
  stamp: {sec: 1, nanosec: 2}
  frame_id: camera
height: 240
width: 320
distortion_model: plumb_bob
d:
- -0.25
- 0.125
- 1.0e-05
- -0.002
- 0.5
k: [250.5, 0.0, 160.0, 0.0, 251.25, 119.5, 0.0, 0.0, 1.0]
r: [1, 0, 0, 0, 1, 0, 0, 0, 1]
"""
BARE = """{"cameraMatrix": [[250.5, 0, 160], [0, 251.25, 119.5], [0, 0, 1]],
"distCoeffs": [[-0.25, 0.125, 1e-5, -0.002, 0.5]], "width": 320, "height": 240}"""
FORMS = {"opencv yaml": OPENCV_YAML, "opencv json": OPENCV_JSON, "ros": ROS, "ros message": ROS_MESSAGE, "bare": BARE}


def read(folder: Path, text: str | bytes) -> Calibration:
    path = folder / "lens.cal"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_calibration(path)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path: Path, form: str) -> None:
    assert read(tmp_path, FORMS[form]) == WANTED
    assert read(tmp_path, FORMS[form].replace("\n", "\r\n")) == WANTED


def test_coefficients_may_be_fewer_and_zeros_more(tmp_path: Path) -> None:
    k = '{"K": [2, 0, 3, 0, 2, 3, 0, 0, 1], "D": '
    assert read(tmp_path, k + "[]}") == Calibration(2, 2, 3, 3)
    assert read(tmp_path, k + "[1, 2, 3, 4]}") == Calibration(2, 2, 3, 3, 1, 2, 3, 4)
    assert read(tmp_path, k + "[1, 2, 3, 4, 5, 0, 0, 0]}") == Calibration(2, 2, 3, 3, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("ends", [True, False])
def test_opencv_reads_back_what_we_read(tmp_path: Path, ends: bool) -> None:
    """What OpenCV itself writes, not what we believe that it writes."""
    cv2 = pytest.importorskip("cv2")
    import numpy as np

    path = tmp_path / ("lens.json" if ends else "lens.yaml")
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("image_width", 320)
    file.write("image_height", 240)
    file.write("camera_matrix", np.array([[250.5, 0, 160], [0, 251.25, 119.5], [0, 0, 1]]))
    file.write("distortion_coefficients", np.array([[-0.25, 0.125, 1e-05, -0.002, 0.5]]))
    file.release()
    assert read_calibration(path) == WANTED


BAD = {
    "no matrix": ("image_width: 320\n", "no camera_matrix in it, only imagewidth"),
    "no coefficients": ('{"K": [2, 0, 3, 0, 2, 3, 0, 0, 1]}', "no distortion_coefficients"),
    "a word": (ROS.replace("250.5", "wide"), "camera_matrix: Expected `float`"),
    "short": (ROS.replace("250.5, ", ""), "camera_matrix has 8 numbers, wanted 9"),
    "skew": (ROS.replace("250.5, 0,", "250.5, 1,"), "is not fx 0 cx, 0 fy cy, 0 0 1"),
    "no focal length": (ROS.replace("250.5", "0"), "fx and fy above 0"),
    "infinite": (ROS.replace("250.5", ".inf"), "not finite"),
    "not a number": (ROS.replace("-0.25", ".nan"), "not finite"),
    "three": (ROS.replace("-0.25, 0.125, ", ""), "has 3 numbers, wanted k1 k2 p1 p2"),
    "rational": (ROS.replace(", 0.5]", ", 0.5, 1, 2, 3]"), "has 8 numbers, wanted k1 k2 p1 p2"),
    "endless": (ROS.replace(", 0.5]", ", 0.5" + ", 0" * 30 + "]"), "over 20 numbers"),
    "fisheye in ros": (ROS.replace("plumb_bob", "equidistant"), "lens model 'equidistant', wanted plumb_bob"),
    "fisheye in opencv": (OPENCV_YAML + "fisheye_model: 1\n", "lens model 'fisheye'"),
    "size": (ROS.replace("320", "-1"), "image_width is -1, wanted a number of pixels"),
    "list": ("[1, 2]", "got list, wanted names and values"),
    "empty": ("", "got NoneType"),
    "torn json": (BARE[:60], "neither JSON nor YAML"),
    "torn yaml": (ROS[: ROS.index("119.5")], "neither JSON nor YAML"),
    "tag": (
        "camera_matrix: !!python/object:os.system {}\n",
        "neither JSON nor YAML: could not determine a constructor",
    ),
    "binary": (b"\x00\xff\xfe\x01", "neither JSON nor YAML"),
    "large": (" " * (MOST_BYTES + 1), f"over {MOST_BYTES} bytes"),
    "deep": ("[" * MOST_BYTES, "recursion"),
    "deep json": ('{"a":' * 10_000, "recursion"),
    "unfolding": (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True))
        + "distortion_model: *k\n",
        "lens model a list",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_calibration_is_refused(tmp_path: Path, case: str) -> None:
    text, said = BAD[case]
    with pytest.raises(FormatError, match=said):
        read(tmp_path, text)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(FormatError, match=path.name):
            read_calibration(path)


@given(
    form=st.sampled_from(sorted(FORMS)),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=4)), max_size=5),
)
@example(form="bare", edits=[(18, 5, b"9" * 400)])
@example(form="ros", edits=[(13, 3, b"9" * 5000)])
def test_damaged_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, form: str, edits: list[tuple[int, int, bytes]]
) -> None:
    data = FORMS[form].encode()
    for at, n_cut, new in edits:
        data = data[: at % len(data)] + new + data[at % len(data) + n_cut :]
    with contextlib.suppress(FormatError):
        assert isinstance(read(tmp_path_factory.getbasetemp(), data), Calibration)
