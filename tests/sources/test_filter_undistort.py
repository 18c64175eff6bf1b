"""Undistortion: against the lens itself, and against OpenCV where it is installed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.calibration import Calibration
from sources.filter_undistort import Undistort, undistorted_pixels
from stream.packet import EVENT_DTYPE, Message, Packet, packet_of

WIDTH, HEIGHT = 64, 48
BARREL = Calibration(50.0, 51.0, 31.2, 22.9, -0.28, 0.07, 0.0008, -0.0011, -0.004)
LENSES = {
    "barrel": BARREL,
    "pincushion": BARREL._replace(k1=0.21, k2=-0.03),
    "none": Calibration(50.0, 51.0, 31.2, 22.9),
    "tangential": BARREL._replace(p1=0.02, p2=-0.03),
}


def seen(lens: Calibration, u: float, v: float) -> tuple[float, float]:
    """Send an ideal pixel through the lens."""
    x, y = (u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy
    r2 = x**2 + y**2
    a = 1 + lens.k1 * r2 + lens.k2 * r2**2 + lens.k3 * r2**3
    x_seen = x * a + 2 * lens.p1 * x * y + lens.p2 * (r2 + 2 * x**2)
    y_seen = y * a + lens.p1 * (r2 + 2 * y**2) + 2 * lens.p2 * x * y
    return lens.fx * x_seen + lens.cx, lens.fy * y_seen + lens.cy


@pytest.mark.parametrize("which", LENSES)
def test_the_lens_sends_each_place_back_to_its_pixel(which: str) -> None:
    u, v = undistorted_pixels(LENSES[which], WIDTH, HEIGHT)
    assert np.isfinite(u).mean() > 0.9
    for row, column in np.argwhere(np.isfinite(u))[::7].tolist():
        assert seen(LENSES[which], u[row, column], v[row, column]) == pytest.approx((column, row), abs=1e-6)


@pytest.mark.parametrize("which", LENSES)
def test_opencv_says_the_same(which: str) -> None:
    cv2 = pytest.importorskip("cv2")
    lens = LENSES[which]
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    matrix = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
    points = np.stack([columns.ravel(), rows.ravel()], axis=-1)[:, None, :]
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
    # OpenCV 5 gave the criteria to the plain function
    undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
    wanted = undistort(points, matrix, np.array(lens[4:9]), R=np.eye(3), P=matrix, criteria=until)
    u, v = undistorted_pixels(lens, WIDTH, HEIGHT)
    is_there = np.isfinite(u).ravel()
    assert is_there.mean() > 0.9
    got = np.stack([u.ravel(), v.ravel()], axis=-1)
    assert np.abs(got - wanted[:, 0, :])[is_there].max() < 1e-6


def test_where_the_polynomial_folds_there_is_no_place() -> None:
    # r a(r) has its maximum 0.38 at r = 0.58: what is seen further out comes from nowhere
    u, v = undistorted_pixels(BARREL._replace(k1=-1.0, k2=0, k3=0, p1=0, p2=0), WIDTH, HEIGHT)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    r_seen = np.hypot((columns - BARREL.cx) / BARREL.fx, (rows - BARREL.cy) / BARREL.fy)
    assert np.all(np.isnan(u[r_seen > 0.39]))
    assert np.all(np.isfinite(u[r_seen < 0.35]))
    assert np.array_equal(np.isnan(u), np.isnan(v))
    assert np.nanmax(np.hypot((u - BARREL.cx) / BARREL.fx, (v - BARREL.cy) / BARREL.fy)) < 0.58


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=9, max_size=9), st.floats(0.01, 100))
def test_any_lens_gives_places_or_none(numbers: list[float], zoom: float) -> None:
    fx, fy, *rest = numbers
    u, v = undistorted_pixels(Calibration(abs(fx) or 1.0, abs(fy) or 1.0, *rest), 3, 2, zoom)
    assert u.shape == v.shape == (2, 3)


def corner_and_centre(operator: Undistort) -> tuple[list[tuple[int, int, int, int]], dict[str, float]]:
    events = np.array([(0, 0, 0, 1), (1, 31, 23, 0), (2, WIDTH - 1, HEIGHT - 1, 1)], EVENT_DTYPE)
    out: list[Message] = []
    operator.on_packet("events", packet_of(events), lambda port, message: out.append(message))
    (packet,) = out
    assert isinstance(packet, Packet)
    return packet.items.tolist(), operator.statistics()


def test_events_that_leave_the_sensor_are_counted_and_zoom_makes_room_for_them(tmp_path: Path) -> None:
    path = tmp_path / "lens.json"
    lens = BARREL
    matrix = [lens.fx, 0, lens.cx, 0, lens.fy, lens.cy, 0, 0, 1]
    path.write_text(json.dumps({"K": matrix, "D": list(lens[4:9])}))
    size = {"width": WIDTH, "height": HEIGHT}
    out, counts = corner_and_centre(Undistort(**size, calibration=str(path)))
    assert out == [(1, 31, 23, 0)]
    assert counts["dropped"] == 2
    assert 0 < counts["lost pixels"] < 0.5 * WIDTH * HEIGHT
    out, counts = corner_and_centre(Undistort(**size, calibration=str(path), zoom=0.7))
    assert [it[0] for it in out] == [0, 1, 2]
    assert counts["dropped"] == counts["lost pixels"] == 0
