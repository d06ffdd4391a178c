"""Triage on a real scheduler with worker processes of their own: the same rows, whatever happens to a worker."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.exceptions import InputError, OutputError
from histcxr.phantoms.broken_files import write_broken_files
from histcxr.worklist import cluster
from histcxr.worklist.engine import triage

distributed = pytest.importorskip("distributed")

CHANGING = ("time", "started", "ended")


@pytest.fixture(scope="module")
def client():
    """Two worker processes that may be killed: a nanny starts them anew."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    """Good radiographs, and files that cannot be judged."""
    place = Path(shutil.copytree(study, tmp_path_factory.mktemp("cluster") / "in"))
    write_broken_files(place / "broken")
    return place


def lines(worklist):
    """The audit trail of a run, without its times."""
    with open(f"{worklist}.audit.jsonl") as file:
        return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in file]


def test_rows_are_those_of_threads(client, folder, model, tmp_path):
    here = triage(folder, model, tmp_path / "here.csv", batch_size=8)
    there = triage(folder, model, tmp_path / "there.csv", batch_size=8, client=client)
    assert there.total == here.total > 40
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    kept = ("file", "sha256", "mask_sha256", "stat", "decision", "score", "reason", "detail")
    trails = [
        [[row.get(name) for name in kept] for row in lines(tmp_path / name) if "decision" in row]
        for name in ("here.csv", "there.csv")
    ]
    assert trails[0] == trails[1]


def test_lungs_are_found_there(client, folder, model, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("image\n" + "\n".join(map(str, sorted((folder / "a").glob("*.png")))) + "\n")
    triage(listed, model, tmp_path / "here.csv")
    triage(listed, model, tmp_path / "there.csv", client=client)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_a_killed_worker_costs_its_blocks_once_more(client, folder, model, tmp_path):
    triage(folder, model, tmp_path / "here.csv", batch_size=4)
    alive = list(client.run(os.getpid).values())

    def kill(done):
        if alive and done % 12 == 0:
            os.kill(alive.pop(), signal.SIGKILL)

    summary = triage(folder, model, tmp_path / "there.csv", batch_size=4, client=client, progress=kill)
    client.wait_for_workers(2, timeout=60)
    assert not alive
    assert summary.total == len((tmp_path / "there.csv").read_text().splitlines()) - 1
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_a_run_that_was_stopped_goes_on_anywhere(client, folder, model, tmp_path):
    def stop(done):
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triage(folder, model, tmp_path / "w.csv", batch_size=8, client=client, progress=stop)
    summary = triage(folder, model, tmp_path / "w.csv", batch_size=8)
    triage(folder, model, tmp_path / "here.csv", batch_size=8)
    assert summary.resumed >= 16
    assert (tmp_path / "w.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_few_blocks_are_in_flight(client, folder, model, tmp_path, monkeypatch):
    flying, most, real = set(), [], cluster.Cluster.submit

    def counted(self, files):
        wait = real(self, files)
        flying.add(wait)
        most.append(len(flying))

        def landed():
            flying.discard(wait)
            return wait()

        return landed

    monkeypatch.setattr(cluster.Cluster, "submit", counted)
    triage(folder, model, tmp_path / "w.csv", batch_size=2, client=client)
    assert 1 < max(most) <= 2 * 2 + 1


def test_another_version_is_refused(client, folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(InputError, match=r"the driver 0\.0\.1"):
        triage(folder, model, tmp_path / "w.csv", client=client)


def test_a_lost_cluster_keeps_what_was_judged(folder, model, tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):

        def lose(done):
            here.close()

        with pytest.raises(OutputError, match="what was judged is kept"):
            triage(folder, model, tmp_path / "w.csv", batch_size=2, client=client, progress=lose)
    assert triage(folder, model, tmp_path / "w.csv", batch_size=2).resumed >= 2


def test_the_command_goes_to_the_scheduler(client, folder, tmp_path, saved_model):
    arguments = ["triage", str(folder), "-m", str(saved_model), "-o", str(tmp_path / "w.csv")]
    found = CliRunner().invoke(main, [*arguments, "--scheduler", client.scheduler.address])
    assert found.exit_code == 3, found.output
    assert len((tmp_path / "w.csv").read_text().splitlines()) > 40


def test_no_scheduler_is_a_sentence(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="must be the address of a running Dask scheduler"):
        cluster.connect("tcp://127.0.0.1:1", timeout=0.5)
