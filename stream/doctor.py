"""`hebbstream doctor`: what of hebbstream works on this machine, and the way out where it does not."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import ipaddress
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import zmq

from stream.jit import PACKAGES, cache_root

__all__ = ["Finding", "examine"]


class Finding(NamedTuple):
    """One thing looked at."""

    subject: str
    state: Literal["ok", "note", "fault"]
    text: str


def examine() -> Iterator[Finding]:
    """Look at everything that has ever gone wrong for a user; faults come with the way out."""
    yield _python()
    yield from _packages()
    yield from _own_names()
    yield _cache()
    yield _ipc()
    yield from _endpoints()
    yield _memory()
    yield from _extras()
    yield from _cameras()
    yield from _usb()
    yield _data()


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("Python", "ok" if fits else "fault", text if fits else f"{text}; wanted 3.11 to 3.13")


def _packages() -> Iterator[Finding]:
    for name in ("numpy", "numba", "pyzmq", "msgspec", "lz4", "safetensors", "matplotlib", "rich", "typer"):
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "fault", "missing; `pip install hebbstream` brings it")


def _own_names() -> Iterator[Finding]:
    """Our import names are plain words: another distribution that claims one silently replaces ours."""
    claims = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        rivals = sorted(set(claims.get(name, [])) - {"hebbstream"})
        spec = importlib.util.find_spec(name)
        where = str(Path(spec.origin).parent) if spec and spec.origin else "nowhere"
        if rivals:
            text = f"also claimed by {', '.join(rivals)}; install hebbstream into an environment of its own"
            yield Finding(f"import {name}", "fault", text)
        elif where == "nowhere":
            yield Finding(f"import {name}", "fault", "not found; install hebbstream again")
        else:
            yield Finding(f"import {name}", "ok", where)


def _cache() -> Finding:
    root = cache_root()
    wanted = os.environ.get("HEBBSTREAM_CACHE")
    fell_back = str(root).startswith(tempfile.gettempdir()) and wanted != str(root)
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    text = f"{root}, {size / 1e6:.1f} MB"
    if fell_back:
        return Finding("kernel cache", "note", f"{text}; the usual place cannot be written, set HEBBSTREAM_CACHE")
    return Finding("kernel cache", "ok", text)


def _ipc() -> Finding:
    """Send one message over ipc and over tcp on the loopback."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
            for endpoint in (f"ipc://{folder}/0", "tcp://127.0.0.1:*"):
                with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
                    pull.bind(endpoint)
                    push.connect(pull.getsockopt_string(zmq.LAST_ENDPOINT))
                    push.send(b"x")
                    if not pull.poll(2000):
                        return Finding("ZeroMQ", "fault", f"{endpoint.split(':')[0]}: a message did not arrive in 2 s")
    except zmq.ZMQError as error:
        return Finding("ZeroMQ", "fault", f'{error.strerror}; use transport = "tcp" or TMPDIR with a short path')
    finally:
        context.destroy(linger=0)
    return Finding("ZeroMQ", "ok", f"libzmq {zmq.zmq_version()}, ipc and tcp work")


def _endpoints() -> Iterator[Finding]:
    """Tell where hebbstream's running processes listen, and whether that can be reached from elsewhere."""
    inodes = _listening()
    found = 0
    for place in sorted(Path("/proc").glob("[0-9]*"), key=lambda place: int(place.name)):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            what = _ours(words)
            if not what:
                continue
            links = _links(place / "fd")
            for inode, (endpoint, is_far) in inodes.items():
                if f"socket:[{inode}]" not in links:
                    continue
                found += 1
                text = f"process {place.name} ({what}) listens at {endpoint}"
                if not is_far:
                    yield Finding("endpoint", "ok", f"{text}, for this machine alone")
                elif "--key" in words:
                    yield Finding("endpoint", "ok", f"{text}, with keys")
                else:
                    yield Finding("endpoint", "note", f"{text}: open to the network; give it keys (hebbstream keys)")
    if not found and Path("/proc/net/tcp").exists():
        yield Finding("endpoint", "ok", "no process of hebbstream listens now")


def _links(folder: Path) -> set[str]:
    """Return what a process's descriptors lead to; one that it closes while we look is left out, not the process."""
    links = set()
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(entry))
    return links


