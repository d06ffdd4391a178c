import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.models.lenet import LeNetClassifier

pytest.importorskip("keras")
pytest.importorskip("onnxruntime")

# A row of zeros is an image without a counted pixel, which is refused; these checks make such rows, or
# forget that an estimator may ask for numbers that are not negative.
EXPECTED = {
    "check_estimators_dtypes": "holds images without a single count",
    "check_fit2d_1feature": "holds images without a single count",
    "check_class_weight_classifiers": "ignores the tag positive_only",
}


@parametrize_with_checks(
    [
        LeNetClassifier(
            filters=(8,),
            batch_norm=False,
            kernel_size=3,
            dense=(16,),
            dense_dropout=0,
            epochs=12,
            batch_size=32,
            learning_rate=0.03,
            shift=0,
            gamma=0,
            contrast=0,
            validation_fraction=0,
            random_state=0,
        )
    ],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)
