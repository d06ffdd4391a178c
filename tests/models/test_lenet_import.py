import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
sys.modules["keras"] = sys.modules["tensorflow"] = sys.modules["onnx"] = None
import pickle
model = pickle.loads(open(sys.argv[1], "rb").read())
np.save(sys.argv[2], model.predict_proba(np.load(sys.argv[3])))
"""


def test_importing_the_classifier_imports_no_network_package():
    code = (
        "import sys, histcxr.models.lenet, histcxr.models.tuning; "
        "print([m for m in ('keras', 'tensorflow', 'onnx', 'onnxruntime', 'keras_tuner') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_loaded_model_scores_without_keras_tensorflow_or_onnx(tmp_path):
    pytest.importorskip("keras")
    pytest.importorskip("onnxruntime")
    import pickle

    import numpy as np

    from histcxr.models.lenet import LeNetClassifier

    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (40, 1, 64))
    model = LeNetClassifier(filters=(2,), kernel_size=3, dense=(4,), epochs=2, random_state=0)
    model.fit(counts, np.arange(40) % 2)
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "counts.npy", counts)
    arguments = [str(tmp_path / name) for name in ("model", "scores.npy", "counts.npy")]
    subprocess.run([sys.executable, "-c", CODE, *arguments], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), model.predict_proba(counts))
