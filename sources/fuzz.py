"""Look for inputs that a decoder cannot bear: ``python -m sources.fuzz FORMAT --seconds 30``.

Small files, made by our writers, are damaged at random and read by ``sources.event_file.read_events``. An input that
reaches lines (more exactly: steps from line to line, and how often) that none before has reached is kept and damaged
further, so that the search finds its way behind one comparison after the other. Kernels run as plain Python
(``NUMBA_DISABLE_JIT``), where their lines count too and an index out of bounds is an error instead of a wrong byte
somewhere.

What an input may do: give events, and raise FormatError. What it may not, and is saved as a finding with its cause:
raise anything else, take long, take much memory, give more events than its bytes can hold, or kill the process
(libraries in machine code do), which is why the search runs in a process of its own. The same cause is saved once.

Exit code 0 = nothing found, 1 = findings, 2 = wrong arguments.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["Finding", "explore", "main", "reached", "seeds", "supervise"]

_SECONDS_AN_INPUT = 10.0
_SILENCE_S = 30.0  # of the process that searches: it hangs where no signal reaches it
_MEMORY_BYTES = 1 << 30  # that one input may add
_MOST_BYTES = 4096  # of an input, unless the seeds are longer
_HEADERLESS = ("bin", "evt2", "evt2.1", "evt3")

# Files are at most that many times larger as events: a byte of EVT holds up to 6 events, a line of text has 8 bytes.
# Formats that compress are not here: their memory is bounded, their number of events is not.
_EVENTS_A_BYTE = {"bin": 1, "dat": 1, "es": 1, "evt2": 1, "evt2.1": 4, "evt3": 6, "text": 1, "aedat2": 1}

_NUMBERS = (
    0,
    1,
    7,
    127,
    128,
    240,
    254,
    255,
    256,
    2047,
    2048,
    32767,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_WORDS = (b"\n", b",", b" ", b"-", b".", b"e", b"%", b"#", b"0", b"9" * 25, b"1e999", b"true", b"nan", b"\xff\xfe")


class Finding(NamedTuple):
    """An input that must not do what it did."""

    data: bytes
    cause: str  # one line, the same for the same cause
    details: str


class _TooLong(BaseException):
    """Raised by the alarm; no handler for Exception may catch it."""


def seeds(format: str, folder: Path) -> tuple[str, list[bytes]]:
    """Make small files of a format.

    Parameters
    ----------
    format
        A name of ``sources.event_file.DECODERS``.
    folder
        To write them.

    Returns
    -------
    suffix, files
        Suffix of the name that such a file should have, and contents; none where there is no writer.
    """
    from sources.event_writer import SUFFIXES, WRITERS, open_writer

    rng = np.random.default_rng(3)
    events = np.zeros(60, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.choice([0, 0, 0, 1, 130, 5000], len(events)))
    events["x"] = np.arange(len(events)) // 2 * 2 % 30
    events["y"], events["p"] = np.arange(len(events)) // 12, rng.integers(0, 2, len(events))
    late = events.copy()
    late["t"][40:] += {"es": 2000, "evt3": 20_000_000}.get(format, 9_000_000)  # silence that costs some bytes, not many
    name = {"text": "csv"}.get(format, format)
    suffix = next((suffix for suffix, written in SUFFIXES.items() if written == name), ".raw")
    found: list[bytes] = []
    if name in WRITERS:
        for index, part in enumerate((events[:0], events[:3], events, late)):
            path = folder / f"seed{index}{suffix}"
            writer = open_writer(path, 32, 24, format=name)
            writer.write(part)
            writer.close()
            found.append(path.read_bytes())
    elif format == "npy":
        suffix = ".npy"
        for array in (events, np.column_stack([events[field].astype(np.float64) for field in "txyp"])):
            np.save(folder / "seed.npy", array)
            found.append((folder / "seed.npy").read_bytes())
    elif format == "evt2.1":
        words = [word for high in range(40) for word in (8 << 60 | high << 32, 1 << 60 | high << 54 | 9 << 32 | 0x8F01)]
        found = [np.array(words, "<u8").tobytes(), b"% evt 2.1\n% end\n" + np.array(words[:9], "<u8").tobytes()]
    if format == "text":
        found += [b"0.000001 1 2 1\n# a\n1.5e-3 3 4 0\n", b"x;y;on;t\n1;2;true;7\n3;4;False;9"]
    return suffix, found


def mutate(data: bytes, others: list[bytes], rng: random.Random, most_bytes: int) -> bytes:
    """Damage an input in one to eight places."""
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(9)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:
            n_bytes = rng.choice((1, 2, 4, 8))
            number = rng.choice((*_NUMBERS, len(out), at)) % (1 << 8 * n_bytes)
            out[at : at + n_bytes] = number.to_bytes(n_bytes, rng.choice(("little", "big")))
        elif kind == 3:
            del out[at : at + rng.choice((1, 2, 4, 5, 8, 16, 100))]
        elif kind == 4:
            out[at:at] = out[at : at + rng.choice((1, 4, 5, 8, 16, 100))]
        elif kind == 5:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        elif kind == 6:
            out[at:at] = rng.choice(_WORDS)
        elif kind == 7 and rng.random() < 0.3:
            del out[at:]
        elif kind == 8:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at:] = other[start:]
    return bytes(out[:most_bytes])


def reached(call: Callable[[], object], folder: Path) -> set[int]:
    """Call something and return what it reached in the Python files of a folder.

    Returns
    -------
    steps
        One number for each step from one line to another and each power of two of how often it was taken.
    """
    inside: dict[str, bool] = {}
    counts: dict[tuple[int, int, int], int] = {}
    last = 0
    prefix = str(folder) + os.sep

    def in_function(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last
        step = (id(frame.f_code), last, frame.f_lineno)
        counts[step] = counts.get(step, 0) + 1
        last = frame.f_lineno
        return in_function

    def at_call(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in inside:
            inside[name] = name.startswith(prefix) and name != __file__
        return in_function if inside[name] else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        call()
    finally:
        sys.settrace(before)
    return {hash((step, count.bit_length())) for step, count in counts.items()}


def explore(
    check: Callable[[bytes], object], files: list[bytes], seconds: float, *, folder: Path, seed: int = 0
) -> Iterator[Finding | None]:
    """Damage inputs for some time, and keep those that reach something new.

    Parameters
    ----------
    check
        What is to bear an input; whatever it raises is a finding.
    files
        To begin with.
    seconds
        How long.
    folder
        Whose lines count.
    seed
        Of the choices.

    Yields
    ------
    finding
        A cause seen for the first time, or None for each input that is borne.
    """
    rng = random.Random(seed)
    kept: list[bytes] = []
    seen: set[int] = set()
    causes: set[str] = set()
    pending = list(files)
    most_bytes = max([_MOST_BYTES, *(len(data) * 2 for data in files)])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = pending.pop() if pending else mutate(rng.choice(kept), kept, rng, most_bytes)
        finding = None
        steps: set[int] = set()
        try:
            steps = reached(lambda data=data: check(data), folder)  # type: ignore[misc] # a default in a lambda has no type
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            finding = _finding(data, error)
        if not steps <= seen or len(kept) < len(files):
            seen |= steps
            kept.append(data)
        if finding is not None and finding.cause not in causes:
            causes.add(finding.cause)
            yield finding
        else:
            yield None


def _finding(data: bytes, error: BaseException) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename != __file__] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"
    cause = f"{type(error).__name__} at {place}"
    if isinstance(error, _TooLong | AssertionError):  # the place says nothing, the message all
        cause = f"{type(error).__name__}: {str(error).split(':')[0]}"
    return Finding(data, cause, "".join(traceback.format_exception(error)))


def _bear(path: Path, format: str) -> Callable[[bytes], None]:
    """Return what reads an input, and complains where it asks for more than it may."""
    from sources.event_file import read_events

    most = _EVENTS_A_BYTE.get(format)

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong(f"longer than {_SECONDS_AN_INPUT:g} s")

    signal.signal(signal.SIGALRM, ring)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        explicit: Any = format if format in _HEADERLESS and not data.startswith(b"%") else "auto"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_AN_INPUT)
        try:
            recording = read_events(path, format=explicit)
        except FormatError:
            recording = None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.monotonic() - start > _SECONDS_AN_INPUT:
            raise _TooLong(f"longer than {_SECONDS_AN_INPUT:g} s")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > _MEMORY_BYTES // 4:
            raise AssertionError(f"memory: {grown} bytes for an input of {len(data)}")
        if recording is not None and most is not None and recording.format == format:
            n_events = len(recording.events)
            if n_events > most * len(data):
                raise AssertionError(f"events: {n_events} of {len(data)} bytes, wanted at most {most} a byte")

    return check


def search(format: str, seconds: float, seed: int, corpus: Path | None, current: Path, findings: Path) -> None:
    """Be the process that searches: save findings, and print a line of figures at the end."""
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
        suffix, files = seeds(format, Path(folder))
    if corpus is not None:
        found = [path for path in sorted(corpus.rglob("*")) if path.is_file() and path.stat().st_size < 1 << 16]
        files += [path.read_bytes() for path in found]
        suffix = found[0].suffix if found else suffix
    if not files:
        raise ConfigError(f"format {format!r}: there is no writer to begin with; give files of it by --corpus FOLDER")
    path = current.with_suffix(suffix)
    check = _bear(path, format)
    for data in files:  # imports count neither as time nor as memory
        try:
            check(data)
        except BaseException:  # it will come again, as a finding
            continue
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, resource.RLIM_INFINITY))
    n_inputs = 0
    for finding in explore(check, files, seconds, folder=Path(__file__).parent, seed=seed):
        n_inputs += 1
        if finding is not None:
            save(finding, findings, suffix)
    print(f"{format}: {n_inputs} inputs", flush=True)


def save(finding: Finding, folder: Path, suffix: str) -> None:
    """Save an input, and beside it why."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in finding.cause)[:80]
    (folder / f"{name}{suffix}").write_bytes(finding.data)
    (folder / f"{name}.why").write_text(f"{finding.cause}\n\n{finding.details}")
    print(f"found: {finding.cause} (saved as {folder / name}{suffix})", flush=True)


