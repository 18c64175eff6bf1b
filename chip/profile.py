"""A chip as data: what is known of it, from where, and how surely.

No public text gives the 2019 chip to the bit. So every number stands in a table of its own with its source and how far
to trust it, and a reader of a result can follow each limit back to a page. A user adds a chip by writing a file.

A number that nothing public tells is 0 with the confidence ``unknown``: whatever would need it is left out (no limit is
checked, no overrun is told, no power is estimated) rather than made up.
"""

import math
from pathlib import Path
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

from stream.errors import ConfigError

__all__ = ["Confidence", "Profile", "Quantity", "check_profile", "load_profile", "shipped_profiles"]

T = TypeVar("T")

Confidence: TypeAlias = Literal["high", "medium", "low", "derived", "chosen", "unknown"]
"""high: two or more agreeing public sources. medium: one. low: weak or conflicting. derived: arithmetic on others.
chosen: ours, nothing public says. unknown: nothing public says, and we do not choose; the value is 0."""


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
    core_memory_bytes: Quantity[int]  # for weights, biases, tables, axons and potentials together; 0 = unknown
    weight_bits: Quantity[int]
    accumulator_bits: Quantity[int]
    membrane_bits: Quantity[int]
    refractory_bits: Quantity[int]
    cut_step: Quantity[int]  # a requantisation shifts by a multiple of this
    table_address_bits: Quantity[list[int]]  # sizes that a lookup table may have, as powers of two
    address_bits: Quantity[int]  # of each signed relative coordinate in a packet
    payload_bits: Quantity[int]  # data carried by one packet
    partial_sum_bits: Quantity[int]  # width of a sum that travels from one core to another
    forward_reach: Quantity[int]  # farthest core, along each axis, to which a core can forward a multicast packet
    multicast_steps: Quantity[int]  # most further cores that a packet can be told to visit in a straight line
    phase_clocks: Quantity[int]  # clocks in which a phase must be done; 0 = no fixed length
    overhead_clocks: Quantity[int]  # of these, spent on other things than additions
    clock_hz: Quantity[float]  # 0 = unknown
    macs_per_clock: Quantity[int]  # additions per core and clock
    core_power_low_mw: Quantity[float]  # 0 = unknown
    core_power_high_mw: Quantity[float]
    routing: Quantity[Literal["x_first", "y_first"]]

    @property
    def n_cores(self) -> int:
        """Count the cores of one chip."""
        return self.grid_width.value * self.grid_height.value

    @property
    def shortest_phase_us(self) -> int:
        """Tell the shortest whole number of microseconds in which a phase is done; 1 where that is unknown."""
        if not self.clock_hz.value:
            return 1
        return max(math.ceil(self.phase_clocks.value / self.clock_hz.value * 1e6), 1)


def shipped_profiles() -> list[str]:
    """List the names of the profiles that come with the package."""
    return sorted(entry.stem for entry in (Path(__file__).parent / "profiles").glob("*.toml"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a chip profile.

    Parameters
    ----------
    name_or_path
        A profile shipped here (``tianjic-2019``, ``tianjicx``), or the path of a TOML file.

    Raises
    ------
    ConfigError
        If there is no such profile, a field is missing, unknown or of the wrong type, or the chip's number widths are
        not those that this emulator computes with.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = Path(__file__).parent / "profiles" / f"{name_or_path}.toml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"chip profile {name_or_path}: cannot be read ({error.strerror}), "
            f"wanted one of {', '.join(shipped_profiles())}, or the path of a .toml file"
        ) from None
    try:
        profile = msgspec.toml.decode(content, type=Profile)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"chip profile {path.name}: {error}; every field of chip.profile.Profile is a table "
            f"{{value, source, confidence}}"
        ) from None
    check_profile(path.name, profile)
    return profile


def check_profile(file: str, profile: Profile) -> None:
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
        ("core_memory_bytes", 0, 2**31),
        ("membrane_bits", 8, 32),
        ("refractory_bits", 1, 8),
        ("cut_step", 1, 30),
        ("address_bits", 1, 16),
        ("payload_bits", 2, 64),
        ("partial_sum_bits", 8, 32),
        ("forward_reach", 0, 2**15),
        ("multicast_steps", 0, 2**15),
        ("phase_clocks", 0, 2**31),
        ("overhead_clocks", 0, 2**31),
        ("macs_per_clock", 1, 2**16),
    ):
        got = getattr(profile, field).value
        if not low <= got <= high:
            raise ConfigError(f"chip profile {file}: {field} is {got}, wanted {low} to {high}")
    sizes = profile.table_address_bits.value
    if not all(1 <= size <= 16 for size in sizes):
        raise ConfigError(f"chip profile {file}: table_address_bits is {sizes}, wanted numbers of 1 to 16")
    for field in ("clock_hz", "core_power_low_mw", "core_power_high_mw"):
        got = getattr(profile, field).value
        if not 0 <= got < math.inf:
            raise ConfigError(f"chip profile {file}: {field} is {got}, wanted 0 (unknown) or more")
