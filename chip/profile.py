"""A chip as data: what is known of it, from where, and how surely.

No public text gives the 2019 chip to the bit. So every number stands in a table of its own with its source and how far
to trust it, and a reader of a result can follow each limit back to a page. A user adds a chip by writing a file.
"""

import math
from pathlib import Path
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

from stream.errors import ConfigError

__all__ = ["Confidence", "Profile", "Quantity", "load_profile"]

T = TypeVar("T")

Confidence: TypeAlias = Literal["high", "medium", "low", "derived", "chosen"]
"""high: two or more agreeing public sources. medium: one. low: weak or conflicting. derived: arithmetic on others.
chosen: ours, nothing public says."""


class Quantity(msgspec.Struct, Generic[T], frozen=True, forbid_unknown_fields=True):
    """A number with its provenance."""

    value: T
    source: str
    confidence: Confidence


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chip. Every field of a profile file must be there, and nothing else may."""

    name: str
    grid_width: Quantity[int]  # cores along x
    grid_height: Quantity[int]  # cores along y
    axons_per_core: Quantity[int]
    neurons_per_core: Quantity[int]
    weight_bits: Quantity[int]
    accumulator_bits: Quantity[int]
    membrane_bits: Quantity[int]
    refractory_bits: Quantity[int]
    payload_bits: Quantity[int]  # data carried by one packet
    partial_sum_bits: Quantity[int]  # width of a sum that travels from one core to another
    phase_clocks: Quantity[int]  # clocks in which a phase must be done
    overhead_clocks: Quantity[int]  # of these, spent on other things than additions
    clock_hz: Quantity[float]
    macs_per_clock: Quantity[int]  # additions per core and clock
    core_power_low_mw: Quantity[float]
    core_power_high_mw: Quantity[float]
    routing: Quantity[Literal["x_first", "y_first"]]

    @property
    def n_cores(self) -> int:
        """Count the cores of one chip."""
        return self.grid_width.value * self.grid_height.value

    @property
    def n_links(self) -> int:
        """Count the links of one chip: four for each core, and the two ports."""
        return 4 * self.n_cores + 2

    @property
    def shortest_phase_us(self) -> int:
        """Tell the shortest whole number of microseconds in which a phase is done."""
        return math.ceil(self.phase_clocks.value / self.clock_hz.value * 1e6)


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a chip profile.

    Parameters
    ----------
    name_or_path
        A profile shipped here (``tianjic-2019``), or the path of a TOML file.

    Raises
    ------
    ConfigError
        If there is no such profile, a field is missing, unknown or of the wrong type, or the chip's number widths are
        not those that this emulator computes with.
    """
    shipped = Path(__file__).parent / "profiles"
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = shipped / f"{name_or_path}.toml"
    try:
        content = path.read_bytes()
    except OSError as error:
        names = ", ".join(sorted(entry.stem for entry in shipped.glob("*.toml")))
        raise ConfigError(
            f"chip profile {name_or_path}: cannot be read ({error.strerror}), wanted one of {names}, "
            f"or the path of a .toml file"
        ) from None
    try:
        profile = msgspec.toml.decode(content, type=Profile)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"chip profile {path.name}: {error}; every field of chip.profile.Profile is a table "
            f"{{value, source, confidence}}"
        ) from None
    _check(path.name, profile)
    return profile


def _check(file: str, profile: Profile) -> None:
    """Raise ConfigError where the emulator cannot follow a profile."""
    # The kernels are written for these two; a profile that asks for others would be silently wrong.
    for field, wanted in (("weight_bits", 8), ("accumulator_bits", 32)):
        got = getattr(profile, field).value
        if got != wanted:
            raise ConfigError(
                f"chip profile {file}: {field} is {got}, wanted {wanted}: all that the cores compute with"
            )
    for field, low, high in (
        ("grid_width", 1, 1024),
        ("grid_height", 1, 1024),
        ("axons_per_core", 1, 65536),
        ("neurons_per_core", 1, 65536),
        ("membrane_bits", 8, 32),
        ("refractory_bits", 1, 8),
        ("payload_bits", 1, 64),
        ("partial_sum_bits", 8, 32),
        ("phase_clocks", 1, 2**31),
        ("overhead_clocks", 0, 2**31),
        ("macs_per_clock", 1, 2**16),
    ):
        got = getattr(profile, field).value
        if not low <= got <= high:
            raise ConfigError(f"chip profile {file}: {field} is {got}, wanted {low} to {high}")