def supervise(command: list[str], current: Path, *, silence_s: float = _SILENCE_S) -> Finding | None:
    """Run the searching process; return what killed it or made it hang, or None if it came to its end.

    Parameters
    ----------
    command
        The process. It writes each input to a file beside ``current`` (same stem) before it reads it.
    current
        Of which the stem matters.
    silence_s
        How long no new input may come.

    Raises
    ------
    ConfigError
        The process could not begin.
    """
    process = subprocess.Popen(command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"})
    begin = time.time()
    try:
        while process.poll() is None:
            time.sleep(0.1)
            newest = max([begin, *(path.stat().st_mtime for path in current.parent.glob(f"{current.stem}.*"))])
            if time.time() - newest > silence_s:
                process.kill()
                process.wait()
                return Finding(_last_input(current), f"hangs for {silence_s:g} s in machine code", "")
    finally:
        process.kill()
        process.wait()
    if process.returncode == 0:
        return None
    if process.returncode > 0:
        raise ConfigError(f"the search ended with code {process.returncode}; what it says stands above")
    return Finding(_last_input(current), f"killed by {signal.Signals(-process.returncode).name}", "")


def _last_input(current: Path) -> bytes:
    found = sorted(current.parent.glob(f"{current.stem}.*"), key=lambda path: path.stat().st_mtime)
    return found[-1].read_bytes() if found else b""


def main() -> int:
    """Run from the command line."""
    from sources.event_file import DECODERS

    parser = argparse.ArgumentParser(prog="python -m sources.fuzz", description="look for inputs a decoder cannot bear")
    parser.add_argument("format", choices=sorted(DECODERS))
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=0, help="of the choices; the same finds the same")
    parser.add_argument("--corpus", type=Path, help="folder of more files to begin with, each below 64 kB")
    parser.add_argument("--findings", type=Path, help="where inputs are saved (default: fuzz-FORMAT)")
    parser.add_argument("--current", type=Path, help=argparse.SUPPRESS)  # given to the searching process
    asked = parser.parse_args()
    findings = asked.findings or Path(f"fuzz-{asked.format}")
    if asked.current is not None:
        try:
            search(asked.format, asked.seconds, asked.seed, asked.corpus, asked.current, findings)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0
    before = {path.name for path in findings.glob("*.why")}
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
        current = Path(folder) / "input"
        seed = asked.seed
        while (left := end - time.monotonic()) > 0:
            options = [
                "--seconds",
                str(left),
                "--seed",
                str(seed),
                "--findings",
                str(findings),
                "--current",
                str(current),
            ]
            corpus = ["--corpus", str(asked.corpus)] if asked.corpus is not None else []
            command = [sys.executable, "-m", "sources.fuzz", asked.format, *options, *corpus]
            try:
                died = supervise(command, current)
            except ConfigError as error:
                print(error, file=sys.stderr)
                return error.exit_code
            if died is None:
                break
            suffix = next(iter(path.suffix for path in current.parent.glob(f"{current.stem}.*")), "")
            save(died, findings, suffix)
            seed += 1  # else it would die at the same place
    return int({path.name for path in findings.glob("*.why")} != before)


if __name__ == "__main__":
    sys.exit(main())
