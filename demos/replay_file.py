"""Replay a file: any event file, at its own pace or faster, through a filter, into a picture.

``python demos/replay_file.py FILE --speed 2``; without a file one is recorded first. To watch it in a browser:
``hebbstream replay FILE --view``.
"""

import argparse
from pathlib import Path

from look import draw_events

from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, build, source_of
from stream.record import read_recording
from stream.run import run


def main() -> None:
    """Replay."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", nargs="?", help="an event file; default: one that the simulated camera makes")
    options.add_argument("--speed", type=float, default=0.0, help="stream seconds per second; 0: as fast as possible")
    options.add_argument("--seconds", type=float, default=1.0, help="how much of it")
    options.add_argument("--out", type=Path, default=Path("runs/replay"))
    given = options.parse_args()

    file = given.file
    if file is None:
        file = str(given.out / "camera.hbs")
        camera = SourceSpec(name="camera", kind="sources.simulated.SimulatedCamera", params={"duration_us": 1_000_000})
        sink = {"path": file, "ports": {"events": "events"}}
        recorder = OperatorSpec(name="recorder", kind="stream.record.Recorder", params=sink)
        edges = [EdgeSpec(source="camera.events", target="recorder.events")]
        run(Pipeline(name="record", source=[camera], operator=[recorder], edge=edges), processes=False)

    kind, params = source_of(file)
    source = SourceSpec(
        name="file", kind=kind, params=params, speed=given.speed or "max", duration_us=round(given.seconds * 1e6)
    )
    port = build(Pipeline(name="size", source=[source]))["file"].outputs["events"]
    width, height = port.width or 34, port.height or 34
    seen = given.out / "seen.hbs"
    sink = {"path": str(seen), "ports": {"events": "events"}}
    recorder = OperatorSpec(name="recorder", kind="stream.record.Recorder", params=sink)
    edges = [EdgeSpec(source="file.events", target="recorder.events")]
    result = run(Pipeline(name="replay", source=[source], operator=[recorder], edge=edges), processes=False)
    events = read_recording(seen).items("events")
    draw_events(events, width, height, given.out / "replay.png", f"{Path(file).name}: {len(events):,} events")
    print(f"{result.span_us / 1e6:.2f} s of stream in {result.wall_s:.2f} s; picture: {given.out / 'replay.png'}")


if __name__ == "__main__":
    main()
