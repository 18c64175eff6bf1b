"""Two cameras merged: side by side, in order of time, whichever of them is quicker.

``python demos/two_cameras.py``; ``--seconds 30 --view`` shows it in a browser while it runs.
"""

import argparse
from pathlib import Path

from look import draw_events, play

from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording

SIDE = 34


def main() -> None:
    """Merge."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=0.5)
    options.add_argument("--view", action="store_true", help="show it in a browser while it runs")
    options.add_argument("--out", type=Path, default=Path("runs/two-cameras"))
    given = options.parse_args()
    params = {"width": SIDE, "height": SIDE, "duration_us": round(given.seconds * 1e6)}
    cameras = [
        SourceSpec(
            name=name,
            kind="sources.simulated.SimulatedCamera",
            params={**params, "seed": seed},
            speed=1.0 if given.view else "max",
        )
        for name, seed in (("left", 1), ("right", 2))
    ]
    # simulated cameras begin when their processes do, and neither is ever unplugged: the merge may wait long
    merge = {"inputs": ["left", "right"], "width": SIDE, "height": SIDE, "beside": True, "lateness_us": 5_000_000}
    sink = {"path": str(given.out / "both.hbs"), "ports": {"events": "events"}}
    pipeline = Pipeline(
        name="two-cameras",
        source=cameras,
        operator=[
            OperatorSpec(name="merge", kind="stream.merge.Merge", params=merge),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params=sink),
        ],
        edge=[
            EdgeSpec(source="left.events", target="merge.left"),
            EdgeSpec(source="right.events", target="merge.right"),
            EdgeSpec(source="merge.events", target="recorder.events"),
        ],
    )
    result = play(pipeline, view=given.view)
    events = read_recording(given.out / "both.hbs").items("events")
    draw_events(events, 2 * SIDE, SIDE, given.out / "two-cameras.png", "left and right camera, merged", n_panels=4)
    late = {name: f"{result.members['merge'][f'late {name}']:.0f}" for name in ("left", "right")}
    print(f"{len(events):,} events; too late: {late['left']} of the left camera, {late['right']} of the right one")


if __name__ == "__main__":
    main()
