"""Looking at a run from outside: a Prometheus endpoint, a log of JSON lines, and the board of ``hebbstream top``.

All three show the same *picture*: a dict of plain numbers and words, made from the status of the nodes a few times a
second. Nothing here can slow or fail a run: what cannot be written is left out and said once, at the end.

The board is a file of the user's own, ``hebbstream/PID.json`` in the folder for such things (``XDG_RUNTIME_DIR`` on
Linux), replaced whole each time, gone when the run ends; one of a killed run is known by its process.
"""

import contextlib
import http.server
import json
import os
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import msgspec
import platformdirs

from stream.errors import ConfigError
from stream.host import Status
from stream.pipeline import Pipeline

__all__ = ["Observer", "Picture", "boards", "is_alive", "picture_of", "prometheus_text"]

Picture: TypeAlias = dict[str, Any]

BOARD_PERIOD_S = 0.5
LOG_PERIOD_S = 1.0
MOST_BOARD_BYTES = 1 << 22


def picture_of(pipeline: Pipeline, statuses: Mapping[str, Status], phase: str) -> Picture:
    """Put the status of all nodes together.

    Returns
    -------
    Picture
        ``edges``: sent, delivered, dropped, refused, queue (items under way), latency from the source, us;
        ``nodes``: stream time and how far it lags behind the furthest node's, us, processor time, memory;
        ``members``: their own counts; ``sources``: how each is played; ``graph``: who is joined to whom; ``taps``:
        where outputs can be looked at.
    """
    front_us = max((status.stream_us for status in statuses.values()), default=0)
    edges: dict[str, dict[str, float]] = {edge.name: {} for edge in pipeline.edge}
    for status in statuses.values():
        for end in status.edges:
            row = edges.setdefault(end.name, {})
            counts = {
                "sent": end.counts.sent_items,
                "delivered": end.counts.delivered_items,
                "dropped": end.counts.dropped_items,
                "refused": end.counts.refused_messages,
                "waiting_messages": end.counts.waiting_messages,
            }
            for name, value in counts.items():
                row[name] = max(row.get(name, 0), value)
            if end.latency.count:
                row |= {"p50_us": end.latency.p50_us, "p99_us": end.latency.p99_us, "p999_us": end.latency.p999_us}
    for row in edges.values():
        # the two ends tell at different moments: a difference below zero says nothing
        row["queue"] = max(0, row.get("sent", 0) - row.get("delivered", 0) - row.get("dropped", 0))
    return {
        "pipeline": pipeline.name,
        "pid": os.getpid(),
        "phase": phase,
        "time_s": time.time(),
        "stream_us": front_us,
        "edges": [{"edge": name, **row} for name, row in edges.items()],
        "nodes": [
            {
                "node": name,
                "stream_us": status.stream_us,
                "lag_us": front_us - status.stream_us,
                "cpu_s": status.cpu_s,
                "memory_bytes": status.memory_bytes,
                "done": status.done,
            }
            for name, status in statuses.items()
        ],
        "members": {name: counts for status in statuses.values() for name, counts in status.members.items()},
        "sources": {
            name: msgspec.to_builtins(state) for status in statuses.values() for name, state in status.sources.items()
        },
        "graph": {
            "members": [{"name": it.name, "kind": it.kind, "node": it.node or it.name} for it in pipeline.members],
            "edges": [{"from": it.source, "to": it.target, "delivery": it.delivery} for it in pipeline.edge],
        },
        "taps": {"listed": {it.source: it.endpoint for it in pipeline.tap}, "folder": pipeline.taps or ""},
    }


_EDGE_METRICS = {
    "sent": ("hebbstream_edge_sent_items_total", "counter", "Items put on an edge."),
    "delivered": ("hebbstream_edge_delivered_items_total", "counter", "Items that the far end is done with."),
    "dropped": ("hebbstream_edge_dropped_items_total", "counter", "Items dropped by a live edge."),
    "refused": ("hebbstream_edge_refused_messages_total", "counter", "Messages from peers that are not ours."),
    "queue": ("hebbstream_edge_queue_items", "gauge", "Items under way."),
}
_NODE_METRICS = {
    "stream_us": ("hebbstream_node_stream_seconds", "gauge", "Stream time reached.", 1e-6),
    "lag_us": ("hebbstream_node_lag_seconds", "gauge", "Stream time behind the furthest node.", 1e-6),
    "cpu_s": ("hebbstream_node_cpu_seconds_total", "counter", "Processor time.", 1.0),
    "memory_bytes": ("hebbstream_node_memory_bytes", "gauge", "Resident memory.", 1.0),
}


