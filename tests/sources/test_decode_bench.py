"""The benchmark's recording looks as it says, and a wrong peer is told from a right one."""

import numpy as np
import pytest

from sources.decode_bench import _FORMATS, _Peer, _verdict, edges_and_noise


@pytest.mark.parametrize("size", [(640, 480), (240, 180)])
def test_the_recording_is_made_of_runs_and_noise(size):
    events = edges_and_noise(100_000, *size)
    assert len(events) == 100_000
    assert (np.diff(events["t"]) >= 0).all()
    assert events["x"].max() < size[0]
    assert events["y"].max() < size[1]
    assert events["t"][-1] == pytest.approx(10_000, rel=0.01)
    follows = (np.diff(events["x"].astype(int)) == 1) & (np.diff(events["t"]) == 0) & (np.diff(events["y"]) == 0)
    # 80 events of 100 stand in 32 runs, 20 alone: 48 follow a neighbour
    assert follows.mean() == pytest.approx(0.48, abs=0.01)
    np.testing.assert_array_equal(events, edges_and_noise(100_000, *size))


def moved(events, field, names="t,x,y,p"):
    columns = [events[name].astype(int) + (name == field) for name in "txyp"]
    return np.rec.fromarrays(columns, names=names)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda events: events, ""),
        (lambda events: moved(events, "", names="timestamp,x,y,on"), ""),
        (lambda events: events[:-1], "number of events"),
        (lambda events: moved(events, "t"), "times"),
        (lambda events: moved(events, "x"), "x"),
        (lambda events: moved(events, "y"), "y"),
        (lambda events: moved(events, "p", names="t,x,y,polarity"), "polarity"),
    ],
)
def test_a_peer_that_gives_other_events_is_wrong(tmp_path, change, verdict):
    events = edges_and_noise(1000, 640, 480)
    np.save(tmp_path / "truth.npy", events)
    peer = _Peer("a peer", "none", ("ES",), lambda path, it: (events[:400], change(events[400:])))
    assert _verdict(peer, _FORMATS[3], tmp_path / "ES.es") == verdict
