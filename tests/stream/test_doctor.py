"""What the doctor says of cameras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sources import camera, camera_usb
from sources.camera import DriverReport
from sources.camera_driver import FoundCamera
from stream import doctor
from stream.doctor import Finding, examine


def findings_of(word: str) -> list[Finding]:
    return [finding for finding in (*doctor._cameras(), *doctor._usb()) if finding.subject.startswith(word)]


def test_the_drivers_of_this_machine_are_looked_at() -> None:
    subjects = [finding.subject for finding in examine()]
    for name in ("neuromorphic_drivers", "dv_processing", "openeb", "aestream"):
        assert f"driver {name}" in subjects


def test_what_is_found_and_what_is_missing_comes_with_its_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [
        DriverReport("one", "1.2", "", "get one", [FoundCamera("one", "EVK4", "0005", "")]),
        DriverReport("two", "", "not installed", "get two", []),
        DriverReport("three", "3.0", "cannot look", "get three", [FoundCamera("three", "DAVIS", "", "Access denied")]),
    ]
    monkeypatch.setattr(camera, "list_cameras", lambda: reports)
    assert [(finding.state, finding.text) for finding in findings_of("driver")] == [
        ("ok", "1.2"),
        ("note", "not installed; get two"),
        ("note", "3.0 cannot look"),
    ]
    assert [(finding.state, finding.text) for finding in findings_of("camera")] == [
        ("ok", "EVK4 0005, through one: --source camera:0005"),
        ("fault", "DAVIS: three cannot open it: Access denied"),
    ]


def test_a_camera_that_may_not_be_opened_is_a_fault_with_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged = [
        camera_usb.UsbCamera("Prophesee", "EVK4", "04b4:00f5", "/dev/bus/usb/002/011", False),
        camera_usb.UsbCamera("iniVation", "", "152a:8419", "/dev/bus/usb/001/005", True),
    ]
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(camera_usb, "has_usb", lambda: True)
    monkeypatch.setattr(camera_usb, "usb_cameras", lambda: plugged)
    closed, opened = findings_of("USB camera")
    assert closed.state == "fault"
    assert closed.text.startswith("EVK4 (04b4:00f5) at /dev/bus/usb/002/011, you may not open it: write the lines")
    assert camera_usb.udev_rules() in closed.text
    assert opened == Finding("USB camera", "ok", "iniVation (152a:8419) at /dev/bus/usb/001/005, you may open it")


def test_without_a_camera_the_rule_is_told_for_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(camera_usb, "has_usb", lambda: True)
    monkeypatch.setattr(camera_usb, "usb_cameras", list)
    (finding,) = findings_of("USB")
    assert finding.state == "note"
    assert camera_usb.RULES_FILE in finding.text
    assert 'idVendor}=="152a"' in finding.text


def test_a_machine_without_usb_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(camera_usb, "has_usb", lambda: False)
    (finding,) = findings_of("USB")
    assert "docker run --device /dev/bus/usb" in finding.text


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are read from /proc")
@pytest.mark.parametrize(("host", "words"), [("127.0.0.1", "for this machine alone"), ("0.0.0.0", "give it keys")])
def test_where_a_node_listens_is_told(toys: list[str], host: str, words: str) -> None:
    command = [sys.executable, "-P", "-m", "stream", "node", "toy_members.Relay", "--plugin", "toy_members"]
    command += ["--in", f"tcp://{host}:*", "--insecure"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        endpoint = process.stderr.readline().split()[-1]
        assert endpoint.startswith(f"tcp://{host}:")
        told = [finding.text for finding in doctor._endpoints() if f"process {process.pid} " in finding.text]
        assert len(told) == 1
        assert f"(hebbstream node toy_members.Relay) listens at {endpoint}" in told[0]
        assert words in told[0]
    finally:
        process.kill()
        process.communicate()
    assert not [finding for finding in doctor._endpoints() if f"process {process.pid} " in finding.text]


def test_a_descriptor_closed_while_we_look_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "3").symlink_to("socket:[17]")
    (tmp_path / "4").touch()
    (tmp_path / "5").symlink_to("socket:[18]")
    readlink = os.readlink

    def closed(path: Path) -> str:
        if path.name == "4":
            raise FileNotFoundError(path)
        return readlink(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readlink", closed)
        assert doctor._links(tmp_path) == {"socket:[17]", "socket:[18]"}
