"""tonic's data sets from a folder on this machine, never from the network, and its transforms on recordings."""

import warnings

import numpy as np
import pytest

from sources.atis_bin import write_atis_bin
from sources.tonic_dataset import TonicDataset, TonicTransform, as_tonic, from_tonic
from stream.errors import ConfigError, FormatError, StreamError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what tonic's own imports warn of is not ours
    pytest.importorskip("tonic", reason="tonic is an optional extra: pip install 'hebbstream[datasets]'")


def some_events(n, seed=1):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 300_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 34, n), rng.integers(0, 34, n), rng.integers(0, 2, n)
    return events


@pytest.fixture
def nmnist(tmp_path, monkeypatch):
    """Make a tiny N-MNIST in tonic's layout, without the archive, and cut the network."""

    def no_network(*arguments, **parameters):
        raise AssertionError("tried the network")

    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    for label in range(3):
        for index in range(2):
            folder = tmp_path / "NMNIST" / "Test" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            write_atis_bin(folder / f"{index}.bin", some_events(50 + index, seed=10 * label + index))
    return tmp_path


def play(source, max_items=40):
    messages = []
    while True:
        message = source.poll(max_items)
        messages.append(message)
        if isinstance(message, End):
            assert source.poll(max_items) == message
            return messages


def test_a_local_folder_is_played_with_its_labels(nmnist):
    source = TonicDataset(dataset="NMNIST", root=str(nmnist), train=False)
    assert source.outputs["events"] == ("events", 34, 34, None)
    messages = play(source)
    assert not messages[-1].reason
    assert [m.label for m in messages if isinstance(m, Label)] == [0, 0, 1, 1, 2, 2]
    resets = [m.t_us for m in messages if isinstance(m, Reset)]
    ends = [m.t_us for m in messages if isinstance(m, Label)]
    assert [begin - end for begin, end in zip(resets[1:], ends[:-1], strict=True)] == [100_000] * 5
    events = np.concatenate([m.items for m in messages if isinstance(m, Packet)])
    assert len(events) == 3 * (50 + 51)
    wanted = some_events(50, seed=0)
    for name in ("x", "y", "p"):
        assert (events[name][:50] == wanted[name]).all(), name
    assert (events["t"][:50] == wanted["t"] - wanted["t"][0]).all()
    assert (np.diff(events["t"]) >= 0).all()


def test_gestures_with_their_other_field_order(tmp_path):
    folder = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_led"
    folder.mkdir(parents=True)
    np.save(folder / "5.npy", np.array([[1, 2, 1, 10], [3, 4, 0, 12]], np.int64))  # x, y, p, t in ms
    messages = play(TonicDataset(dataset="DVSGesture", root=str(tmp_path), train=False))
    assert messages[1].items.tolist() == [(0, 1, 2, 1), (2000, 3, 4, 0)]
    assert messages[2] == Label(2001, 5, 0)


def test_limit_and_shuffle(nmnist):
    first = TonicDataset(dataset="NMNIST", root=str(nmnist), train=False, limit=4, shuffle_seed=3)
    labels = [m.label for m in play(first) if isinstance(m, Label)]
    again = TonicDataset(dataset="NMNIST", root=str(nmnist), train=False, limit=4, shuffle_seed=3)
    assert len(labels) == 4
    assert labels == [m.label for m in play(again) if isinstance(m, Label)]


def test_a_damaged_recording_is_told_and_the_rest_is_played(tmp_path):
    folder = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_led"
    folder.mkdir(parents=True)
    np.save(folder / "5.npy", np.array([[1, 2, 1, 10]], np.int64))
    (folder / "6.npy").write_bytes(b"nonsense")
    source = TonicDataset(dataset="DVSGesture", root=str(tmp_path), train=False)
    messages = play(source)
    assert sorted(m.label for m in messages if isinstance(m, Label)) == [5, 6]
    assert "1 of 2 recordings of DVSGesture could not be read" in messages[-1].reason
    assert source.statistics()["damaged recordings"] == 1


