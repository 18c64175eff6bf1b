"""Events in ROS bags: bags written by the library rosbags, and by cameras; cut, damaged and hostile ones."""

import bz2
import sqlite3
import struct
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.event_file import read_events
from sources.evt import encode_evt3
from sources.ros_bag import read_ros_bag
from sources.ros_container import read_topics
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE
from stream.pipeline import source_of

rosbags = pytest.importorskip("rosbags")
from rosbags import rosbag1, rosbag2  # noqa: E402 - after importorskip
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402 - after importorskip

_EVENT = "uint16 x\nuint16 y\nTIME ts\nbool polarity\n"
_ARRAY = "std_msgs/Header header\nuint32 height\nuint32 width\nPACKAGE/Event[] events\n"
_PACKET = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nuint64 seq\nuint64 time_base\nstring encoding\n"
    "bool is_bigendian\nuint8[] events\n"
)
DVS, PROPHESEE, PACKETS = (
    "dvs_msgs/msg/EventArray",
    "prophesee_event_msgs/msg/EventArray",
    "event_camera_msgs/msg/EventPacket",
)
KINDS = ["bag", "bag bz2", "bag lz4", "db3", "db3 message", "mcap", "mcap zstd"]


def make_store(is_ros1):
    store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)
    time = "time" if is_ros1 else "builtin_interfaces/Time"
    for package in ("dvs_msgs", "prophesee_event_msgs"):
        store.register(get_types_from_msg(_EVENT.replace("TIME", time), f"{package}/msg/Event"))
        store.register(get_types_from_msg(_ARRAY.replace("PACKAGE", package), f"{package}/msg/EventArray"))
    store.register(get_types_from_msg(_PACKET, PACKETS))
    return store


STORES = {is_ros1: make_store(is_ros1) for is_ros1 in (False, True)}


def header(store, is_ros1, frame="cam"):
    stamp = store.types["builtin_interfaces/msg/Time"](5, 6)
    head = store.types["std_msgs/msg/Header"]
    return head(9, stamp, frame) if is_ros1 else head(stamp, frame)


def write_bag(home, kind, topics):
    """Write messages [(topic, type, make), ...] with the library, and return the bag's path."""
    container, _, packing = kind.partition(" ")
    is_ros1 = container == "bag"
    store = STORES[is_ros1]
    if is_ros1:
        writer = rosbag1.Writer(home / "a.bag")
        if packing:
            writer.set_compression(getattr(writer.CompressionFormat, packing.upper()))
    else:
        plugin = rosbag2.StoragePlugin.MCAP if container == "mcap" else rosbag2.StoragePlugin.SQLITE3
        writer = rosbag2.Writer(home / "a", version=9, storage_plugin=plugin)
        if packing:
            mode = rosbag2.CompressionMode.STORAGE if container == "mcap" else rosbag2.CompressionMode.MESSAGE
            writer.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    with writer:
        links = {}
        for number, (topic, kind_of, make) in enumerate(topics):
            if topic not in links:
                links[topic] = writer.add_connection(topic, kind_of, typestore=store)
            serialize = store.serialize_ros1 if is_ros1 else store.serialize_cdr
            writer.write(links[topic], number * 1000, serialize(make(store, is_ros1), kind_of))
    if is_ros1:
        return home / "a.bag"
    return next(path for path in (home / "a").iterdir() if path.suffix in (".db3", ".mcap"))