def _ours(words: list[str]) -> str:
    """Say what of hebbstream a command line runs; "" if it is none of ours."""
    for at, word in enumerate(words[:6]):
        if word == "-m" and words[at + 1 : at + 2] in (["stream"], ["stream.node"]):
            return " ".join(["hebbstream", *words[at + 2 : at + 4]] if words[at + 1] == "stream" else words[at + 1 :])
        if at < 2 and Path(word).name == "hebbstream":
            return " ".join(["hebbstream", *words[at + 1 : at + 3]])
    return ""


def _listening() -> dict[str, tuple[str, bool]]:
    """Read the system's tables of sockets that listen (Linux): inode -> endpoint, whether it goes beyond loopback."""
    found: dict[str, tuple[str, bool]] = {}
    for name, n_words in (("tcp", 1), ("tcp6", 4)):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state != "0A":
                    continue
                host, port = local.split(":")
                raw = b"".join(bytes.fromhex(host[8 * at : 8 * at + 8])[::-1] for at in range(n_words))
                address = ipaddress.ip_address(raw if sys.byteorder == "little" else bytes.fromhex(host))
                shown = f"[{address}]" if address.version == 6 else str(address)
                found[inode] = f"tcp://{shown}:{int(port, 16)}", not address.is_loopback
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            words = line.split()
            if len(words) > 7 and int(words[3], 16) & 0x10000:  # somebody listens
                found[words[6]] = f"ipc://{words[7]}", False
    return found


def _memory() -> Finding:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "note", "this system does not tell how much is free")
    return Finding("memory", "ok" if free > 1 << 30 else "note", f"{free / 2**30:.1f} GiB free")


def _extras() -> Iterator[Finding]:
    for module, extra, why in (
        ("tonic", "datasets", "labelled event datasets"),
        ("aestream", "aestream", "aestream's readers; wheels for Linux x86-64 with Python 3.11 only"),
    ):
        there = importlib.util.find_spec(module) is not None
        text = (
            importlib.metadata.version(module) if there else f"not installed ({why}): pip install hebbstream[{extra}]"
        )
        yield Finding(module, "ok" if there else "note", text)


def _cameras() -> Iterator[Finding]:
    """Tell which camera drivers can be used, and what each of them sees."""
    # by name, as a pipeline file would: this layer knows nothing of sources
    reports = importlib.import_module("sources.camera").list_cameras()
    for report in reports:
        subject = f"driver {report.driver}"
        if not report.version:
            yield Finding(subject, "note", f"{report.fault}; {report.way_out}")
        else:
            yield Finding(subject, "note" if report.fault else "ok", " ".join([report.version, report.fault]).strip())
    found = [camera for report in reports for camera in report.cameras]
    for camera in found:
        name = f"{camera.name} {camera.serial}".strip()
        if camera.fault:
            yield Finding("camera", "fault", f"{name}: {camera.driver} cannot open it: {camera.fault}")
        else:
            yield Finding("camera", "ok", f"{name}, through {camera.driver}: --source camera:{camera.serial}")
    if not found:
        yield Finding("camera", "note", "no driver sees one; files, folders and the simulated camera need none")


def _usb() -> Iterator[Finding]:
    """Look at the USB bus itself: a camera that we may not open is one that drivers do not find."""
    usb = importlib.import_module("sources.camera_usb")
    if sys.platform != "linux":
        return
    if not usb.has_usb():
        text = "this machine shows no USB at all; into a container, pass it with `docker run --device /dev/bus/usb`"
        yield Finding("USB", "note", text)
        return
    cameras = usb.usb_cameras()
    for camera in cameras:
        name = f"{camera.product or camera.maker} ({camera.ids}) at {camera.node}"
        if camera.may_open:
            yield Finding("USB camera", "ok", f"{name}, you may open it")
        else:
            yield Finding("USB camera", "fault", f"{name}, you may not open it: {usb.permission_advice()}")
    if not cameras:
        yield Finding("USB", "note", f"no event camera is plugged in. For when there is one: {usb.permission_advice()}")


def _data() -> Finding:
    value = os.environ.get("HEBBSTREAM_DATA")
    if not value:
        return Finding("HEBBSTREAM_DATA", "note", "not set; only needed for pipelines that read recordings of yours")
    there = Path(value).expanduser().is_dir()
    return Finding("HEBBSTREAM_DATA", "ok" if there else "fault", value if there else f"{value}: no such folder")