def test_a_snapshot_anywhere_continues(nmnist):
    def build():
        return TonicDataset(dataset="NMNIST", root=str(nmnist), train=False, limit=2)

    source, whole = build(), play(build())
    for n in range(len(whole)):
        fresh = build()
        fresh.restore(source.snapshot())
        rest = play(fresh)
        assert [type(m) for m in rest] == [type(m) for m in whole[n:]]
        for got, wanted in zip(rest, whole[n:], strict=True):
            if isinstance(got, Packet):
                assert got.items.tobytes() == wanted.items.tobytes()
            else:
                assert got == wanted
        source.poll(40)
    with pytest.raises(ConfigError, match="wanted"):
        source.restore({})


def test_nothing_is_downloaded(nmnist):
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        TonicDataset(dataset="NMNIST", root=str(nmnist / "elsewhere"), train=True)
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        TonicDataset(dataset="NMNIST", root=str(nmnist), train=True)
    with pytest.raises(ConfigError, match="wanted one of .*NMNIST"):
        TonicDataset(dataset="MNIST", root=str(nmnist))
    with pytest.raises(ConfigError, match="from 0 on"):
        TonicDataset(dataset="NMNIST", root=str(nmnist), limit=-1)


def test_conversions_are_each_others_inverse():
    events = some_events(100)
    back, outside = from_tonic(as_tonic(events), width=34, height=34)
    assert back.tobytes() == events.tobytes()
    assert outside == 0
    assert from_tonic(as_tonic(events), width=10, height=34)[1] == np.count_nonzero(events["x"] >= 10)
    with pytest.raises(FormatError, match="wanted"):
        from_tonic(np.zeros((3, 2, 34, 34)), width=34, height=34)


def run(operator, events, cut):
    out = []
    for begin in range(0, len(events), cut):
        part = events[begin : begin + cut]
        operator.on_packet("events", Packet(part, int(part["t"][0]), int(part["t"][-1]) + 1), lambda *m: out.append(m))
    operator.on_mark("events", Label(400_000, 1, 0), lambda *m: out.append(m))
    operator.on_end(lambda *m: out.append(m))
    assert isinstance(out[-1][1], Label)
    return np.concatenate([message.items for _, message in out[:-1]])


@pytest.mark.parametrize(
    ("transform", "parameters"),
    [("Denoise", {"filter_time": 10_000}), ("DropEvent", {"p": 0.5}), ("TimeJitter", {"std": 1000})],
)
def test_a_transform_does_not_depend_on_cuts(transform, parameters):
    events = some_events(2000)

    def build():
        return TonicTransform(transform=transform, width=34, height=34, parameters=parameters, seed=4)

    whole = run(build(), events, 5000)
    assert len(whole)
    assert (np.diff(whole["t"]) >= 0).all()
    assert whole.tobytes() == run(build(), events, 7).tobytes()
    assert whole.tobytes() != events.tobytes()


def test_a_transform_goes_on_from_a_snapshot():
    events = some_events(500)
    whole = run(TonicTransform(transform="DropEvent", width=34, height=34, parameters={"p": 0.5}), events, 100)
    first = TonicTransform(transform="DropEvent", width=34, height=34, parameters={"p": 0.5})
    first.on_packet("events", Packet(events[:200], int(events["t"][0]), int(events["t"][199]) + 1), None)
    second = TonicTransform(transform="DropEvent", width=34, height=34, parameters={"p": 0.5})
    second.restore(first.snapshot())
    assert run(second, events[200:], 100).tobytes() == whole.tobytes()


def test_transforms_that_give_no_events_are_told():
    operator = TonicTransform(transform="ToFrame", width=34, height=34, parameters={"n_time_bins": 3})
    with pytest.raises(StreamError, match="gives events"):
        run(operator, some_events(100), 100)
    with pytest.raises(ConfigError, match="wanted a class"):
        TonicTransform(transform="Nothing", width=34, height=34)
    with pytest.raises(ConfigError, match="it takes"):
        TonicTransform(transform="Denoise", width=34, height=34, parameters={"wrong": 1})
