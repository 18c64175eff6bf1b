"""The command ``hebbstream eval camera``: how like a sensor's recordings our simulated ones are.

Recordings of pictures that are known are measured, and the same pictures are seen by the simulated camera with the
settings that are shipped (``sources.nmnist_camera``) and measured likewise (``sources.saccade_fit``). This is how those
settings were found: change them, run this, compare.
"""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["camera"]

SIDE = 34


def camera(
    folder: Annotated[Path, typer.Argument(help="The sensor's recordings: FOLDER/LABEL/INDEX.bin.")],
    images: Annotated[Path, typer.Option(help="The pictures they are of: MNIST's file of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.")],
    first: Annotated[int, typer.Option(help="INDEX of the first picture: 1 of N-MNIST's training set.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Use so many recordings, all labels alike.")] = None,
    quick: Annotated[bool, typer.Option(help="40 recordings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure recordings of saccades, and simulated ones of the same pictures."""
    from stream.errors import ConfigError

    fit = importlib.import_module("sources.saccade_fit")
    shipped = importlib.import_module("sources.nmnist_camera")
    read = importlib.import_module("sources.event_file").read_events
    source = importlib.import_module("sources.folder")
    found = source.recordings_of(source.Part(path=str(folder), limit=40 if quick else limit))
    numbers = [int(it.path.stem) - first if it.path.stem.isdigit() else -1 for it in found]
    values = importlib.import_module("sources.scene_images").read_idx(images.expanduser())
    if not all(0 <= number < len(values) for number in numbers):
        raise ConfigError(
            f"eval camera: recordings {folder} are numbered {min(numbers) + first} to {max(numbers) + first}, wanted "
            f"{first} to {len(values) + first - 1}, the pictures of {images}; see --first"
        )
    real = [read(it.path, width=SIDE, height=SIDE).events for it in found]
    simulated = shipped.nmnist_recordings(images.expanduser(), numbers)
    light = [_in_the_middle(values[number], shipped.nmnist_images()) for number in numbers]
    rows: dict[str, dict[str, Any]] = {}
    measured = []
    for name, recordings in (("sensor", real), ("simulated", simulated)):
        it = fit.measure(recordings, width=SIDE, height=SIDE)
        path = fit.measure_path(recordings, light)
        measured.append((it, path))
        rows[name] = {
            "recordings": it.n_recordings,
            "events": it.events,
            "spread of events": it.events_spread,
            "share of ON": it.on_share,
            "again after, us, 1 %": it.again_us[0],
            "again after, us, 10 %": it.again_us[1],
            "again after, us, half": it.again_us[3],
            "noise of a pixel, Hz": it.border_hz,
            "share of the busiest 5 %": it.busiest,
            "path, pixels": float(_length(path)),
            "explained by path": path.explained,
        }
    alike = {
        "likeness of maps": fit.likeness(real, simulated, width=SIDE, height=SIDE),
        "path apart, pixels": _apart(measured[0][1], measured[1][1]),
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: {"x": list(path.x), "y": list(path.y)} for name, (_, path) in zip(rows, measured, strict=True)}
    whole = {"measured": rows, "alike": alike, "t_us": measured[0][1].t_us.tolist(), "paths": paths}
    (out / "camera.json").write_text(json.dumps(whole, indent=1) + "\n")
    _draw(out / "camera.png", measured)
    if as_json:
        print(json.dumps(whole))
        return
    for name in rows["sensor"]:
        print(f"{name:28}" + "".join(f"{rows[which][name]:12.4g}" for which in rows))
    for name, value in alike.items():
        print(f"{name:28}{value:12.4g}")
    print(f"picture in {out / 'camera.png'}")


def _in_the_middle(values: Any, images: Any) -> Any:
    """Return the light of a picture on the sensor, before any motion."""
    import numpy as np

    light = images.black + (1 - images.black) * (1 - values / 255.0) ** images.gamma
    plane = np.full((SIDE, SIDE), light[0, 0], np.float32)
    top, left = (SIDE - light.shape[0]) // 2, (SIDE - light.shape[1]) // 2
    plane[top : top + light.shape[0], left : left + light.shape[1]] = light
    return plane


def _length(path: Any) -> float:
    import numpy as np

    return float(np.hypot(np.diff(path.x), np.diff(path.y)).sum())


def _apart(one: Any, other: Any) -> float:
    """Return how far apart two paths are, root of mean square; a picture's middle is a matter of half pixels."""
    import numpy as np

    apart = np.stack((one.x - other.x, one.y - other.y))
    return float(np.sqrt(np.mean(np.sum((apart - apart.mean(axis=1, keepdims=True)) ** 2, axis=0))))


def _draw(path: Path, measured: list[Any]) -> None:
    """Draw rates over time, paths, and how soon pixels fire again, the sensor's and the simulated."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    rates, paths, places = figure.subplots(1, 3)
    for (it, way), color, name in zip(measured, ("C0", "C1"), ("sensor", "simulated"), strict=True):
        t_ms = np.arange(it.rate_hz.shape[1]) * 5 + 2.5
        rates.plot(t_ms, it.rate_hz.sum(axis=0) / 1000, color=color, label=name)
        paths.plot(way.t_us / 1000, way.x, color=color, label=f"{name}, x")
        paths.plot(way.t_us / 1000, way.y, "--", color=color, label=f"{name}, y")
        places.plot(it.per_pixel.sum(axis=0), color=color, label=f"{name}, by column")
        places.plot(it.per_pixel.sum(axis=1), "--", color=color, label=f"{name}, by row")
    for axes, title, x in (
        (rates, "events, thousands a second", "ms"),
        (paths, "where the picture stands, pixels", "ms"),
        (places, "events a recording", "pixel"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
