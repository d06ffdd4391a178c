"""On a real scheduler with worker processes of their own: the same results, whatever happens to a worker."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from histcxr.commands import main
from histcxr.data import cluster
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrWarning, InputError, OutputError
from histcxr.features.extraction import extract_features
from histcxr.files.budget import Budget
from histcxr.lungs.folder import segment_folder
from histcxr.phantoms.broken_files import write_broken_files
from histcxr.study.train import train
from histcxr.worklist.engine import triage

distributed = pytest.importorskip("distributed")

CHANGING = ("time", "started", "ended")


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    """Good radiographs, and files that cannot be judged."""
    place = Path(shutil.copytree(study, tmp_path_factory.mktemp("cluster") / "in"))
    write_broken_files(place / "broken")
    return place


@pytest.fixture(scope="module")
def here(folder, model, tmp_path_factory):
    """The worklist of a run without a cluster."""
    place = tmp_path_factory.mktemp("here") / "w.csv"
    assert triage(folder, model, place, batch_size=8).total > 40
    return place


def lines(worklist):
    """The audit trail of a run, without its times."""
    with open(f"{worklist}.audit.jsonl") as file:
        return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in file]


def test_rows_are_those_of_threads(client, folder, here, model, tmp_path):
    triage(folder, model, tmp_path / "there.csv", batch_size=8, client=client)
    assert (tmp_path / "there.csv").read_bytes() == here.read_bytes()
    kept = ("file", "sha256", "mask_sha256", "stat", "decision", "score", "reason", "detail")
    trails = [
        [[row.get(name) for name in kept] for row in lines(worklist) if "decision" in row]
        for worklist in (here, tmp_path / "there.csv")
    ]
    assert trails[0] == trails[1]


def test_lungs_are_found_there(client, folder, model, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("image\n" + "\n".join(map(str, sorted((folder / "a").glob("*.png")))) + "\n")
    triage(listed, model, tmp_path / "here.csv")
    triage(listed, model, tmp_path / "there.csv", client=client)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_a_killed_worker_costs_its_blocks_once_more(client, folder, here, model, tmp_path):
    alive = list(client.run(os.getpid).values())

    def kill(done):
        if alive and done % 16 == 0:
            os.kill(alive.pop(), signal.SIGKILL)

    summary = triage(folder, model, tmp_path / "there.csv", batch_size=8, client=client, progress=kill)
    client.wait_for_workers(2, timeout=60)
    assert not alive
    assert summary.total == len((tmp_path / "there.csv").read_text().splitlines()) - 1
    assert (tmp_path / "there.csv").read_bytes() == here.read_bytes()


def test_a_run_that_was_stopped_goes_on_anywhere(client, folder, here, model, tmp_path):
    def stop(done):
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triage(folder, model, tmp_path / "w.csv", batch_size=8, client=client, progress=stop)
    summary = triage(folder, model, tmp_path / "w.csv", batch_size=8)
    assert summary.resumed >= 16
    assert (tmp_path / "w.csv").read_bytes() == here.read_bytes()


def test_few_blocks_are_in_flight(client, folder, model, tmp_path, monkeypatch):
    flying, most, real = set(), [], cluster.Cluster.submit

    def counted(self, files, **options):
        wait = real(self, files, **options)
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


def test_other_limits_on_files_are_refused(client, folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "BUDGET", Budget(seconds=1))
    with pytest.raises(InputError, match="other limits on files"):
        triage(folder, model, tmp_path / "w.csv", client=client)


class Told:
    """A job made of source, since workers do not know this file."""

    def __init__(self, source):
        self.source = source

    def __reduce__(self):
        return eval, (self.source,)

    def lost(self, item):
        return f"lost {item}"


def test_what_workers_warn_of_is_said_once(client):
    job = Told("lambda items, careful: [__import__('warnings').warn(one) or one for one in items]")
    with cluster.Cluster(client, job) as there, pytest.warns(HistcxrWarning) as said:
        assert list(there.in_order([["a", "b"], ["a", "c"], []])) == [["a", "b"], ["a", "c"], []]
    assert [str(one.message) for one in said] == [f"on a worker: UserWarning: {one}" for one in "abc"]


def test_errors_of_the_job_come_as_they_are(client):
    with (
        cluster.Cluster(client, Told("lambda items, careful: 1 / 0")) as there,
        pytest.raises(ZeroDivisionError),
    ):
        there.submit(["a"])()
    forgotten = client.run(lambda dask_worker: [one for one in dask_worker.plugins if "histcxr" in one])
    assert list(forgotten.values()) == [[], []]


def test_a_job_that_was_changed_on_its_way_is_refused(client, monkeypatch):
    monkeypatch.setattr(cluster, "_digest", lambda content: "0")
    with pytest.raises(InputError, match="what came is not what was sent"):
        cluster.Cluster(client, Told("len"))


def test_without_workers_it_does_not_wait_for_ever(monkeypatch):
    """A scheduler that stands, all of whose workers are gone."""
    monkeypatch.setattr(cluster, "_LOOK", 0.1)
    monkeypatch.setattr(cluster, "_PATIENCE", 0.3)
    how = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**how) as here, distributed.Client(here, set_as_default=False) as client:
        there = cluster.Cluster(client, Told("lambda items, careful: items"))
        assert there.submit(["a"])() == ["a"]
        here.scale(0)
        while client.nthreads():
            pass
        with pytest.raises(OutputError, match=r"no worker for 0 seconds.*the same command goes on"):
            there.submit(["a"])()


def manifest_of(folder):
    """Good and broken files, with masks and without."""
    files = sorted(str(one) for one in folder.rglob("*.png") if "masks" not in one.parts)
    masks = [one.replace("/a/", "/masks/a/") if "/a/" in one else "" for one in files]
    return pd.DataFrame({"image": files, "mask": masks})


def test_counts_are_those_of_threads(client, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("histcxr.features.extraction._CHUNK", 4)
    manifest, how = manifest_of(folder), {"zones": "1+6", "bands": "travel", "lungs": "either"}
    here = extract_features(manifest, **how)
    alive, kept = [min(client.run(os.getpid).values())], tmp_path / "kept"

    def kill(*_):
        if alive:
            os.kill(alive.pop(), signal.SIGKILL)

    for progress in (kill, False):  # counted there; then known there
        there = extract_features(manifest, **how, client=client, cache=kept, progress=progress)
        np.testing.assert_array_equal(there.counts, here.counts)
        np.testing.assert_array_equal(there.fingerprints, here.fingerprints)
        pd.testing.assert_frame_equal(there.table, here.table)
    assert not alive
    assert here.usable.any()
    assert not here.usable.all()


def test_masks_are_those_of_threads(client, folder, tmp_path):
    here = segment_folder(folder, tmp_path / "here")
    there = segment_folder(folder, tmp_path / "there", client=client)
    assert there.reasons == here.reasons
    for file in (one for one in (tmp_path / "here").rglob("*") if one.is_file()):
        assert (tmp_path / "there" / file.relative_to(tmp_path / "here")).read_bytes() == file.read_bytes()


@pytest.mark.filterwarnings("ignore:knn. 1 of 2 trials failed")
def test_a_training_there_has_the_same_figures(client, phantoms):
    manifest = read_manifest(phantoms.study(n_patients=60), require_labels=True)
    how = {"classifiers": "knn", "zones": 1, "trials": 1, "seed": 3}
    here, there = (train(manifest, **how, client=one) for one in (None, client))
    for name, model in here.models.items():
        assert there.models[name].metrics == model.metrics
        assert there.trials[name].drop(columns="seconds").equals(here.trials[name].drop(columns="seconds"))
    assert there.best.rule_out == here.best.rule_out


def test_a_lost_cluster_keeps_what_was_judged(folder, model, tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):

        def lose(done):
            here.close()

        with pytest.raises(OutputError, match="what was written is kept"):
            triage(folder, model, tmp_path / "w.csv", batch_size=2, client=client, progress=lose)
    assert triage(folder, model, tmp_path / "w.csv", batch_size=2).resumed >= 2


@pytest.mark.parametrize("words", ["triage -o w.csv", "extract -o counts.npz", "segment -o lungs"])
def test_commands_go_to_the_scheduler(client, folder, tmp_path, saved_model, words):
    command, *options = words.replace("-o ", f"-o {tmp_path}/").split()
    options += ["-m", str(saved_model)] if command == "triage" else []
    there = ["--scheduler", client.scheduler.address]
    found = CliRunner().invoke(main, [command, str(folder), *options, *there])
    assert found.exit_code == 3, found.output
    assert (tmp_path / words.split()[-1]).exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1"])
def test_no_scheduler_is_a_sentence(address):
    with pytest.raises(InputError, match="must be the address of a running Dask scheduler"):
        cluster.connect(address, timeout=0.5)
