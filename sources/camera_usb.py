"""Event cameras on this machine's USB, seen without any driver: what is plugged in, and whether we may open it.

Linux lets only root talk to a USB device until a *udev rule* says otherwise. That is the commonest reason why a camera
"is not found", and drivers rarely say so. So the system's own list is read here.

Products are named one by one: the vendor ids belong to makers of USB parts (152a, Thesycon, sits in audio interfaces,
04b4, Cypress, in anything), and opening those to everybody is not ours to propose. Sources: the rules that come with
neuromorphic-drivers 0.18 (152a, 04b4, 31f7, 1409) and OpenEB 5.1 (03fd, 1fc9).
"""

import fnmatch
import os
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["RULES_FILE", "UsbCamera", "has_usb", "permission_advice", "udev_rules", "usb_cameras"]

RULES_FILE = "/etc/udev/rules.d/65-event-cameras.rules"

_KNOWN = (  # vendor, product (a pattern of udev's), maker
    ("152a", "84[01]?", "iniVation"),
    ("04b4", "00f[45]", "Prophesee EVK3, EVK4 or CenturyArks SilkyEvCam"),
    ("03fd", "5832", "Prophesee"),
    ("1fc9", "5838", "Prophesee"),
    ("31f7", "000[34]", "CenturyArks"),
    ("1409", "8e00", "IDS uEye EVS"),
)
_SYSFS = Path("/sys/bus/usb/devices")
_DEV = Path("/dev/bus/usb")


class UsbCamera(NamedTuple):
    """An event camera on the bus."""

    maker: str
    product: str  # as the device calls itself; may be empty
    ids: str  # vendor:product
    node: str  # the file through which it is opened
    may_open: bool


def has_usb(sysfs: Path = _SYSFS) -> bool:
    """Tell whether this machine shows a USB bus at all; a container often does not. Always true but on Linux."""
    return sys.platform != "linux" or sysfs.is_dir()


def usb_cameras(sysfs: Path = _SYSFS, dev: Path = _DEV) -> list[UsbCamera]:
    """List the event cameras that Linux sees; empty on other systems."""
    found = []
    for device in sorted(sysfs.iterdir()) if sysfs.is_dir() else []:
        vendor, product = _read(device / "idVendor"), _read(device / "idProduct")
        for known_vendor, pattern, maker in _KNOWN:
            if vendor == known_vendor and fnmatch.fnmatchcase(product, pattern):
                bus, number = _read(device / "busnum"), _read(device / "devnum")
                node = dev / bus.zfill(3) / number.zfill(3)
                may_open = os.access(node, os.R_OK | os.W_OK)
                found.append(UsbCamera(maker, _read(device / "product"), f"{vendor}:{product}", str(node), may_open))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def udev_rules() -> str:
    """Return the lines that let every user of this machine open these cameras."""
    line = 'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{}", ATTR{{idProduct}}=="{}", MODE="0666"'
    return "\n".join(line.format(vendor, product) for vendor, product, _ in _KNOWN)


def permission_advice() -> str:
    """Say how to get the permission, in words for a terminal."""
    return (
        f"write the lines below into {RULES_FILE} (as root), run `sudo udevadm control --reload-rules && sudo udevadm "
        f"trigger`, and plug the camera in again\n{udev_rules()}"
    )
