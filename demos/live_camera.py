"""A live camera: what it sees, with and without what no neighbour confirms.

``python demos/live_camera.py --source camera`` (or ``camera:SERIAL``, ``udp://HOST:PORT``, a file, ``simulated``), with
``--view`` in a browser. ``hebbstream doctor`` says which cameras there are, and what the system needs.
"""

import argparse
import sys
from pathlib import Path

from look import draw_events, play

from stream.errors import HebbstreamError
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, build, source_of
from stream.record import read_recording


def main() -> None:
    """Look."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--source", default="simulated", help="camera, camera:SERIAL, udp://HOST:PORT, FILE")
    options.add_argument("--seconds", type=float, default=5.0, help="of stream time")
    options.add_argument("--within-us", type=int, default=5000, help="an event stays if a neighbour fired so recently")
    options.add_argument("--view", action="store_true", help="show it in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/live-camera"))
    given = options.parse_args()

    kind, params = source_of(given.source)
    is_live = given.source.startswith(("camera", "udp:", "dv:"))
    camera = SourceSpec(
        name="camera", kind=kind, params=params, duration_us=round(given.seconds * 1e6),
        speed=1.0 if given.view and not is_live else "max",
    )  # fmt: skip
    if given.source == "simulated":
        camera.params |= {"width": 64, "height": 64, "shot_noise_hz": 3.0}
    try:
        member = build(Pipeline(name="size", source=[camera]))["camera"]
        port = member.outputs["events"]
        member.close()
    except HebbstreamError as error:
        sys.exit(f"{error}")  # no camera, or no right to open it: the message says the way out
    sensor = {"width": port.width or 640, "height": port.height or 480}
    recorder = {"path": str(given.out / "seen.hbs"), "ports": {"all": "events", "confirmed": "events"}}
    pipeline = Pipeline(
        name="live-camera",
        source=[camera],
        operator=[
            OperatorSpec(
                name="filter",
                kind="sources.filter_background.BackgroundActivity",
                params={**sensor, "dt_us": given.within_us},
            ),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params=recorder),
        ],
        edge=[
            EdgeSpec(source="camera.events", target="filter.events"),
            EdgeSpec(source="camera.events", target="recorder.all"),
            EdgeSpec(source="filter.events", target="recorder.confirmed"),
        ],
    )
    result = play(pipeline, view=given.view)
    recording = read_recording(given.out / "seen.hbs")
    seen, confirmed = recording.items("all"), recording.items("confirmed")
    for events, name in ((seen, "all"), (confirmed, "confirmed")):
        title = f"{given.source}: {len(events):,} events, {name}"
        draw_events(events, sensor["width"], sensor["height"], given.out / f"{name}.png", title)
    share = len(confirmed) / max(1, len(seen))
    print(f"{result.span_us / 1e6:.2f} s of stream, {len(seen):,} events, {share:.0%} confirmed by a neighbour")
    print(f"pictures: {given.out / 'all.png'}, {given.out / 'confirmed.png'}")


if __name__ == "__main__":
    main()
