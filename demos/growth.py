"""How a pipeline and a training would grow from 1 to 100 machines: a model, fed with figures measured on one.

``python demos/growth.py [BENCH.json]`` prints two tables and draws ``growth.png``. ``hebbstream bench --json`` makes
BENCH.json on your machine; without it the figures below are taken. The network between machines is an assumption and
says so: change it with ``--network-gbit`` and ``--network-us``.

Streams: each machine has one camera and one learner; a merge on one machine brings all answers and a share of all
events together (``--shared``, what a viewer or a recorder takes). Training: batches are dealt to lanes, lanes to
machines; all that is learned goes out with every batch, and a table of gradients for each lane comes back
(``plasticity.spread``).
"""

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """Figures of one machine, with where they come from."""

    hop_events_per_cpu_s: float = 27.1e6  # bench: three processes, 10 M events/s: events a hop and CPU second
    hop_us: float = 330.0  # bench: three processes, 1 M events/s: p50 latency, two hops, by two
    message_events_per_s: float = 100e6  # bench: edge tcp, no shared memory
    learn_events_per_s: float = 2.8e6  # bench: training GP, a step: forward, walk back and step, one core, 2312-512-10
    cores: int = 2


class Assumed(NamedTuple):
    """What no single machine can tell."""

    network_bytes_per_s: float
    network_us: float
    camera_events_per_s: float = 1e6
    shared: float = 0.1  # of every camera's events that go to the one place where all come together
    item_bytes: int = 8
    weights: int = 2312 * 512 + 512 * 10
    recording_events: int = 4000


def read(path: Path | None) -> Measured:
    """Take the figures of a bench, where it has them."""
    if path is None:
        return Measured()
    rate = {row["name"]: row["rate"] for row in json.loads(path.read_text())}
    kept = Measured()
    return kept._replace(
        hop_events_per_cpu_s=rate.get(
            "three processes, 10 M events/s: events a hop and CPU second", kept.hop_events_per_cpu_s
        ),
        hop_us=5e5 / rate.get("three processes, 1 M events/s: p50 latency, as 1/s", 5e5 / kept.hop_us),
        message_events_per_s=rate.get("edge tcp, 4096 events a packet, no shared memory", kept.message_events_per_s),
        learn_events_per_s=rate.get("training GP, a step", kept.learn_events_per_s),
    )


def streams(n: int, it: Measured, net: Assumed) -> tuple[float, float, str]:
    """Return events/s learned from in all, latency from a camera to where all come together (us), and the limit."""
    own = min(net.camera_events_per_s, it.learn_events_per_s)  # a camera's learner has a core of its own
    arriving = n * own * net.shared
    # the place where all come together: its network, its socket's thread, its processor
    limits = {
        "the merge's network": net.network_bytes_per_s / net.item_bytes,
        "the merge's socket": it.message_events_per_s,
        "the merge's processor": it.hop_events_per_cpu_s * (it.cores - 1),
    }
    name, most = min(limits.items(), key=lambda pair: pair[1])
    load = arriving / most
    passed = min(1.0, 1.0 / load)
    # a queue before a server that is busy for a share `load` of the time (M/D/1) lengthens each hop into the merge
    waiting = it.hop_us * load / (2 * (1 - load)) if load < 1 else math.inf
    limit = name if load >= 1 else f"none ({100 * load:.0f} % of {name})"
    return n * own * (1.0 if load < 1 else passed), it.hop_us + (it.hop_us + net.network_us + waiting), limit


def training(n: int, it: Measured, net: Assumed, lanes: int, batch: int, recordings: int) -> tuple[float, str]:
    """Return the time of an epoch, s, and what most of it goes to."""
    workers = min(n * it.cores, lanes)
    steps = math.ceil(recordings / batch)
    longest = math.ceil(lanes / workers) * math.ceil(batch / lanes)  # recordings of the worker with most of them
    compute_s = longest * net.recording_events / it.learn_events_per_s
    table = 4.0 * net.weights
    machines = math.ceil(workers / it.cores)
    # out: weights and two moments to each machine but the first; back: a table for each lane run elsewhere
    away = 1.0 - 1.0 / machines
    bytes_moved = 3 * table * (machines - 1) + table * lanes * away
    move_s = bytes_moved / net.network_bytes_per_s + (2e-6 * net.network_us if machines > 1 else 0.0)
    add_s = lanes * table / 8e9  # one pass over each table, at the speed of memory
    parts = {"lanes": compute_s, "network": move_s, "adding up": add_s}
    return steps * sum(parts.values()), max(parts, key=lambda name: parts[name])


HOSTS = (1, 2, 5, 10, 20, 50, 100)


def main() -> None:
    """Print both tables and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, nargs="?")
    parser.add_argument("--network-gbit", type=float, default=10.0)
    parser.add_argument("--network-us", type=float, default=50.0)
    parser.add_argument("--shared", type=float, default=0.1)
    parser.add_argument("--lanes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=400)
    parser.add_argument("--recordings", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="Folder for the picture.")
    wanted = parser.parse_args()
    it = read(wanted.bench)
    net = Assumed(wanted.network_gbit * 1e9 / 8, wanted.network_us, shared=wanted.shared)
    rows = [
        (n, *streams(n, it, net), *training(n, it, net, wanted.lanes, wanted.batch, wanted.recordings)) for n in HOSTS
    ]
    print(f"{'hosts':>6} {'events/s':>10} {'latency':>10}  first limit of the stream")
    for n, rate, latency_us, limit, *_ in rows:
        shown = f"{latency_us / 1000:8.2f} ms" if math.isfinite(latency_us) else "   growing"
        print(f"{n:>6} {rate / 1e6:>8.1f} M {shown:>10}  {limit}")
    print(f"\n{'hosts':>6} {'epoch':>10} {'speed-up':>10}  most of the time goes to")
    for n, _, _, _, epoch_s, goes_to in rows:
        print(f"{n:>6} {epoch_s:>8.0f} s {rows[0][4] / epoch_s:>9.1f}x  {goes_to}")
    picture = wanted.out / "growth.png"
    draw(rows, picture)
    print(f"\npicture: {picture}")


def draw(rows: list[tuple[int, float, float, str, float, str]], path: Path) -> None:
    """Draw events/s and the time of an epoch over the number of machines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    hosts = [row[0] for row in rows]
    left, right = figure.subplots(1, 2)
    left.loglog(hosts, [row[1] for row in rows], marker="o", label="learned from")
    left.loglog(hosts, [rows[0][1] * n for n in hosts], ":", color="grey", label="without limits")
    left.set(xlabel="machines", ylabel="events/s", title="streams")
    right.loglog(hosts, [row[4] for row in rows], marker="o", label="epoch")
    right.loglog(hosts, [rows[0][4] / n for n in hosts], ":", color="grey", label="without limits")
    right.set(xlabel="machines", ylabel="s", title="training, an epoch")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
