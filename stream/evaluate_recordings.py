"""The commands ``hebbstream eval simulate``, ``signs`` and ``pieces``: labelled recordings for studies to learn from.

``simulate`` shows pictures of MNIST's form to the camera of ``sources.nmnist_camera``; ``signs`` makes up such pictures
of classes that nobody has seen; ``pieces`` cuts long recordings of single things. Out come folders
``FOLDER/LABEL/RECORDING``, which ``train`` and ``eval`` read.
"""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from stream.train import bar

__all__ = ["pieces", "signs", "simulate"]


def simulate(
    images: Annotated[Path, typer.Argument(help="MNIST's, or Fashion-MNIST's, file of images; labels beside it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for recordings; new or empty.")],
    limit: Annotated[int | None, typer.Option(help="So many recordings; default: every picture once.")] = None,
    skip: Annotated[int, typer.Option(help="Leave out the first so many pictures.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of order and noise.")] = 1,
) -> None:
    """Record pictures with a simulated camera that sees as N-MNIST's did."""
    make = importlib.import_module("sources.nmnist_camera").nmnist_camera
    record = importlib.import_module("sources.scene_recordings").record_objects
    with bar("recordings") as show:
        n = record(
            make(str(images), passes=1, skip=skip, seed=seed),
            out,
            limit=limit,
            progress=lambda done: show(1, done, limit or 0, 0.0),
        )
    print(f"{n} recordings in {out}")


def signs(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for a file of pictures and one of labels.")],
    first: Annotated[int, typer.Option(min=0, help="The first sign: other numbers are other signs.")] = 0,
    count: Annotated[int, typer.Option("--signs", min=1, max=256, help="How many.")] = 60,
    each: Annotated[int, typer.Option(min=1, max=1024, help="Pictures of each.")] = 11,
    things: Annotated[bool, typer.Option("--things", help="The same each time, elsewhere and turned.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of signs and hands.")] = 1,
) -> None:
    """Draw made-up signs, each by another hand every time, for `eval simulate` to record."""
    module = importlib.import_module("sources.signs")
    hand = module.A_THING if things else importlib.import_module("sources.handwriting").Hand()
    images, _ = module.write_signs(out.expanduser(), first=first, signs=count, each=each, seed=seed, hand=hand)
    print(f"{count * each} pictures in {images}, labels beside it")


def pieces(
    files: Annotated[list[Path], typer.Argument(help="Event files, one for each class; labels in this order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for recordings; new or empty.")],
    piece_ms: Annotated[float, typer.Option(min=0.001, help="How long each is.")] = 300.0,
    downsample: Annotated[int, typer.Option(min=1, max=1024, help="Squares of so many pixels become one.")] = 1,
    law: Annotated[
        str, typer.Option(help="Events of a square that stay: divide (all), integrate, difference.")
    ] = "divide",
    least: Annotated[int, typer.Option(min=1, help="Events that a piece needs.")] = 100,
    test: Annotated[Path | None, typer.Option(help="Folder for the last fifth of each, to be asked about.")] = None,
) -> None:
    """Cut long recordings, each of one thing, into labelled ones."""
    cut = importlib.import_module("sources.pieces").cut_pieces
    with bar("files") as show:
        found, (width, height) = cut(
            [it.expanduser() for it in files],
            out.expanduser(),
            piece_us=round(piece_ms * 1000),
            factor=downsample,
            law=law,
            least=least,
            test=None if test is None else test.expanduser(),
            progress=lambda done: show(1, done, len(files), 0.0),
        )
    for label, (file, n) in enumerate(zip(files, found, strict=True)):
        print(f"{label}: {n} of {file.name}")
    print(f"{sum(found)} recordings of {width}x{height} in {out}{'' if test is None else f' and {test}'}")
