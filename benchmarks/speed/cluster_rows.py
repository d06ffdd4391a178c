"""Does a million rows cost what five thousand cost, each, on one machine and on a cluster? Memory, rate, wire.

Radiographs of 64 pixels with lung masks (phantoms, or those of ``--data``) are repeated by link under many names. Each
triage runs in a process of its own, by the threads of this machine (``here``), by a Dask LocalCluster of ``--jobs``
worker processes (``cluster``), or by one of whose workers is killed at a third and at two thirds of the rows
(``killed``). All worklists of a length must be equal, byte for byte.

    python -m benchmarks.speed.cluster_rows --rows 5000 50000 --json rows.json

With ``--scratch FOLDER`` nothing is removed: the same command goes on where it was stopped, and what was measured
stands in ``FOLDER/*.json``; while a run lasts, a line for each twentieth of it stands in ``FOLDER/*.progress``.

All figures of a row are from the first twentieth of a run to its end, so that what every run costs once (models,
networks) is apart. Processor time is that of the driver's process alone: with a cluster, what is left to the driver.
The wire's bytes are those of the driver's own TCP connections, as the kernel counts them (Linux). The rate is compared
by processor time, which other work on the machine disturbs less than the clock.

Prints a Markdown table. Exit status 1: worklists differ, the longest takes more than 1.2 times the memory of the
shortest or over a tenth more time a row; else 0.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import signal
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common import last_line, make_parser, peak_bytes, publish, run, start, write_json
from benchmarks.speed.triage_memory import FILES, make_folder, phantom_model, source_pairs
from histcxr.exceptions import HistcxrError
from histcxr.phantoms.studies import write_study
from histcxr.reports.tables import markdown_table

WAYS: Final = ("here", "cluster", "killed")
MEMORY, TIME = 1.2, 1.1  # limits: of the shortest worklist's figures
PARTS = 20  # at which a run notes how far it is
_TCP_INFO_BYTES: Final = 120  # where Linux's struct tcp_info has bytes_acked and bytes_received, 64 bits each
RUN = "import sys; from benchmarks.speed.cluster_rows import drive; drive(*sys.argv[1:])"


def wire_bytes() -> tuple[int, int]:
    """Return the bytes that the open TCP connections of this process have sent and received."""
    sent = received = 0
    for name in os.listdir("/proc/self/fd"):
        if not stat.S_ISSOCK(_mode(int(name))):
            continue
        with socket.socket(fileno=os.dup(int(name))) as one:
            if one.type == socket.SOCK_STREAM and one.family in (socket.AF_INET, socket.AF_INET6):
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                acked, got = struct.unpack_from("QQ", info, _TCP_INFO_BYTES)
                sent, received = sent + acked, received + got
    return sent, received


def _mode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mode
    except OSError:  # that of the listing itself, closed again
        return 0


def drive(folder: str, model: str, output: str, rows: str, jobs: str, scheduler: str, kills: str) -> None:
    """Triage in this process and print the figures; by the workers of a scheduler, if one is given."""
    from histcxr.worklist.engine import triage

    total, marks, deadly = int(rows), list[dict[str, float]](), [int(one) for one in kills.split(",") if one]
    client: Any = None
    if scheduler:
        from histcxr.data.cluster import connect

        client = connect(scheduler)
    began, log = time.monotonic(), Path(f"{output}.progress")

    def note(done: int) -> None:
        while deadly and done >= deadly[0]:
            deadly.pop(0)
            victim = min(client.run(os.getpid).values())
            os.kill(victim, signal.SIGKILL)
        if done * PARTS >= total * (len(marks) + 1):
            mark(done)

    def mark(done: int) -> None:
        sent, received = wire_bytes()
        now = {"seconds": time.monotonic() - began, "processor": time.process_time(), "peak": peak_bytes()}
        marks.append({"rows": done, **now, "sent": sent, "received": received})
        with log.open("a") as file:
            file.write(json.dumps(marks[-1]) + "\n")

    summary = triage(folder, model, output, n_jobs=int(jobs), client=client, progress=note)
    mark(summary.total)
    first, last = marks[0], marks[-1]
    each = {
        name: (last[name] - first[name]) / max(1, total - first["rows"])
        for name in ("seconds", "processor", "sent", "received")
    }
    figures = {
        "total": summary.total,
        "resumed": summary.resumed,
        "seconds": summary.seconds,
        "rate": 1 / each["seconds"],
        "processor_ms": 1000 * each["processor"],
        "peak_bytes": peak_bytes(),
        "sent": each["sent"],
        "received": each["received"],
        "sent_once": first["sent"],
        "not_killed": len(deadly),
        "marks": marks,
    }
    print(json.dumps(figures))
    if client is not None:
        client.close()


@contextlib.contextmanager
def scheduler_for(way: str, workers: int) -> Iterator[str]:
    """Start the workers of a way, and give the address of their scheduler; "" for this machine's threads."""
    if way == "here":
        yield ""
        return
    import dask
    from distributed import LocalCluster

    options: Any = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    # A killed worker has so long to come back before a LocalCluster gives it up: busy machines need more than 15 s.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "5 minutes"})
    with patience, LocalCluster(processes=True, **options) as cluster:
        yield cluster.scheduler_address


