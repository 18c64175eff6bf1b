"""The commands ``hebbstream eval``: what learning reaches and what it holds out against, measured event by event.

One file for each: ``stream.evaluate_faults``, ``evaluate_sensor``, ``evaluate_accuracy``, ``evaluate_camera``,
``evaluate_fashion``, ``evaluate_teach``, ``evaluate_few_shot``, ``evaluate_continual``; ``evaluate_recordings`` makes
what they learn from. Everything found so far is in ``OUT/results.json``; the same command goes on where it was
interrupted.
"""

import typer

from stream.evaluate_accuracy import accuracy
from stream.evaluate_camera import camera
from stream.evaluate_continual import continual
from stream.evaluate_fashion import fashion
from stream.evaluate_faults import fault_tolerance
from stream.evaluate_few_shot import few_shot
from stream.evaluate_recordings import pieces, signs, simulate
from stream.evaluate_sensor import sensor
from stream.evaluate_teach import teach

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Measure what learning reaches and what it holds out against.")
app.command("fault-tolerance")(fault_tolerance)
app.command("sensor")(sensor)
app.command("accuracy")(accuracy)
app.command("simulate")(simulate)
app.command("signs")(signs)
app.command("pieces")(pieces)
app.command("camera")(camera)
app.command("fashion")(fashion)
app.command("teach")(teach)
app.command("few-shot")(few_shot)
app.command("continual")(continual)