def array(events, kind_of=DVS, width=346, height=260, frame="cam"):
    def make(store, is_ros1):
        time = store.types["builtin_interfaces/msg/Time"]
        event = store.types[kind_of.replace("EventArray", "Event")]
        rows = [event(int(x), int(y), time(t // 10**6, t % 10**6 * 1000), bool(p)) for t, x, y, p in events.tolist()]
        return store.types[kind_of](header(store, is_ros1, frame), height, width, rows)

    return make


def packet(payload, encoding="evt3", seq=0, base_ns=0, big_endian=False):
    def make(store, is_ros1):
        raw = np.frombuffer(payload, np.uint8)
        return store.types[PACKETS](header(store, is_ros1), 480, 640, seq, base_ns, encoding, big_endian, raw)

    return make


def text(store, is_ros1):
    return store.types["std_msgs/msg/String"]("hello")


def some_events(n, seed=0, last_us=10**6):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, last_us, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 346, n), rng.integers(0, 260, n), rng.integers(0, 2, n)
    return events


def drain(path, **options):
    """Return what was read, the fault's text and what was told."""
    parts, fault, told = [np.empty(0, EVENT_DTYPE)], "", []
    try:
        decoder = read_ros_bag(path, **options)
        try:
            for events in decoder:
                assert events.dtype == EVENT_DTYPE
                parts.append(events.copy())
        finally:
            told = decoder.losses()
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault, told


# what the library writes


@pytest.mark.parametrize("kind_of", [DVS, PROPHESEE])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_events(tmp_path, kind, kind_of):
    events = some_events(3000)
    events["t"] += 1_600_000_000_000_000
    cuts = [0, 0, 1, 3, 6, 500, 3000]  # empty messages, of one event, of two, of three
    arrays = [
        ("/dvs/events", kind_of, array(events[a:b], kind_of, frame="x" * index))
        for index, (a, b) in enumerate(pairwise(cuts))
    ]
    path = write_bag(tmp_path, kind, [("/chat", "std_msgs/msg/String", text), *arrays])
    decoder = read_ros_bag(path)
    assert (decoder.width, decoder.height) == (346, 260)
    for _ in range(2):  # it can be read again
        np.testing.assert_array_equal(np.concatenate([part.copy() for part in decoder]), events)
    assert decoder.losses() == []


@pytest.mark.parametrize("kind", KINDS)
def test_evt3_goes_on_from_packet_to_packet(tmp_path, kind):
    events = some_events(20_000, last_us=40_000_000)  # the high bits of the time wrap twice
    words = np.frombuffer(encode_evt3(events), "<u2")
    cuts = np.sort(np.random.default_rng(1).integers(0, len(words), 30))
    parts = [part.tobytes() for part in np.split(words, cuts)]
    path = write_bag(tmp_path, kind, [("/cam", PACKETS, packet(part, seq=index)) for index, part in enumerate(parts)])
    decoder = read_ros_bag(path)
    assert (decoder.width, decoder.height) == (640, 480)
    np.testing.assert_array_equal(np.concatenate([part.copy() for part in decoder]), events)
    assert decoder.losses() == []


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["bag", "mcap"])
def test_other_payloads(tmp_path, kind, order):
    events = some_events(100_000)
    words = np.frombuffer(encode_evt3(events), "<u2").astype(order + "u2")
    mono = (
        events["p"].astype("u8") << 63 | events["y"].astype("u8") << 48 | events["x"].astype("u8") << 32
        | events["t"].astype("u8") * 1000 + 999
    ).astype(order + "u8")  # fmt: skip
    base_ns = 3_000_000_000_000
    path = write_bag(
        tmp_path,
        kind,
        [
            ("/evt3", PACKETS, packet(words.tobytes(), big_endian=order == ">")),
            ("/mono", PACKETS, packet(mono.tobytes(), "mono", base_ns=base_ns, big_endian=order == ">")),
        ],
    )
    np.testing.assert_array_equal(drain(path, topic="/evt3")[0], events)
    read, fault, _ = drain(path, topic="/mono")
    assert not fault
    read["t"] -= base_ns // 1000
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_the_folder_of_a_bag_is_the_bag(tmp_path, kind):
    events = some_events(50)
    bag = write_bag(tmp_path, kind, [("/c", DVS, array(events))])
    folder = bag.parent
    np.testing.assert_array_equal(read_events(folder).events, events)
    assert source_of(str(folder)) == ("sources.event_file.EventFile", {"path": str(folder)})
    (folder / f"b_1.{kind}").write_bytes(b"")
    with pytest.raises(FormatError, match=rf"2 files of a ROS 2 bag \({bag.name}, b_1.{kind}\), wanted one"):
        read_events(folder)


@pytest.mark.parametrize("kind", ["bag", "db3", "mcap"])
def test_topics(tmp_path, kind):
    left, right = some_events(20, 1), some_events(30, 2)
    path = write_bag(
        tmp_path,
        kind,
        [
            ("/left", DVS, array(left)),
            ("/chat", "std_msgs/msg/String", text),
            ("/right", PROPHESEE, array(right, PROPHESEE)),
        ],
    )
    assert sorted((topic.name, topic.type) for topic in read_topics(path)) == [
        ("/chat", "std_msgs/String"),
        ("/left", "dvs_msgs/EventArray"),
        ("/right", "prophesee_event_msgs/EventArray"),
    ]
    np.testing.assert_array_equal(drain(path, topic="/left")[0], left)
    np.testing.assert_array_equal(drain(path, topic="/right")[0], right)
    for options in ({}, {"topic": "/none"}, {"topic": "/chat"}):
        read, fault, _ = drain(path, **options)
        assert len(read) == 0
        assert all(words in fault for words in ("/left", "/right", "/chat", "topic = ")), fault


@pytest.mark.parametrize("encoding", ["trigger", "libcaer_cmp", ""])
def test_other_encodings_are_refused(tmp_path, encoding):
    path = write_bag(tmp_path, "bag", [("/cam", PACKETS, packet(bytes(16), encoding))])
    read, fault, _ = drain(path)
    assert len(read) == 0
    assert repr(encoding) in fault


def test_losses_are_counted(tmp_path):
    words = np.array(
        [0x2001, 0x8001, 0x6002, 0x0003, 0x2004, 0x1000], "<u2"
    )  # an event before any time; an unknown word
    packets = [("/cam", PACKETS, packet(words.tobytes(), seq=seq)) for seq in (4, 5, 9)]
    read, fault, told = drain(write_bag(tmp_path, "bag", packets))
    assert not fault
    assert read["x"].tolist() == [4, 1, 4, 1, 4]
    assert [words.split()[0] for words in told] == ["1", "3", "3"]
    assert "missing" in told[-1]


# what cameras recorded


@pytest.mark.parametrize("name", ["event_packets_evt3_ros1.bag", "event_packets_evt3_ros2.db3"])
def test_the_recorded_packets(data, name):
    decoder = read_ros_bag(data / "rosbag" / name)
    events = np.concatenate([part.copy() for part in decoder])
    assert (decoder.width, decoder.height) == (640, 480)
    assert (len(events), int(events["p"].sum(dtype=np.int64))) == (343474, 125183)
    assert (events["t"][0], events["t"][-1]) == (7139845, 9218023)
    assert (int(events["x"].sum(dtype=np.int64)), int(events["y"].sum(dtype=np.int64))) == (116731888, 80879209)
    assert (events["x"].max(), events["y"].max()) == (639, 479)
    assert decoder.losses() == []


def test_the_recorded_mono_packets(data):
    decoder = read_ros_bag(data / "rosbag" / "mono_cd_ros2.db3")
    events = np.concatenate(list(decoder))
    assert (decoder.width, decoder.height, len(events), events["p"].sum()) == (640, 480, 100, 50)
    assert events["t"].tolist() == list(range(100))  # 1000 ns apart, the second packet's base is 50000 ns


def test_a_recorded_bag_that_was_cut_off(data, tmp_path):
    whole = drain(data / "rosbag" / "event_packets_evt3_ros1.bag")[0]
    for name, part in (("event_packets_evt3_ros1.bag", 0.45), ("event_packets_evt3_ros2.db3", 0.4)):
        raw = (data / "rosbag" / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: len(raw) // 2 // 4096 * 4096])
        read, fault, _ = drain(tmp_path / name)
        assert fault
        assert part * len(whole) < len(read) < len(whole)
        np.testing.assert_array_equal(read, whole[: len(read)])


# damage


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small bag of each kind, as bytes, with the events in it."""
    events = some_events(60)
    bags = {}
    for kind in KINDS:
        path = write_bag(
            tmp_path_factory.mktemp("bag"), kind, [("/a", DVS, array(events[k : k + 20])) for k in (0, 20, 40)]
        )
        bags[kind] = (path.suffix, path.read_bytes())
    return events, bags


@pytest.mark.parametrize("kind", ["bag", "bag bz2", "bag lz4", "mcap", "mcap zstd"])
def test_a_cut_bag_is_read_to_the_cut(small, tmp_path, kind):
    events, bags = small
    suffix, raw = bags[kind]
    path = tmp_path / f"a{suffix}"
    lengths = set()
    for end in [*range(400), *range(400, len(raw), 7), len(raw) - 1]:
        path.write_bytes(raw[:end])
        read, fault, _ = drain(path)
        assert fault or len(read) == len(events), end  # indexes follow the data
        np.testing.assert_array_equal(read, events[: len(read)])
        lengths.add(len(read))
    assert lengths == {0, 20, 40, 60} or " " in kind  # unpacking may need more than it gives
    assert lengths <= {0, 20, 40, 60}


def test_a_cut_database(small, tmp_path):
    events, bags = small
    raw = bags["db3"][1]
    for end in [*range(0, 200), *range(200, len(raw), 97)]:
        (tmp_path / "a.db3").write_bytes(raw[:end])
        read, fault, _ = drain(tmp_path / "a.db3")
        assert fault, end
        np.testing.assert_array_equal(read, events[: len(read)])
    (tmp_path / "a.db3").write_bytes(raw[: len(raw) // 4096 * 4096 - 4096])  # whole pages, without the last
    read, fault, _ = drain(tmp_path / "a.db3")
    np.testing.assert_array_equal(read, events)
    assert "4096 bytes are missing" in fault


@settings(max_examples=400)
@given(st.sampled_from(KINDS), st.data())
def test_damage_is_told_and_never_crashes(small, tmp_path_factory, kind, data):
    suffix, raw = small[1][kind]
    raw = bytearray(raw)
    reach = data.draw(st.sampled_from([200, len(raw)]))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(reach, len(raw)) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("bag") / f"a{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    tracemalloc.start()
    try:
        assert len(drain(path)[0]) < 1000
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def record(head, content):
    fields = b"".join(struct.pack("<I", len(key) + 1 + len(value)) + key + b"=" + value for key, value in head.items())
    return struct.pack("<I", len(fields)) + fields + struct.pack("<I", len(content)) + content


def test_a_small_bag_that_unpacks_to_much(tmp_path):
    bomb = bz2.compress(bytes(500_000_000))
    assert len(bomb) < 1000
    for claimed in (100, 2**31):
        raw = b"#ROSBAG V2.0\n" + record({b"op": b"\x03", b"index_pos": bytes(8)}, b"")
        raw += record({b"op": b"\x05", b"compression": b"bz2", b"size": struct.pack("<I", claimed)}, bomb)
        (tmp_path / "a.bag").write_bytes(raw)
        tracemalloc.start()
        read, fault, _ = drain(tmp_path / "a.bag")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(read) == 0
        assert fault
        assert most < 1 << 24


def test_a_hostile_database(tmp_path):
    """Views in place of tables could run for ever, values may be of any type, ids may repeat."""
    path = tmp_path / "a.db3"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
        base.execute("INSERT INTO topics VALUES (1, '/a', 'dvs_msgs/msg/EventArray', 'cdr')")
        base.execute(
            "CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
            "SELECT id, 1 AS topic_id, zeroblob(1) AS data FROM n"
        )
    base.close()
    assert "tables" in drain(path)[1]
    path.unlink()
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE topics(id, name, type, serialization_format)")
        base.execute("INSERT INTO topics VALUES (1, '/a', 'dvs_msgs/msg/EventArray', 'cdr')")
        base.execute("INSERT INTO topics VALUES ('x', 7, x'00', NULL)")
        base.execute("CREATE TABLE messages(id, topic_id, data)")
        base.executemany("INSERT INTO messages VALUES (?, 1, ?)", [("x", "text"), (3, b"\0\1\0\0"), (None, None)])
    base.close()
    assert drain(path)[1]


def test_what_is_no_bag(tmp_path):
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    (tmp_path / "b.bag").write_bytes(b"")
    for path in (tmp_path / "a.bag", tmp_path / "b.bag", tmp_path / "missing.bag", tmp_path):
        read, fault, _ = drain(path)
        assert len(read) == 0
        assert fault
