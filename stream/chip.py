"""Commands about the chip: ``hebbstream chip compile NET``, ``chip run PROGRAM EVENTS``, ``chip report PROGRAM``.

NET is a network file of ours or a ``.nir`` file, as for ``hebbstream net``. A program is one file
(``chip.program_file``): the network in integers, the chip, and where each core stands.

Without ``--calibrate`` scales come from the weights alone, and the placement takes all units to be equally busy. With
it, recordings (FOLDER/LABEL/RECORDING, or single files) set scales, thresholds and the placement, and are run once more
on the finished program: what that took, and how its answers compare with the float network's, stands in the report.
"""

import functools
import importlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.net import DtUs, FeedbackDelayUs, Net, Reset, Step, TimeUnitUs, load_net

__all__ = ["chip"]

chip = typer.Typer(
    help="The many-core chip: bring a network onto it, run it, and see what it takes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
ProgramFile = Annotated[Path, typer.Argument(help="A program, written by `hebbstream chip compile`.")]
ESTIMATES = {
    "latency_us": "latency, us, at most",
    "shortest_latency_us": "latency at the shortest phases, us",
    "power_low_mw": "power, lower end, mW",
    "power_high_mw": "power, upper end, mW",
    "power_at_this_load_mw": "power at this load, mW",
    "energy_per_recording_uj": "energy of a recording at the shortest phases, uJ",
}
ASSUMED_HZ, ASSUMED_PHASES = 20.0, 200  # input where nobody has a recording


def _labelled(path: Path, limit: int | None, inputs: Any) -> tuple[list[Any], list[int]]:
    """Read recordings as spikes of input lines, and their labels (-1: none)."""
    from stream.errors import ConfigError

    path = path.expanduser()
    if len(inputs) != 3 or inputs[2] > 2:
        n_inputs = importlib.import_module("neurons.graph").n_units(inputs)
        return [importlib.import_module("stream.net").read_spikes(path, n_inputs)], [-1]
    height, width, channels = inputs
    read = importlib.import_module("sources.event_file").read_events
    if path.is_dir():
        module = importlib.import_module("sources.folder")
        found = module.recordings_of(module.Part(path=str(path), limit=limit))
        paths, labels = [entry.path for entry in found], [entry.label for entry in found]
    else:
        paths, labels = [path], [-1]
    items = []
    for entry in paths:
        events = read(entry, width=width, height=height)
        if (events.width, events.height) != (width, height):
            raise ConfigError(
                f"{entry}: is of a sensor of {events.width}x{events.height} pixels, wanted {width}x{height}"
            )
        items.append(_units(events.events, width, channels))
    return items, labels


def _recordings(path: Path, limit: int | None, inputs: Any, phase_us: int) -> tuple[list[Any], list[int]]:
    """Read recordings, cut in phases, and their labels (-1: none)."""
    items, labels = _labelled(path, limit, inputs)
    n_inputs = importlib.import_module("neurons.graph").n_units(inputs)
    return importlib.import_module("chip.observe").in_phases(items, n_inputs, phase_us), labels


def _units(events: Any, width: int, channels: int) -> Any:
    """Turn events into spikes of input lines."""
    import numpy as np

    spikes = np.zeros(len(events), importlib.import_module("stream.packet").SPIKE_DTYPE)
    spikes["t"] = events["t"]
    place = events["y"].astype(np.int64) * width + events["x"]
    spikes["unit"] = place * channels + (events["p"] if channels == 2 else 0)
    return spikes


@chip.command("compile")
def compile_(
    network: Net,
    out: Annotated[Path, typer.Option("--out", "-o", help="The program to write.")],
    profile: Annotated[str, typer.Option("--profile", "-p", help="A chip: tianjic-2019, tianjicx, a .toml file.")] = (
        "tianjic-2019"
    ),
    phase_us: Annotated[int, typer.Option("--phase-us", min=1, help="Length of a phase, us.")] = 1000,
    calibrate: Annotated[
        Path | None, typer.Option(help="Recordings that set scales, thresholds and places: a folder, or a file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use so many of them, all labels alike.")] = 40,
    placement: Annotated[str, typer.Option(help="annealed, nearest, rows or random.")] = "annealed",
    seed: Annotated[int, typer.Option(min=0, help="Of the placement.")] = 1,
    multicast: Annotated[bool, typer.Option(help="Packets to cores in a line share the way.")] = True,
    fold: Annotated[
        bool, typer.Option("--fold", help="Semi-fold maps: a row a phase, fewer cores; for units without memory.")
    ] = False,
    dt_us: DtUs = None,
    step: Step = "impulse",
    reset: Reset = None,
    feedback_delay_us: FeedbackDelayUs = 1,
    time_unit_us: TimeUnitUs = 1e6,
    as_json: Json = False,
) -> None:
    """Bring a network onto the chip: quantise, split, place, route."""
    from stream.errors import ConfigError

    if out.expanduser().is_dir() or not out.expanduser().parent.is_dir():
        raise ConfigError(f"--out {out}: wanted a file in a folder that is there")
    graph = load_net(
        network, dt_us=dt_us, step=step, reset=reset, feedback_delay_us=feedback_delay_us, time_unit_us=time_unit_us
    )
    known = importlib.import_module("chip.profile").load_profile(profile)
    if phase_us < known.shortest_phase_us:
        raise ConfigError(f"--phase-us {phase_us}: {known.name} needs {known.shortest_phase_us} us or more")
    quantise, compiler = importlib.import_module("chip.quantise"), importlib.import_module("chip.compiler")
    observe, run_ = importlib.import_module("chip.observe"), importlib.import_module("chip.run")
    files = importlib.import_module("chip.program_file")
    observed, rates = None, None
    phases: list[Any] = []
    labels: list[int] = []
    if calibrate is not None:
        phases, labels = _recordings(calibrate, limit, graph.inputs, phase_us)
        observed = observe.observe(graph, phases, phase_us)
        rates = observed.spikes_per_phase
    quantised = quantise.quantise_graph(graph, known, phase_us=phase_us, observed=observed)
    program = compiler.compile_network(
        quantised, known, placement=placement, seed=seed, multicast=multicast, spikes=rates, folded=fold
    )
    expected = files.Expected(None, None, None)
    measured, trade = None, None
    if calibrate is not None and observed is not None:
        measured = run_.measure(program, phases, f"{len(phases)} recordings of {calibrate.name}")
        expected = compare(program, observed, measured, labels)
        trade = importlib.import_module("chip.trade").trade_of(
            program, measured, phases, placement=placement, seed=seed, spikes=rates
        )
    files.save_program(out, program, measured, expected, trade)
    _show(program, measured, expected, trade, as_json=as_json, also={"program": str(out)})


def compare(program: Any, observed: Any, measured: Any, labels: list[int]) -> Any:
    """Compare the chip's answers with the float network's, in phases, on the recordings that were observed."""
    import numpy as np

    make = importlib.import_module("chip.program_file").Expected
    if not program.outputs:
        return make(None, None, None)
    name = list(program.outputs)[-1]
    sent = observed.sent[name] * observed.is_there[..., None]
    floats = np.argmax(sent.sum(axis=1), axis=1)
    answers = measured.answers[: len(floats)]
    right = np.array(labels[: len(floats)])
    if np.any(right < 0):
        return make(float(np.mean(answers == floats)), None, None)
    return make(float(np.mean(answers == floats)), float(np.mean(answers == right)), float(np.mean(floats == right)))


@chip.command()
def run(
    program: ProgramFile,
    events: Annotated[str, typer.Argument(help="An event file; or spikes (.npz: t, unit), where it takes spikes.")],
    out: Annotated[Path | None, typer.Option(help="An .npz archive for the spikes: NAME.t, NAME.unit.")] = None,
    strict: Annotated[bool, typer.Option(help="Stop where a sum or potential overflows, else count it.")] = True,
    as_json: Json = False,
) -> None:
    """Run events through a program, and tell what came out and what it took."""
    import numpy as np

    from stream.errors import ConfigError

    if out is not None and (out.suffix != ".npz" or not out.expanduser().parent.is_dir()):
        raise ConfigError(f"--out {out}: wanted a file that ends in .npz, in a folder that is there")
    saved = importlib.import_module("chip.program_file").load_program(program)
    run_, made = importlib.import_module("chip.run"), saved.program
    inputs, phase_us = made.whole.inputs, made.whole.phase_us
    running = None
    spikes: list[Any] = []
    n_events, first_us, last_us = 0, 0, 0
    begun = time.perf_counter()
    for items in _pieces(events, inputs):
        if not len(items):
            continue
        if running is None:
            first_us = int(items["t"][0])
            running = run_.begin(made, first_us)
        n_events, last_us = n_events + len(items), int(items["t"][-1])
        spikes.append(run_.proceed(running, items, last_us, strict).spikes)
    if running is None:
        raise ConfigError(f"{events}: there was nothing to run")
    nothing = np.zeros(0, importlib.import_module("stream.packet").SPIKE_DTYPE)
    end_us = run_.end_us(running, first_us, last_us)  # what the last event causes shows by then
    spikes.append(run_.proceed(running, nothing, end_us, strict).spikes)
    wall_s = time.perf_counter() - begun
    fired = np.concatenate(spikes)
    watched = run_.lines_of(running, "watched")
    by_layer = {
        name: fired[(fired["unit"] >= lines.start) & (fired["unit"] < lines.stop)] for name, lines in watched.items()
    }
    if out is not None:
        columns = {}
        for name, mine in by_layer.items():
            columns[f"{name}.t"] = mine["t"].copy()
            columns[f"{name}.unit"] = mine["unit"] - watched[name].start
        np.savez(out.expanduser(), **columns)
    outputs = run_.lines_of(running, "outputs")
    scores = {name: run_.scores_of(running)[lines].tolist() for name, lines in outputs.items()}
    totals = {name: int(running.state.totals[name][0]) for name in run_.TOTALS}
    found = {
        "program": str(program),
        "events": n_events,
        "answer": run_.answer_of(running),
        "scores": scores,
        "steps": run_.steps_of(running),
        "spikes": {name: len(mine) for name, mine in by_layer.items()},
        **totals,
        "wall_s": wall_s,
    }
    if as_json:
        print(json.dumps(found))
        return
    steps = "phases" if made.folded is None else f"frames of {made.folded.period} phases,"
    print(f"{n_events:,} events, {found['steps']:,} {steps} of {phase_us:,} us in {wall_s:.2f} s")
    if scores:
        print(f"answer {found['answer']}; scores " + ", ".join(f"{name} {values}" for name, values in scores.items()))
    for name, n in found["spikes"].items():
        print(f"{name}: {n:,} spikes")
    for name, value in totals.items():
        print(f"{name.replace('_', ' '):>14}  {value:,}")


def _pieces(events: str, inputs: Any) -> Iterator[Any]:
    """Read events or spikes, piece by piece, as spikes of input lines."""
    from stream.errors import ConfigError

    n_units = importlib.import_module("neurons.graph").n_units
    if len(inputs) != 3 or inputs[2] > 2:
        yield importlib.import_module("stream.net").read_spikes(Path(events).expanduser(), n_units(inputs))
        return
    height, width, channels = inputs
    files = importlib.import_module("sources.event_file")
    source: Iterable[Any] = files.open_events(events, files.Reading(width=width, height=height))
    got = (getattr(source, "width", width), getattr(source, "height", height))
    if got != (width, height):
        raise ConfigError(
            f"{events}: is of a sensor of {got[0]}x{got[1]} pixels, and the program takes {width}x{height}"
        )
    yield from (_units(items, width, channels) for items in source)


@chip.command()
def report(
    program: ProgramFile,
    events: Annotated[
        Path | None,
        typer.Option(help="Run these first: a file, or FOLDER/LABEL/RECORDING. Default: what was run last."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Run so many of a folder.")] = 40,
    picture: Annotated[Path | None, typer.Option(help="Draw the grid to this file: .png, .svg, .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what a program takes: cores, memory, traffic, time and energy."""
    saved = importlib.import_module("chip.program_file").load_program(program)
    run_ = importlib.import_module("chip.run")
    made, measured, trade = saved.program, saved.measured, saved.trade
    network = made.whole
    trade_of = importlib.import_module("chip.trade").trade_of
    if events is not None:
        phases, _ = _recordings(events, limit, network.inputs, network.phase_us)
        measured = run_.measure(made, phases, f"{len(phases)} recordings of {events.name}")
        trade = trade_of(made, measured, phases)
    elif measured is None:
        n_inputs = importlib.import_module("neurons.graph").n_units(network.inputs)
        phases = run_.poisson(n_inputs, network.phase_us, ASSUMED_HZ, ASSUMED_PHASES, 1)
        words = f"assumed input, {ASSUMED_HZ:g} Hz on every line for {ASSUMED_PHASES} phases of {network.phase_us} us"
        measured = run_.measure(made, phases, words)
        trade = trade_of(made, measured, phases)
    if picture is not None:
        draw = importlib.import_module("chip.picture").draw
        draw(picture.expanduser(), made, measured, f"{program.stem} on {made.profile.name}")
    also = {"picture": str(picture)} if picture else {}
    _show(made, measured, saved.expected, trade, as_json=as_json, also=also)


@chip.command("compare")
def compare_(
    program: ProgramFile,
    network: Annotated[Path, typer.Argument(help="The float network that it was compiled from.")],
    folder: Annotated[Path, typer.Argument(help="Labelled recordings: FOLDER/LABEL/RECORDING.")],
    limit: Annotated[int | None, typer.Option(help="Use so many of them, all labels alike.")] = None,
    as_json: Json = False,
) -> None:
    """Ask a program and its float network about the same recordings, and count what each answer took."""
    import numpy as np

    from stream.errors import ConfigError

    made = importlib.import_module("chip.program_file").load_program(program).program
    graph = load_net(network)
    if graph.inputs != made.whole.inputs or not made.outputs:
        raise ConfigError(f"{network}: takes {graph.inputs}, and {program} takes {made.whole.inputs}; compare its own")
    readout, phase_us = list(made.outputs)[-1], made.whole.phase_us
    items, labels = _labelled(folder, limit, graph.inputs)
    observe, run_ = importlib.import_module("chip.observe"), importlib.import_module("chip.run")
    phases = observe.in_phases(items, importlib.import_module("neurons.graph").n_units(graph.inputs), phase_us)
    measured = run_.measure(made, phases, f"{len(phases)} recordings of {folder.name}")
    answers = {"chip": measured.answers}
    activation = importlib.import_module("neurons.activation").ActivationUnits
    if any(isinstance(population.model, activation) for population in graph.populations):
        # artificial units have values in phases only
        late = 0 if made.folded is None else made.folded.depth - 1
        longer = [np.pad(recording, ((0, late), (0, 0))) for recording in phases]
        answers["phases"] = observe.answers(graph, longer, phase_us, readout)
    else:
        # both go on until the last event has shown: semi-folded, the chip answers every frame
        late_us = run_.late_us(made) - phase_us if made.folded is None else (made.folded.depth - 1) * phase_us
        for name, discipline in (("phases", "phase"), ("events", "event")):
            float_net = importlib.import_module("neurons.network").Network.of(
                graph, discipline=discipline, phase_us=phase_us, readout=readout
            )
            found = []
            for recording, cut in zip(items, phases, strict=True):
                first_us = int(recording["t"][0]) if len(recording) else 0
                until_us = first_us + len(cut) * phase_us + late_us - 1
                float_net.begin(first_us)
                float_net.run(_as_input(float_net, recording, graph.inputs), until_us)
                found.append(int(np.argmax(float_net.averages(readout))))
            answers[name] = np.array(found)
    right = np.array(labels)
    share = {name: float(np.mean(given == right)) for name, given in answers.items()}
    described = importlib.import_module("chip.report").describe(made, measured)
    same = {name: float(np.mean(answers["chip"] == given)) for name, given in answers.items() if name != "chip"}
    result = {
        "recordings": len(items),
        "same_class_as_float_in_phases": same["phases"],
        "same_class_as_float_by_events": same.get("events"),
        "right_on_chip": share["chip"],
        "right_in_floats_in_phases": share["phases"],
        "right_in_floats_by_events": share.get("events"),
        "accuracy_loss_points": 100 * (share["phases"] - share["chip"]),
        "cores": described["cores"],
        "per_recording": described["measured"]["per_recording"],
        "phases_per_recording": measured.phases / max(measured.recordings, 1),
        "overruns": measured.totals["overruns"],
        "longest_phase_clocks": measured.totals["clocks"],
        "estimates": described["estimates"],
    }
    if as_json:
        print(json.dumps(result))
        return
    print(f"{len(items)} recordings of {folder}, {described['cores']} cores")
    for name, words in (("phases", "in phases"), ("events", "by events")):
        if name in same:
            print(f"same class as the float network {words}: {100 * same[name]:.1f} %")
    for name, words in (
        ("chip", "on the chip"),
        ("phases", "in floats, in phases"),
        ("events", "in floats, by events"),
    ):
        if name in share:
            print(f"right {words}: {100 * share[name]:.1f} %")
    for name, value in described["measured"]["per_recording"].items():
        print(f"{name.replace('_', ' ')} a recording: {value:,.0f}")
    for name, words in ESTIMATES.items():
        if name in described["estimates"]:
            print(f"estimated {words}: {described['estimates'][name]:,.4g}")


def _as_input(network: Any, spikes: Any, inputs: Any) -> Any:
    """Turn spikes of input lines back into what a network takes."""
    import numpy as np

    if "events" not in network.inputs:
        return spikes
    _, width, channels = inputs
    events = np.zeros(len(spikes), importlib.import_module("stream.packet").EVENT_DTYPE)
    events["t"] = spikes["t"]
    place, events["p"] = np.divmod(spikes["unit"], channels)
    events["y"], events["x"] = np.divmod(place, width)
    return events


def _show(program: Any, measured: Any, expected: Any, trade: Any, *, as_json: bool, also: dict[str, str]) -> None:
    """Print a report."""
    found = importlib.import_module("chip.report").describe(program, measured, trade)
    found = {**also, **found, "expected": expected._asdict()}
    if as_json:
        print(json.dumps(found))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    say = functools.partial(console.print, highlight=False)
    say(
        f"{found['profile']}: {found['cores']} of {found['cores_there']} cores, {found['neurons']:,} neurons, "
        f"{found['weights']:,} weights, {found['weight_bytes']:,} of {found['memory_there_bytes']:,} bytes"
    )
    table = Table(box=SIMPLE)
    for name in (
        "layer",
        "units",
        "cores",
        "of these sum",
        "weight bytes",
        "late by phases",
        "synaptic ops",
        "packets",
    ):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for row in found["layers"]:
        cells = [row["units"], row["cores"], row["summing_cores"], row["weight_bytes"], row["latency_phases"]]
        cells += [row.get("synaptic_ops", ""), row.get("packets", "")]
        table.add_row(row["layer"], *(f"{cell:,}" if isinstance(cell, int) else cell or "" for cell in cells))
    console.print(table)
    if measured is not None:
        each = found["measured"]
        say(
            f"{measured.source}: {measured.phases:,} phases, {each['synaptic_ops']:,} synaptic operations, "
            f"{each['packets']:,} packets, {each['hops']:,} hops"
        )
        limit = f" of {each['phase_clocks']:,}" if each["phase_clocks"] else ""
        say(
            f"busiest link {each['busiest_link']:,} packets in a phase, longest phase {each['clocks']:,}{limit} "
            f"clocks, {each['overruns']:,} phases too long"
        )
    for name, words in ESTIMATES.items():
        if name in found["estimates"]:
            say(f"estimated {words}: {found['estimates'][name]:,.4g}")
    _show_trade(console, found["folding"], is_folded=found["semi_folded"])
    if expected.agreement is not None:
        say(f"same class as the float network: {100 * expected.agreement:.1f} %")
    if expected.accuracy is not None and expected.float_accuracy is not None:
        say(f"right: {100 * expected.accuracy:.1f} % here, {100 * expected.float_accuracy:.1f} % in floats")
    for name, value in also.items():
        say(f"{name}: {value}")


TRADED = {"cores": "cores", "phases_per_frame": "phases a frame", "most_frames_per_s": "frames a second at most"}
COUNTED = {
    "packets": "packets a frame",
    "hops": "hops a frame",
    "synaptic_ops": "synaptic operations a frame",
    "energy_uj": "estimated energy a frame, uJ",
}


def _show_trade(console: Any, folding: dict[str, Any], *, is_folded: bool) -> None:
    """Put unfolded and semi-folded side by side."""
    if folding["semi_folded"] is None:
        return
    from rich.box import SIMPLE
    from rich.table import Table

    forms = [folding["unfolded"], folding["semi_folded"]]
    table = Table("a frame", box=SIMPLE)
    for k, name in enumerate(("unfolded", "semi-folded")):
        table.add_column(name + (" (this program)" if k == is_folded else ""), justify="right")
    rows = {words: [form[name] for form in forms] for name, words in TRADED.items()}
    rows |= {words: [form["per_frame"].get(name) for form in forms] for name, words in COUNTED.items()}
    for words, cells in rows.items():
        if any(cell is not None for cell in cells):
            # whole numbers to the last digit, as counts of cores are
            table.add_row(
                words,
                *(
                    "-" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:,.4g}" if x < 1e4 else f"{x:,.0f}"
                    for x in cells
                ),
            )
    console.print(table)
    for name, form in zip(("unfolded", "semi-folded"), forms, strict=True):
        if form["why_not"]:
            console.print(f"{name} it does not run: {form['why_not']}", highlight=False)
