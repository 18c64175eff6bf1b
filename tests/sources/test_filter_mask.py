"""Files of pixels: both forms, what is refused, and the mask that the hot pixel filter learns."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import filter_mask
from sources.filter_hot_pixel import HotPixel
from sources.filter_mask import Mask, read_mask, write_mask
from stream.errors import ConfigError, FormatError, StreamError
from stream.packet import EVENT_DTYPE, Message, Packet, packet_of


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["mask.txt", "mask.npy"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_is_written_is_read(tmp_path: Path, name: str, share: float) -> None:
    mask = np.random.default_rng(1).random((30, 40)) < share
    path = tmp_path / "new" / "folder" / name
    write_mask(path, mask)
    again = read_mask(path, 40, 30)
    assert again.dtype == np.bool_
    assert np.array_equal(again, mask)
    assert os.listdir(path.parent) == [name]


def test_text_is_what_a_person_would_write(tmp_path: Path) -> None:
    path = written(tmp_path / "m", b"# mine\r\n1 0\r\n\n  2,1 # hot\n3 \t 1\n#4 1\n1 0")
    assert np.argwhere(read_mask(path, 4, 2)).tolist() == [[0, 1], [1, 2], [1, 3]]
    write_mask(path, read_mask(path, 4, 2))
    assert path.read_bytes() == b"# x y of 3 pixels of a 4x2 sensor\n1 0\n2 1\n3 1\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1 2\n4 0\n", r"line 2: pixel \(4, 0\), wanted x < 4, y < 3"),
        (b"0 3", "line 1: pixel"),
        (b"1\n", "line 1: got b'1', wanted two whole numbers"),
        (b"1 2 3\n", "two whole numbers"),
        (b"-1 2\n", "two whole numbers"),
        (b"1.0 2\n", "two whole numbers"),
        (b"\xff\xfe1\x00", "two whole numbers"),
        (b"9" * 5000 + b" 1", "two whole numbers"),
    ],
)
def test_bad_text_is_refused_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_mask(written(tmp_path / "m.txt", data), 4, 3)


def test_a_file_that_cannot_be_one_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_mask, "MOST_BYTES", 10)
    with pytest.raises(FormatError, match="over 10 bytes"):
        read_mask(written(tmp_path / "m.txt", b"#" * 11), 4, 3)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path / "none.npy", tmp_path):
        with pytest.raises(FormatError, match=path.name):
            read_mask(path, 4, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 3), np.bool_), np.zeros((3, 4), np.uint8), np.zeros(12, np.bool_), np.array([None])]
)
def test_another_array_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "m.npy"
    np.save(path, array)
    with pytest.raises(FormatError, match=r"wanted bool \(3, 4\)|no NumPy array"):
        read_mask(path, 4, 3)


def test_an_array_in_columns_or_with_odd_truths_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    mask = np.arange(12).reshape(3, 4) % 5 == 0
    np.save(path, np.asfortranarray(mask))
    assert np.array_equal(read_mask(path, 4, 3), mask)
    np.save(path, mask)
    path.write_bytes(path.read_bytes()[:-12] + bytes(7 * mask.ravel().astype(np.uint8)))
    assert np.array_equal(read_mask(path, 4, 3), mask)
    assert np.array_equal(read_mask(path, 4, 3).view(np.uint8), mask.astype(np.uint8))


@given(st.data())
def test_a_damaged_array_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    np.save(path, np.ones((3, 4), np.bool_))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(FormatError):
        assert read_mask(path, 4, 3).shape == (3, 4)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in ("any.txt", "any.npy"):
        path = written(tmp_path_factory.getbasetemp() / name, data)
        with contextlib.suppress(FormatError):
            assert read_mask(path, 4, 3).shape == (3, 4)


def storm() -> Packet:
    """One pixel fires every 10 us, all the others once in 10 ms."""
    events = np.zeros(10_000, EVENT_DTYPE)
    events["t"] = np.arange(10_000) * 10
    events["x"], events["y"] = 2, 1
    events["x"][::100] = np.arange(100) % 5
    events["y"][::100] = np.arange(100) % 4
    return packet_of(events)


@pytest.mark.parametrize("name", ["learned.txt", "learned.npy"])
def test_what_the_hot_pixel_filter_learned_is_dropped_by_a_mask(tmp_path: Path, name: str) -> None:
    path = tmp_path / "masks" / name
    learner = HotPixel(width=5, height=4, max_hz=5000, window_us=10_000, save=str(path))
    learner.on_packet("events", storm(), lambda port, message: None)
    assert not path.exists()
    learner.on_end(lambda port, message: None)
    assert np.argwhere(read_mask(path, 5, 4)).tolist() == [[1, 2]]
    assert np.array_equal(read_mask(path, 5, 4), learner.state.is_hot)

    mask, out = Mask(width=5, height=4, path=str(path)), list[Message]()
    mask.on_packet("events", storm(), lambda port, message: out.append(message))
    (kept,) = out
    assert isinstance(kept, Packet)
    wanted = storm().items
    wanted = wanted[(wanted["x"] != 2) | (wanted["y"] != 1)]
    assert kept.items.tobytes() == wanted.tobytes()
    assert mask.statistics()["masked pixels"] == 1


def test_a_place_that_cannot_be_written_is_known_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "mask.txt"):
        with pytest.raises(ConfigError, match="cannot be written there"):
            HotPixel(width=5, height=4, save=str(place))


def test_a_place_that_is_gone_by_the_end_fails_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    learner = HotPixel(width=5, height=4, save=str(tmp_path / "masks" / "m.txt"))
    (tmp_path / "masks").write_text("")
    with pytest.raises(StreamError, match="masks"):
        learner.on_end(lambda port, message: None)
    assert os.listdir(tmp_path) == ["masks"]
