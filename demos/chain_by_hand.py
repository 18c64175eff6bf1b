"""Chain nodes by hand, over tcp: three processes, started in any order, that know nothing but addresses.

What this script starts can be typed in three terminals, or on three machines (then with ``hebbstream keys``)::

    hebbstream node stream.record.Recorder --params '{"path": ..., "ports": ...}' --in tcp://127.0.0.1:P
    hebbstream node sources.filter_crop.Crop --params ... --in tcp://127.0.0.1:Q --out tcp://127.0.0.1:P
    hebbstream node simulated --out tcp://127.0.0.1:Q
"""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path

from look import draw_events

from stream.record import read_recording


def free_port() -> int:
    """Find a port of this machine's that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main() -> None:
    """Chain."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/chain"))
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "chain.hbs"
    sensor = {"width": 34, "height": 34}
    first, second = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    to_recorder = json.dumps({"path": str(kept), "ports": {"events": "events"}})
    crop = json.dumps({**sensor, "left": 5, "top": 5, "crop_width": 24, "crop_height": 24})
    camera = json.dumps({**sensor, "duration_us": 500_000})
    commands = [
        ["stream.record.Recorder", "--params", to_recorder, "--in", second],
        ["sources.filter_crop.Crop", "--params", crop, "--in", first, "--out", second],
        ["sources.simulated.SimulatedCamera", "--params", camera, "--out", first],
    ]
    nodes = [subprocess.Popen([sys.executable, "-P", "-m", "stream", "node", *command]) for command in commands]
    codes = [node.wait(120) for node in nodes]
    events = read_recording(kept).items("events")
    draw_events(events, 24, 24, given.out / "chain.png", f"{len(events):,} events through three processes")
    print(f"exit codes {codes}; picture: {given.out / 'chain.png'}")
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