def measure(scratch: Path, folder: Path, model: Path, rows: int, way: str, options: Any) -> dict[str, Any]:
    """Triage a folder one way, or take the figures that an earlier command left."""
    output = scratch / f"worklist{rows}-{way}.csv"
    kept = Path(f"{output}.json")
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    kills = f"{rows // 3},{2 * rows // 3}" if way == "killed" else ""
    with scheduler_for(way, options.jobs) as address:
        done = start(["-c", RUN, folder, model, output, rows, options.jobs, address, kills])
    if done.returncode:
        raise HistcxrError(f"a triage of {folder} failed: {last_line(done.stderr)}")
    found = {"rows": rows, "way": way, **json.loads(done.stdout.strip().rpartition("\n")[2])}
    if found["total"] != rows or found["not_killed"]:
        raise HistcxrError(f"{rows} inputs gave {found['total']} rows, {found['not_killed']} kills are left")
    write_json(found, kept)
    return found


def growth(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Compare the longest worklist of each way with its shortest: memory, and processor time a row."""
    found = {}
    for way in WAYS:
        own = sorted((one for one in results if one["way"] == way), key=lambda one: one["rows"])
        if len(own) > 1:
            names = {"memory": "peak_bytes", "time": "processor_ms"}
            found[way] = {name: own[-1][key] / own[0][key] for name, key in names.items()}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say by the exit status whether rows cost what they should."""
    parser = make_parser(__doc__, seed=False)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50_000])
    parser.add_argument("--data", type=Path, help="a folder of radiographs with masks, instead of phantoms")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--scratch", type=Path, help="keep everything here, and go on from what is there")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        model, phantoms = scratch / "model", scratch / "phantoms"
        if not model.exists():
            phantom_model(scratch)
        if options.data is None and not phantoms.exists():
            write_study(phantoms, n_patients=FILES, size=(64, 64), mask_size=(64, 64))
        pairs = source_pairs((options.data or phantoms).resolve())
        results, equal = [], True
        for rows in sorted(options.rows):
            folder, whole = scratch / f"rows{rows}", scratch / f"rows{rows}.made"
            if not whole.exists():
                make_folder(folder, pairs, rows)
                whole.touch()
            for way in options.ways:
                results.append(measure(scratch, folder, model, rows, way, options))
            first, *others = (scratch / f"worklist{rows}-{way}.csv" for way in options.ways)
            equal = equal and all(filecmp.cmp(first, other, shallow=False) for other in others)
    table = [
        {
            "rows": f"{one['rows']:,}",
            "by": one["way"],
            "wall seconds": f"{one['seconds']:.0f}",
            "rows a second": f"{one['rate']:.0f}",
            "driver's processor ms a row": f"{one['processor_ms']:.3f}",
            "driver's peak memory": f"{one['peak_bytes'] / 2**20:.0f} MiB",
            "bytes sent, received a row": f"{one['sent']:.0f}, {one['received']:.0f}" if one["sent"] else "",
            "sent once": f"{one['sent_once'] / 2**20:.1f} MiB" if one["sent"] else "",
            "taken over": f"{one['resumed']:,}",
        }
        for one in results
    ]
    grown = growth(results)
    worse = {
        way: ratios for way, ratios in grown.items() if ratios["memory"] > MEMORY or ratios["time"] > TIME
    }
    lines = [
        f"{way}: the longest takes {ratios['memory']:.3f} of the shortest's memory (limit {MEMORY}) and "
        f"{ratios['time']:.3f} of its processor time a row (limit {TIME})."
        for way, ratios in grown.items()
    ]
    lines.append(f"Worklists of one length are {'equal' if equal else 'NOT equal'}, byte for byte.")
    content = {"equal": equal, "growth": grown, "runs": results}
    publish("\n".join([markdown_table(table), "", *lines]), content, options.json)
    return int(bool(worse) or not equal)


if __name__ == "__main__":
    run(main)
