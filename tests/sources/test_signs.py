"""Made-up signs, and pieces of long recordings: what studies of teaching learn from."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sources.event_file import read_events
from sources.event_writer import open_writer
from sources.filter_downsample import Downsample
from sources.handwriting import Hand
from sources.pieces import cut_pieces
from sources.scene_images import read_idx
from sources.signs import A_THING, SIDE, picture_of, sign, write_signs
from stream.__main__ import app
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, Packet


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest cosine of two pictures, one moved by up to five pixels."""
    norm = np.linalg.norm(one.astype(float)) * np.linalg.norm(other.astype(float))
    shifts = [np.roll(other.astype(float), (y, x), (0, 1)) for y in range(-5, 6) for x in range(-5, 6)]
    return max(float(np.sum(one * it)) for it in shifts) / norm


def test_signs_are_always_the_same_and_never_alike() -> None:
    for number in range(300):
        strokes = sign(number, seed=3)
        assert strokes == sign(number, seed=3)
        assert 2 <= len(strokes) <= 3
        assert all(2 <= len(it.points) <= 4 and len(set(it.points)) == len(it.points) for it in strokes)
    assert len({str(sign(number, seed=3)) for number in range(300)}) == 300
    assert sign(0, seed=3) != sign(0, seed=4)
    assert any(it.rounded for number in range(300) for it in sign(number, seed=3))


def test_specimens_of_a_sign_are_more_alike_than_signs() -> None:
    def mean(hand: Hand, is_same: bool) -> float:
        pictures = [[picture_of(number, n, seed=1, hand=hand) for n in range(2)] for number in range(12)]
        return float(np.mean([alike(pictures[k][0], pictures[(k + (not is_same)) % 12][1]) for k in range(12)]))

    of_hands, of_things, of_others = mean(Hand(), True), mean(A_THING, True), mean(Hand(), False)
    assert of_others + 0.1 < of_hands < of_things < 0.999


def test_pictures_of_signs_are_of_mnists_form_and_can_be_recorded(tmp_path: Path) -> None:
    arguments = ["eval", "signs", "--out", str(tmp_path / "signs"), "--signs", "3", "--each", "2", "--first", "5"]
    assert "6 pictures" in CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    images = read_idx(tmp_path / "signs" / "signs-images-idx3-ubyte")
    labels = read_idx(tmp_path / "signs" / "signs-labels-idx1-ubyte")
    assert images.shape == (6, SIDE, SIDE)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(images[4], picture_of(6, 1, seed=1, hand=Hand()))
    write_signs(tmp_path / "things", first=5, signs=3, each=2, seed=1, hand=A_THING)
    assert (read_idx(tmp_path / "things" / "signs-images-idx3-ubyte") != images).any()
    record = ["eval", "simulate", str(tmp_path / "signs" / "signs-images-idx3-ubyte"), "--out", str(tmp_path / "seen")]
    assert CliRunner().invoke(app, record, catch_exceptions=False).exit_code == 0
    assert sorted(str(it.relative_to(tmp_path / "seen")) for it in (tmp_path / "seen").glob("*/*.bin")) == [
        f"{label}/0000{n}.bin" for label in range(3) for n in range(2)
    ]


def long_recording(path: Path, seed: int, n: int = 60_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = 5_000 + np.sort(rng.integers(0, 1_000_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 128, n), rng.integers(0, 100, n), rng.integers(0, 2, n)
    writer = open_writer(path, 128, 100)
    writer.write(events)
    writer.close()
    return events


def coarser(events: np.ndarray, law: str) -> np.ndarray:
    parts: list[np.ndarray] = []
    Downsample(width=128, height=100, factor=4, law=law).on_packet(
        "events",
        Packet(events, int(events["t"][0]), int(events["t"][-1]) + 1),
        lambda port, message: parts.append(message.items.copy()),
    )
    return np.concatenate(parts)


@pytest.mark.parametrize("law", ["divide", "integrate"])
def test_pieces_are_what_the_file_holds(tmp_path: Path, law: str) -> None:
    files = [tmp_path / "a.aedat4", tmp_path / "b.aedat4"]
    whole = [long_recording(file, k) for k, file in enumerate(files)]
    seen: list[int] = []
    found, size = cut_pieces(
        files, tmp_path / "out", piece_us=150_000, factor=4, law=law, least=50, progress=seen.append
    )
    assert (size, seen) == ((32, 25), [1, 2])
    for label, events in enumerate(whole):
        wanted = coarser(events, law)
        begin_us = int(wanted["t"][0])
        assert found[label] == (int(wanted["t"][-1]) + 1 - begin_us) // 150_000 >= 3
        for k in range(found[label]):
            piece = read_events(tmp_path / "out" / str(label) / f"{k:05d}.bin", width=32, height=25).events
            inside = (wanted["t"] - begin_us) // 150_000 == k
            np.testing.assert_array_equal(piece["t"] + begin_us + k * 150_000, wanted["t"][inside])
            for name in ("x", "y", "p"):
                np.testing.assert_array_equal(piece[name], wanted[name][inside])


def test_pieces_by_command_and_what_they_refuse(tmp_path: Path) -> None:
    long_recording(tmp_path / "cup.aedat4", 1)
    long_recording(tmp_path / "hat.aedat4", 2, 500)
    out = tmp_path / "out"
    arguments = ["eval", "pieces", str(tmp_path / "cup.aedat4"), str(tmp_path / "hat.aedat4"), "--out", str(out)]
    said = CliRunner().invoke(app, [*arguments, "--piece-ms", "300", "--least", "200"], catch_exceptions=False).stdout
    assert "0: 3 of cup.aedat4" in said
    assert "1: 0 of hat.aedat4" in said  # 150 events a piece
    assert "3 recordings of 128x100" in said
    parts = tmp_path / "learn", tmp_path / "ask"
    cut_pieces([tmp_path / "cup.aedat4"], parts[0], piece_us=100_000, test=parts[1])
    names = [sorted(it.name for it in (part / "0").iterdir()) for part in parts]
    assert names == [[f"{k:05d}.bin" for k in range(n)] for n in (8, 1)]  # 9 whole pieces
    cut_pieces([tmp_path / "cup.aedat4"], tmp_path / "all", piece_us=100_000)
    assert (tmp_path / "all" / "0" / "00008.bin").read_bytes() == (parts[1] / "0" / "00000.bin").read_bytes()
    with pytest.raises(ConfigError, match="ask: there is something already"):
        cut_pieces([tmp_path / "cup.aedat4"], tmp_path / "more", piece_us=100_000, test=parts[1])
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ConfigError, match="something already"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="no event files"):
        cut_pieces([], tmp_path / "other", piece_us=1000)
    with pytest.raises(ConfigError, match="law"):
        cut_pieces(
            [tmp_path / "cup.aedat4"],
            tmp_path / "other",
            piece_us=1000,
            factor=2,
            law="half",  # type: ignore[arg-type] # no law: that is what is refused
        )
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".other*"))
