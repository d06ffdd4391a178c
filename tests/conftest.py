"""What the tests of several rooms share."""

import numpy as np
import pytest
from hypothesis import settings

from benchmarks.loopback import Proxy, environment, fill, s3_server
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.studies import write_study

# on a busy machine one example may take long
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class Phantoms:
    """Made-up radiographs and small studies on disk. Each is made once a run, so nobody may change it."""

    def __init__(self, folder):
        self._folder, self._made = folder, {}

    def __call__(self, seed=0, **options):
        """Return the phantom of a seed; options as :func:`make_phantom`, the arrays cannot be written to."""
        key = ("phantom", seed, *sorted(options.items()))
        if key not in self._made:
            phantom = make_phantom(seed, **options)
            phantom.image.setflags(write=False)
            phantom.mask.setflags(write=False)
            self._made[key] = phantom
        return self._made[key]

    def several(self, n, first=0, **options):
        """Return ``n`` phantoms of following seeds, every other one sick."""
        return [self(first + i, sick=i % 2 == 1, **options) for i in range(n)]

    def study(self, **options):
        """Return the folder of a small study; options as :func:`write_study`. Copy it before you change it."""
        options = {"n_patients": 20, "size": (96, 96), "mask_size": (112, 112), **options}
        key = ("study", *sorted(options.items()))
        if key not in self._made:
            self._made[key] = write_study(self._folder / str(len(self._made)), **options)
        return self._made[key]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    return Phantoms(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def client():
    """Of a real Dask scheduler with two worker processes that may be killed: a nanny starts them anew."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "5 minutes"}),  # a busy machine is slow
        distributed.LocalCluster(**how) as here,
        distributed.Client(here, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def network():
    """A tiny network that sees whole phantoms, trained in seconds; both thresholds certified, modestly."""
    pytest.importorskip("keras")
    from histcxr.decision.thresholds import certify
    from histcxr.reference.classifier import ReferenceClassifier
    from histcxr.reference.images import InputSettings
    from histcxr.reference.small_networks import ConvOptions
    from histcxr.store import ReferenceModel

    sick, inputs = np.arange(40) % 2, InputSettings(32, "full")
    phantoms = [make_phantom(seed, sick=bool(one)) for seed, one in enumerate(sick)]
    pixels = np.stack([inputs.prepare(phantom.image, None) for phantom in phantoms])
    classifier = ReferenceClassifier(
        "cnn3", inputs=inputs, epochs=2, validation_fraction=0.0, options=ConvOptions(filters=(4, 8))
    ).fit(pixels, sick)
    scores = classifier.predict_proba(pixels)[:, 1]
    chosen = certify(scores, sick == 1, None, sensitivity=0.5, specificity=0.5, confidence=0.5)
    return ReferenceModel(classifier, ("normal", "sick"), "Normal", *chosen, training={"seconds": 1.5})


class Store:
    """S3 on this machine: buckets to fill, behind a proxy that fails as it is told."""

    def __init__(self, port, proxy):
        self.port, self.proxy = port, proxy

    def fill(self, bucket, folder, prefix=""):
        """Put a folder's files into a bucket, and return the URL."""
        fill(self.port, bucket, folder, prefix)
        return f"s3://{bucket}/{prefix}".rstrip("/")

    def failing(self, **how):
        """Let the proxy fail, see :class:`benchmarks.loopback.Proxy`, and return it."""
        self.proxy.set(**how)
        return self.proxy


@pytest.fixture(scope="session")
def s3_store():
    from histcxr.files import remote

    for name in ("s3fs", "moto", "flask", "flask_cors"):
        pytest.importorskip(name, reason=f"{name} is not installed, so there is no S3 to test with")
    with s3_server() as port, Proxy(port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(proxy.port).items():
            patch.setenv(name, value)
        yield Store(port, proxy)
    remote._system.cache_clear()


@pytest.fixture
def s3(s3_store, monkeypatch):
    from histcxr.files import remote

    monkeypatch.setattr(remote, "_WAITS", (0.01, 0.05))
    yield s3_store
    s3_store.failing()
