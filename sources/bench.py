"""Speeds of the sources, each beside its limit."""

from collections.abc import Iterator

from sources.simulated import SimulatedCamera
from stream.bench import Measurement, alternate
from stream.packet import End

__all__ = ["measurements"]


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure the simulated camera against real time.

    Parameters
    ----------
    quick
        Less work and fewer rounds: figures good to a fifth rather than to a twentieth.
    """
    rounds = 3 if quick else 9
    yield _simulated_camera(300_000 if quick else 1_500_000, rounds)


def _simulated_camera(duration_us: int, rounds: int) -> Measurement:
    def play() -> None:
        camera = SimulatedCamera(scene="digits", width=128, height=128, duration_us=duration_us, step_us=1000)
        while not isinstance(camera.poll(1 << 20), End):
            pass

    seconds, _ = alternate(play, lambda: None, rounds=rounds)
    return Measurement(
        "simulated camera 128x128, digits rendered each ms", duration_us / seconds, "simulated us", "real time", 1e6
    )