def prometheus_text(picture: Picture) -> str:
    """Write a picture in Prometheus' text format, version 0.0.4."""
    lines: list[str] = []

    def family(name: str, kind: str, words: str, rows: list[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP {name} {words}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in rows:
            inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{inside}}} {float(value)!r}")

    for key, (name, kind, words) in _EDGE_METRICS.items():
        family(name, kind, words, [({"edge": row["edge"]}, row.get(key, 0)) for row in picture["edges"]])
    quantiles = {"p50_us": "0.5", "p99_us": "0.99", "p999_us": "0.999"}
    rows = [
        ({"edge": row["edge"], "quantile": q}, row[key] / 1e6)
        for row in picture["edges"]
        for key, q in quantiles.items()
        if key in row
    ]
    family("hebbstream_edge_latency_seconds", "gauge", "From the source to the far end of an edge.", rows)
    for key, (name, kind, words, factor) in _NODE_METRICS.items():
        family(name, kind, words, [({"node": row["node"]}, row[key] * factor) for row in picture["nodes"]])
    counts = [
        ({"member": member, "count": name}, value)
        for member, found in picture["members"].items()
        for name, value in found.items()
    ]
    family("hebbstream_member_count", "gauge", "What a member counts; see its documentation.", counts)
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Observer:
    """Show a run to the outside; an ``OnStatus`` for ``stream.run.run``, and a context.

    Parameters
    ----------
    pipeline
        What runs.
    metrics
        Port on the loopback address for Prometheus (``/metrics``, and ``/status.json``); 0 takes a free one, see
        :attr:`address`; None: none.
    log
        File to which a JSON line a second is appended; None: none.
    board
        Let ``hebbstream top`` see it.

    Raises
    ------
    ConfigError
        If the port is taken or the log cannot be written.
    """

    def __init__(
        self, pipeline: Pipeline, *, metrics: int | None = None, log: Path | None = None, board: bool = True
    ) -> None:
        self.pipeline = pipeline
        self.picture: Picture = picture_of(pipeline, {}, "starting")
        self.address = ""
        self.names: dict[str, int] = {}  # classes that a person has named
        self.fault = ""
        self._server: http.server.ThreadingHTTPServer | None = None
        self._log: IO[str] | None = None
        self._board = _board_folder() / f"{os.getpid()}.json" if board else None
        self._next_board_s = self._next_log_s = 0.0
        if log is not None:
            try:
                log.expanduser().parent.mkdir(parents=True, exist_ok=True)
                self._log = log.expanduser().open("a", encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"log {log}: cannot be written: {error.strerror}; choose another path") from None
        if metrics is not None:
            try:
                self._server = self._serve(metrics)
            except (OSError, OverflowError) as error:
                self.close()
                raise ConfigError(f"--metrics {metrics}: cannot listen there: {error}; choose a free port") from None
            self.address = f"http://127.0.0.1:{self._server.server_address[1]}/metrics"

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, statuses: dict[str, Status], phase: str) -> None:
        """Take in the latest status of all nodes."""
        now = time.monotonic()
        if now < min(self._next_board_s, self._next_log_s):
            return
        self.picture = picture_of(self.pipeline, statuses, phase) | {"names": dict(self.names)}
        if now >= self._next_board_s:
            self._next_board_s = now + BOARD_PERIOD_S
            self._post()
        if now >= self._next_log_s:
            self._next_log_s = now + LOG_PERIOD_S
            self.write({"event": "status", **self.picture})

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to the log, if there is one."""
        if self._log is not None:
            with self._excused("log"):
                self._log.write(json.dumps({"time_s": time.time(), **line}, allow_nan=False, default=str) + "\n")
                self._log.flush()

    def close(self) -> None:
        """Take the board away and stop listening. Idempotent."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.unlink(missing_ok=True)

    def _post(self) -> None:
        if self._board is None:
            return
        with self._excused("board"):
            self._board.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._board.parent.lstat().st_uid != os.getuid():
                raise OSError(f"{self._board.parent} belongs to another user")
            side = self._board.with_suffix(".part")
            side.write_text(json.dumps(self.picture, default=str), encoding="utf-8")
            side.chmod(0o600)
            side.replace(self._board)

    @contextlib.contextmanager
    def _excused(self, what: str) -> Any:
        try:
            yield
        except (OSError, ValueError) as error:  # a full disk must not end a run
            self.fault = f"{what}: {error}"

    def _serve(self, port: int) -> http.server.ThreadingHTTPServer:
        observer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5  # a peer that sends no request

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    kind, text = "text/plain; version=0.0.4; charset=utf-8", prometheus_text(observer.picture)
                elif self.path == "/status.json":
                    kind, text = "application/json", json.dumps(observer.picture, default=str)
                else:
                    self.send_error(404)
                    return
                body = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the terminal belongs to the run."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: a scanner's rubbish is no fault of ours."""

        server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return server


def boards(folder: Path | None = None) -> list[Picture]:
    """Return the pictures of the runs of this user, the latest first; those of dead processes are cleared away."""
    found: list[Picture] = []
    for path in sorted((folder or _board_folder()).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.stem)
            if not is_alive(pid):
                path.unlink()
                continue
            if path.stat().st_size <= MOST_BOARD_BYTES:
                found.append(json.loads(path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda picture: -float(picture.get("time_s", 0)))


def _board_folder() -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the system has no such folder and another is taken is no news
        return Path(platformdirs.user_runtime_dir("hebbstream"))


def is_alive(pid: int) -> bool:
    """Tell whether a process of that number is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
