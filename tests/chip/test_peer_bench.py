"""Other emulators run in whichever Python has them, and what keeps them from running is told."""

import sys

import pytest

from chip.peer_bench import PEERS, seconds_a_step


@pytest.fixture
def python(tmp_path):
    """Return what makes a program that answers as ``peer_bench`` does, in place of a Python."""

    def make(name, answer):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho some words\necho '{answer}'\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_the_first_python_that_has_a_peer_runs_it(python, monkeypatch):
    monkeypatch.setitem(PEERS, "Nobody", lambda *_: 1.0)  # the processes do not know it
    poor = python("poor", '{"seconds": null, "why_not": "no such package"}')
    rich = python("rich", '{"seconds": 0.25, "why_not": ""}')
    monkeypatch.setenv("HEBBSTREAM_PEERS", f"{poor}:/not/there:{rich}:{poor}")
    assert seconds_a_step("Nobody", 2, 10, 3) == (0.25, "")
    monkeypatch.setenv("HEBBSTREAM_PEERS", poor)
    assert seconds_a_step("Nobody", 2, 10, 3) == (None, "no such package")
    monkeypatch.setenv("HEBBSTREAM_PEERS", "")
    seconds, why = seconds_a_step("Nobody", 2, 10, 3)
    assert seconds is None
    assert "KeyError" in why
    monkeypatch.setenv("HEBBSTREAM_PEERS", "/not/there")
    assert "/not/there" in seconds_a_step("Nobody", 2, 10, 3)[1]


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_beside_us(peer):
    seconds, why = seconds_a_step(peer, 2, 10, 3)
    if seconds is None:
        pytest.skip(f"{sys.executable}: {why}")
    assert 0 < seconds < 10
