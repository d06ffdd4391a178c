import numpy as np
import pytest

from histcxr.exceptions import InputError, ModelError
from histcxr.models.lenet_network import LeNetGraph, build_lenet, run_session, write_onnx
from histcxr.networks.fit import get_weights, set_weights
from histcxr.networks.onnx_model import open_session

keras = pytest.importorskip("keras")
pytest.importorskip("onnxruntime")


def describe(**change):
    options = {
        "filters": (3, 5),
        "kernel_size": 5,
        "pool_size": 4,
        "conv_dropout": 0.1,
        "dense": (7,),
        "dense_dropout": 0.2,
        "activation": "relu",
        "pooling": "max",
        "batch_norm": True,
    }
    return options | change


def random_network(graph, seed):
    """A network in which no bias and no running statistic keeps its neutral value."""
    network = build_lenet(graph, seed=seed)
    rng = np.random.default_rng(seed)
    weights = {
        name: (value if name.endswith("kernel") else value + rng.uniform(0.05, 0.3, value.shape)).astype(
            np.float32
        )
        for name, value in get_weights(network).items()
    }
    set_weights(network, weights)
    return network, weights


@pytest.mark.parametrize(
    ("bins", "channels", "change"),
    [
        (256, 1, {}),
        (256, 6, {"batch_norm": False, "activation": "tanh"}),
        (
            256,
            7,
            {"filters": (4, 4, 4), "kernel_size": (15, 4, 3), "pool_size": (4, 2, 1), "dense": (8, 6, 4)},
        ),
        (100, 2, {"kernel_size": (6, 1), "pool_size": 3, "pooling": "average"}),
        (100, 2, {"kernel_size": (3, 8), "pool_size": (7, 2), "pooling": "max", "dense": ()}),
        (1, 3, {"filters": (2,)}),
    ],
)
def test_onnx_equals_keras_layer_for_layer(bins, channels, change):
    graph = LeNetGraph.from_options(bins, channels, **describe(**change))
    networks, weights = zip(*(random_network(graph, seed) for seed in (1, 2)), strict=True)
    x = np.random.default_rng(0).normal(0.3, 1, (50, bins, channels)).astype(np.float32)
    by_keras = [keras.ops.convert_to_numpy(network(x))[:, 0] for network in networks]
    by_onnx = run_session(open_session(write_onnx(graph, weights)), x.transpose(0, 2, 1), batch_size=16)
    assert np.ptp(by_onnx) > 1e-3
    np.testing.assert_allclose(by_onnx, np.mean(by_keras, axis=0), atol=2e-6, rtol=0)
    alone = run_session(open_session(write_onnx(graph, weights[:1])), x.transpose(0, 2, 1))
    np.testing.assert_allclose(alone, by_keras[0], atol=2e-6, rtol=0)


def test_the_onnx_file_is_the_same_each_time_and_knows_its_shapes():
    onnx = pytest.importorskip("onnx")
    graph = LeNetGraph.from_options(64, 2, **describe(pooling="average"))
    weights = random_network(graph, 0)[1]
    assert write_onnx(graph, [weights]) == write_onnx(graph, [weights])
    model = onnx.load_from_string(write_onnx(graph, [weights, weights]))
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {
        *("Conv", "Relu", "AveragePool", "Flatten", "Gemm", "Sigmoid", "Mean")
    }
    kernel = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}["member2/output/kernel"]
    np.testing.assert_array_equal(kernel, weights["output/kernel"])
    assert model.SerializeToString(deterministic=True) == write_onnx(graph, [weights, weights])
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert (model.graph.input[0].name, shape) == ("histograms", ["n", 2, 64])
    with pytest.raises(InputError, match="at least one network"):
        write_onnx(graph, [])
    with pytest.raises(ModelError, match="no ONNX model"):
        open_session(b"not a model")


def test_the_layers_are_those_described():
    graph = LeNetGraph.from_options(256, 6, **describe(kernel_size=(15, 7), dense=(32, 16)))
    network = build_lenet(graph, seed=0)
    names = [layer.name for layer in network.layers]
    assert names == [
        *("histograms", "conv1", "norm1", "conv1_relu", "pool1", "conv1_dropout"),
        *("conv2", "norm2", "conv2_relu", "pool2", "conv2_dropout"),
        *(
            "flatten",
            "dense1_dropout",
            "dense1",
            "dense2_dropout",
            "dense2",
            "output_dropout",
            "output",
            "score",
        ),
    ]
    assert network.input_shape == (None, 256, 6)
    assert network.output_shape == (None, 1)
    assert get_weights(network)["conv1/kernel"].shape == (15, 6, 3)
    assert get_weights(network)["dense1/kernel"].shape == (16 * 5, 32)
    assert graph.lengths() == (256, 64, 16)


def test_the_shapes_of_weights_are_those_that_keras_makes():
    for change in ({}, {"batch_norm": False, "dense": (), "dense_dropout": 0}, {"pool_size": 3}):
        graph = LeNetGraph.from_options(100, 3, **describe(**change))
        weights = get_weights(build_lenet(graph, seed=0))
        assert {name: value.shape for name, value in weights.items()} == graph.shapes()
        graph.check_weights(weights)
        weights["output/bias"] = np.array([np.nan])
        with pytest.raises(InputError, match="output/bias is not"):
            graph.check_weights(weights)


def test_weights_come_from_the_seed_alone():
    graph = LeNetGraph.from_options(64, 1, **describe())
    one, same, other = (get_weights(build_lenet(graph, seed=seed)) for seed in (3, 3, 4))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one["conv1/kernel"], other["conv1/kernel"])
    del one["output/bias"]
    with pytest.raises(InputError, match="weights must hold output/bias"):
        set_weights(build_lenet(graph, seed=0), one)
