"""What a model was compiled with: its optimizer, losses and metrics, as Keras 3 writes them.

Keras keeps them as `training_config` in an `.h5` and a SavedModel, as `compile_config` in a
`.keras`. What has a name in the closed tables below crosses with its options; anything else (a
function or class of the user's own) is named as dropped, and never imported or called.

The keywords are those of Keras 3.3 (keras/src/losses, keras/src/metrics, keras/src/optimizers), so
that what is written opens from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lstmconvert.conversion import Compiled
from lstmconvert.files.jsontext import Json, JsonObject, parse_object
from lstmconvert.keras.configs import spelling

#: Keyword -> where it lies in an `.h5` and in a `.keras`.
TRAINING, COMPILE = "training_config", "compile_config"
_OPTIMIZER = "optimizer_config"

_NO_KEYWORDS: frozenset[str] = frozenset()


def _keywords(names: str) -> frozenset[str]:
    return frozenset(names.split())


_LOGITS = "from_logits label_smoothing axis"
#: Class of a loss -> its keywords, but `name` and `reduction`.
LOSSES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError",
         "MeanSquaredLogarithmicError", "LogCosh", "Hinge", "SquaredHinge", "CategoricalHinge",
         "KLDivergence", "Poisson", "CTC"),
        _NO_KEYWORDS,
    ),
    "CosineSimilarity": _keywords("axis"),
    "Huber": _keywords("delta"),
    "BinaryCrossentropy": _keywords(_LOGITS),
    "BinaryFocalCrossentropy": _keywords(f"apply_class_balancing alpha gamma {_LOGITS}"),
    "CategoricalCrossentropy": _keywords(_LOGITS),
    "CategoricalFocalCrossentropy": _keywords(f"alpha gamma {_LOGITS}"),
    "SparseCategoricalCrossentropy": _keywords("from_logits ignore_class"),
    "Dice": _keywords("axis"),
    "Tversky": _keywords("alpha beta axis"),
    "Circle": _keywords("gamma margin remove_diagonal"),
    "CategoricalGeneralizedCrossEntropy": _keywords("q"),
}  # fmt: skip
_AT = "num_thresholds class_id"
_IOU = "num_classes ignore_class sparse_y_true sparse_y_pred axis"
#: Class of a metric -> its keywords, but `name` and `dtype`.
METRICS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("MeanSquaredError", "RootMeanSquaredError", "MeanAbsoluteError",
         "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "LogCoshError", "Hinge",
         "SquaredHinge", "CategoricalHinge", "KLDivergence", "Poisson", "Accuracy",
         "CategoricalAccuracy", "SparseCategoricalAccuracy"),
        _NO_KEYWORDS,
    ),
    **dict.fromkeys(
        ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation"), _keywords("axis")
    ),
    "R2Score": _keywords("class_aggregation num_regressors"),
    "BinaryAccuracy": _keywords("threshold"),
    "TopKCategoricalAccuracy": _keywords("k"),
    "SparseTopKCategoricalAccuracy": _keywords("k from_sorted_ids"),
    "BinaryCrossentropy": _keywords("from_logits label_smoothing"),
    "CategoricalCrossentropy": _keywords(_LOGITS),
    "SparseCategoricalCrossentropy": _keywords("from_logits ignore_class axis"),
    **dict.fromkeys(
        ("FalseNegatives", "FalsePositives", "TrueNegatives", "TruePositives"),
        _keywords("thresholds"),
    ),
    **dict.fromkeys(("Precision", "Recall"), _keywords("thresholds top_k class_id")),
    "PrecisionAtRecall": _keywords(f"recall {_AT}"),
    "RecallAtPrecision": _keywords(f"precision {_AT}"),
    "SensitivityAtSpecificity": _keywords(f"specificity {_AT}"),
    "SpecificityAtSensitivity": _keywords(f"sensitivity {_AT}"),
    "AUC": _keywords("num_thresholds curve summation_method thresholds multi_label num_labels "
                     "label_weights from_logits"),
    "F1Score": _keywords("average threshold"),
    "FBetaScore": _keywords("average beta threshold"),
    "IoU": _keywords(f"{_IOU} target_class_ids"),
    "BinaryIoU": _keywords("target_class_ids threshold"),
    "MeanIoU": _keywords(_IOU),
    "OneHotIoU": _keywords("num_classes target_class_ids ignore_class sparse_y_pred axis"),
    "OneHotMeanIoU": _keywords("num_classes ignore_class sparse_y_pred axis"),
}  # fmt: skip
#: Class of an optimizer -> its keywords, but those of every optimizer.
OPTIMIZERS: Mapping[str, frozenset[str]] = {
    "SGD": _keywords("momentum nesterov"),
    "RMSprop": _keywords("rho momentum epsilon centered"),
    "Adagrad": _keywords("initial_accumulator_value epsilon"),
    "Adadelta": _keywords("rho epsilon"),
    **dict.fromkeys(("Adam", "AdamW"), _keywords("beta_1 beta_2 epsilon amsgrad")),
    **dict.fromkeys(("Adamax", "Nadam", "Lamb"), _keywords("beta_1 beta_2 epsilon")),
    "Ftrl": _keywords("learning_rate_power initial_accumulator_value l1_regularization_strength "
                      "l2_regularization_strength l2_shrinkage_regularization_strength beta"),
    "Lion": _keywords("beta_1 beta_2"),
    "Adafactor": _keywords("beta_2_decay epsilon_1 epsilon_2 clip_threshold relative_step"),
}  # fmt: skip
_EVERY_OPTIMIZER = _keywords(
    "name learning_rate weight_decay clipnorm clipvalue global_clipnorm use_ema ema_momentum "
    "ema_overwrite_frequency"
)
#: Keywords that only Keras 3 has, and that say nothing at None.
_ONLY_KERAS3 = ("loss_scale_factor", "gradient_accumulation_steps")
#: Keywords that change no number.
_IDLE = _keywords("jit_compile is_legacy_optimizer")
#: Schedule of the learning rate -> its keywords.
SCHEDULES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("ExponentialDecay", "InverseTimeDecay"),
        _keywords("initial_learning_rate decay_steps decay_rate staircase name"),
    ),
    "PiecewiseConstantDecay": _keywords("boundaries values name"),
    "PolynomialDecay": _keywords("initial_learning_rate decay_steps end_learning_rate power cycle "
                                 "name"),
    "CosineDecay": _keywords("initial_learning_rate decay_steps alpha name warmup_target "
                             "warmup_steps"),
    "CosineDecayRestarts": _keywords("initial_learning_rate first_decay_steps t_mul m_mul alpha "
                                     "name"),
}  # fmt: skip
_LOSS_SCALE = {"LossScaleOptimizer", "LossScaleOptimizerV3"}

#: Function -> the class of a metric that averages it, and of a loss.
FUNCTIONS: Mapping[str, tuple[str | None, str | None]] = {
    **{
        name: (class_name, class_name)
        for name, class_name in {
            "mean_squared_error": "MeanSquaredError",
            "mean_absolute_error": "MeanAbsoluteError",
            "mean_absolute_percentage_error": "MeanAbsolutePercentageError",
            "mean_squared_logarithmic_error": "MeanSquaredLogarithmicError",
            "hinge": "Hinge",
            "squared_hinge": "SquaredHinge",
            "categorical_hinge": "CategoricalHinge",
            "kl_divergence": "KLDivergence",
            "poisson": "Poisson",
            "binary_crossentropy": "BinaryCrossentropy",
            "categorical_crossentropy": "CategoricalCrossentropy",
            "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
            "cosine_similarity": "CosineSimilarity",
        }.items()
    },
    "log_cosh": ("LogCoshError", "LogCosh"),
    "huber": (None, "Huber"),
    "binary_focal_crossentropy": (None, "BinaryFocalCrossentropy"),
    "categorical_focal_crossentropy": (None, "CategoricalFocalCrossentropy"),
    "dice": (None, "Dice"),
    "tversky": (None, "Tversky"),
    "circle": (None, "Circle"),
    "ctc": (None, "CTC"),
    "categorical_generalized_cross_entropy": (None, "CategoricalGeneralizedCrossEntropy"),
    "pearson_correlation": ("PearsonCorrelation", None),
    "concordance_correlation": ("ConcordanceCorrelation", None),
    "binary_accuracy": ("BinaryAccuracy", None),
    "categorical_accuracy": ("CategoricalAccuracy", None),
    "sparse_categorical_accuracy": ("SparseCategoricalAccuracy", None),
    "top_k_categorical_accuracy": ("TopKCategoricalAccuracy", None),
    "sparse_top_k_categorical_accuracy": ("SparseTopKCategoricalAccuracy", None),
}
_NEW_CLASSES = frozenset(
    {
        *("Lamb", "CTC", "Dice", "Tversky", "Circle", "CategoricalGeneralizedCrossEntropy"),
        *("PearsonCorrelation", "ConcordanceCorrelation", "LossScaleOptimizer"),
    }
)
#: What Keras 2 does not have: those classes, and their functions.
_NOT_IN_KERAS2 = _NEW_CLASSES.union(
    name for name, classes in FUNCTIONS.items() if not _NEW_CLASSES.isdisjoint(classes)
)
#: Another name of a function -> its name in Keras 3.
ALIASES = {
    **dict.fromkeys(("mse", "MSE"), "mean_squared_error"),
    **dict.fromkeys(("mae", "MAE"), "mean_absolute_error"),
    **dict.fromkeys(("mape", "MAPE"), "mean_absolute_percentage_error"),
    **dict.fromkeys(("msle", "MSLE"), "mean_squared_logarithmic_error"),
    **dict.fromkeys(("kld", "KLD", "kullback_leibler_divergence"), "kl_divergence"),
    **dict.fromkeys(("bce", "BCE"), "binary_crossentropy"),
    "logcosh": "log_cosh",
    "huber_loss": "huber",
}
#: Names by which a metric is chosen for the shapes of what it compares.
_ACCURACY = ("accuracy", "acc")
#: What a loss chooses `accuracy` to be in Keras 1 and 2 (keras/engine/training.py of 2.2.4).
_BINARY = "binary_crossentropy"

#: Name -> why it is not carried, where more can be said than that Keras 3 does not have it.
REFUSED: Mapping[str, str] = {
    "cosine_proximity": "it is a mean in some releases of Keras, a sum in others, and of either "
                        "sign",
    **dict.fromkeys(
        ("crossentropy", "ce"), "Keras 3 does not choose a metric of that name by shapes"
    ),
    **dict.fromkeys(
        ("Loss", "Metric", "MeanMetricWrapper", "LossFunctionWrapper", "Optimizer",
         "LearningRateSchedule"),
        "it is a base of classes",
    ),
    **dict.fromkeys(
        ("Mean", "Sum", "MeanTensor"), "it averages values, and compares no output with a label"
    ),
    "MeanRelativeError": "it is normalised by an array, and Keras 3 does not have it",
    "Reduction": "it names how a loss is summed",
    **dict.fromkeys(
        ("Muon", "MultiOptimizer", "OptimizerMap", "ScheduleFreeAdamW"),
        "it treats some variables otherwise than others, or has a state of its own",
    ),
    **dict.fromkeys(
        ("fbeta_score", "fmeasure", "matthews_correlation", "precision", "recall"),
        "Keras 1's averages it over batches, which Keras 3 has no metric for",
    ),
    **dict.fromkeys(("TFOptimizer",), "its file does not say which optimizer it was"),
}  # fmt: skip

#: Optimizer -> how its steps differ from those of Keras 3, by the Keras that it was of: `early` is
#: Keras 1 and 2 before tf.keras, `legacy` what tf.keras had before 2.11.
_EPSILON = "adds epsilon to the root, and what is written adds it to what is under the root"
_NADAM = "has another schedule of its momentum than what is written"
DIFFERENT: Mapping[tuple[str, str], str] = {
    ("early", "RMSprop"): _EPSILON,
    ("early", "Adagrad"): _EPSILON,
    ("early", "Nadam"): _NADAM,
    ("legacy", "RMSprop"): _EPSILON,
    ("legacy", "Adagrad"): _EPSILON,
    ("legacy", "Nadam"): _NADAM,
}


class ModelOutputs(NamedTuple):
    """The outputs of a model.

    Fields: `names`, in order: of the layers that make them, or the keys of a dict of outputs;
    `keyed`: whether they are a dict.
    """

    names: tuple[str, ...]
    keyed: bool = False


class Training(NamedTuple):
    """What a model was compiled with.

    Fields: `config`: `compile_config` of Keras 3, empty where nothing crosses; `compiled`: what
    is carried and dropped, in words; `warnings`, of what is carried and is not quite the same.
    """

    config: JsonObject
    compiled: Compiled
    warnings: tuple[str, ...]

    def for_h5(self) -> JsonObject:
        """Return it as an `.h5` has it (keras/src/legacy/saving/saving_utils.py)."""
        written: JsonObject = {"loss_weights": None, **self.config}
        written[_OPTIMIZER] = _without_module(written.pop("optimizer"))
        for key, kind in (("metrics", 0), ("weighted_metrics", 0), ("loss", 1)):
            if key in written:
                written[key] = _mapped(written[key], lambda each, kind=kind: _in_h5(each, kind))
        return written


def stated(texts: Mapping[str, str]) -> JsonObject:
    """Return what the texts of a file say that its model was compiled with; empty if nothing."""
    if TRAINING in texts:
        arguments = parse_object(texts[TRAINING], TRAINING)
        optimizer = arguments.pop(_OPTIMIZER, None)
        return {"optimizer": optimizer, **arguments} if optimizer is not None or arguments else {}
    if f'"{COMPILE}"' in texts.get("model_config", ""):
        config = parse_object(texts["model_config"], "model_config").get(COMPILE)
        return config if isinstance(config, dict) else {}
    return {}


def outputs_of(model: JsonObject) -> ModelOutputs:
    """Return the outputs of a serialized model; of a chain, that of its last layer."""
    inner = model.get("config")
    listed = inner.get("output_layers") if isinstance(inner, dict) else None
    if listed is None:
        layers = inner.get("layers") if isinstance(inner, dict) else inner
        last = layers[-1] if isinstance(layers, list) and layers else {}
        config = last.get("config") if isinstance(last, dict) else {}
        return ModelOutputs((str(config.get("name") if isinstance(config, dict) else ""),))
    if isinstance(listed, dict):
        return ModelOutputs(tuple(sorted(listed)), keyed=True)
    listed = listed if isinstance(listed, list) else []
    if listed and isinstance(listed[0], str):
        listed = [listed]
    names = (each[0] if isinstance(each, list) and each else each for each in listed)
    return ModelOutputs(tuple(map(str, names)))


def carried(
    arguments: JsonObject,
    outputs: ModelOutputs,
    era: str,
    version: str | None,
    target: str = "keras3",
) -> Training:
    """Return what a model was compiled with as Keras 3, or 2, writes it.

    Args:
        arguments: what `stated` returned.
        outputs: of the model.
        era: of the source: `keras1`, `keras2` or `keras3`.
        version: of the source's Keras.
        target: the era that is written, `keras3` or `keras2`.
    """
    return _Reader(outputs, era, version or "", target).read(arguments)


#: What stands in a report where the user asked to leave all of it out.
LEFT_OUT = Compiled((), ("all of it, as asked",))


class _Unknown(Exception):
    """Something has no place in Keras 3: its message says what."""


class _Reader:
    def __init__(self, outputs: ModelOutputs, era: str, version: str, target: str) -> None:
        self._outputs, self._era = outputs, era
        self._for_keras2 = target == "keras2"
        self._name = "Keras 2" if self._for_keras2 else "Keras 3"
        self._is_kept = era == "keras3" and not self._for_keras2
        numbers = version.partition("-")[0].split(".")[:2]
        release = tuple(int(number[:6]) for number in numbers if number.isdecimal())
        self._is_early = era == "keras1" or (
            era == "keras2" and "-tf" not in version and len(release) == 2 and release < (2, 4)
        )
        #: Whether the loss chooses what `accuracy` is; later, and in Keras 3, the shapes do.
        self._by_loss = self._is_early or (
            era == "keras2" and "-tf" in version and release < (2, 3)
        )
        self._carried: list[str] = []
        self._dropped: list[str] = []
        self._warnings: list[str] = []

    def read(self, arguments: JsonObject) -> Training:
        try:
            optimizer = self._optimizer(arguments.get("optimizer"))
        except _Unknown as error:
            self._dropped.append(f"optimizer {error}")
            self._drop_rest(arguments)
            return self._result({})
        config: JsonObject = {"optimizer": optimizer}
        self._carried.append(f"optimizer {_title(arguments['optimizer'])}")
        config.update(self._losses(arguments))
        for key in ("metrics", "weighted_metrics"):
            metrics = self._metrics(key, arguments.get(key), arguments.get("loss"))
            if metrics is not None:
                config[key] = metrics
        if isinstance(arguments.get("run_eagerly"), bool):
            config["run_eagerly"] = arguments["run_eagerly"]
        steps = arguments.get("steps_per_execution")
        if type(steps) is int and steps > 0:
            config["steps_per_execution"] = steps
        if arguments.get("sample_weight_mode") is not None:
            self._dropped.append(f"sample_weight_mode {arguments['sample_weight_mode']}")
        return self._result(config)

    def _result(self, config: JsonObject) -> Training:
        compiled = Compiled(tuple(self._carried), tuple(self._dropped))
        return Training(config, compiled, tuple(self._warnings))

    def _drop_rest(self, arguments: JsonObject) -> None:
        """Without an optimizer Keras 3 loads no compile state."""
        for key, word in (("loss", "loss"), ("metrics", "metric"), ("weighted_metrics", "metric")):
            for each in _leaves(_plain(arguments.get(key))):
                self._dropped.append(f"{word} {_title(each)}: it needs the optimizer")

    # -- losses ------------------------------------------------------------------------------

    def _losses(self, arguments: JsonObject) -> JsonObject:
        stated = _plain(arguments.get("loss"))
        if stated is None or not any(True for _ in _leaves(stated)):
            return {}
        weights = _plain(arguments.get("loss_weights"))
        names = list(dict.fromkeys(_title(each) for each in _leaves(stated)))
        try:
            if self._is_kept:
                result: JsonObject = {"loss": _mapped(stated, self._loss)}
                weighted = {} if weights is None else {"loss_weights": weights}
            else:
                result, weighted = self._per_output(stated, weights)
        except _Unknown as error:
            self._dropped.append(f"loss {error}")
            others = [name for name in names if not str(error).startswith(name)]
            self._dropped += [f"loss {name}: Keras takes all losses or none" for name in others]
            if weights is not None:
                self._dropped.append("loss_weights: without the losses they weigh nothing")
            return {}
        self._carried += [f"loss {name}" for name in names]
        if weighted:
            self._carried.append("loss_weights")
        if self._is_early and any(name.endswith("hinge") for name in names):
            self._warnings.append(
                "the loss hinge of Keras 3 takes labels of 0 and 1 for -1 and 1, and that of the "
                "source took them as they are"
            )
        return {**result, **weighted}

    def _per_output(self, stated: Json, weights: Json) -> tuple[JsonObject, JsonObject]:
        names = self._outputs.names
        listed = self._each(stated)
        if listed is None:
            listed = [stated] * len(names)
        losses = [None if each is None else self._loss(each) for each in listed]
        factors = self._each(weights) if weights is not None else None
        if factors is not None:
            factors = [1.0 if each is None else _number(each, "loss_weights") for each in factors]
        elif weights is not None:
            factors = [_number(weights, "loss_weights")] * len(names)
        weighted = {} if factors is None else {"loss_weights": self._joined(factors)}
        return {"loss": self._joined(losses)}, weighted

    def _each(self, value: Json) -> list[Json] | None:
        """Return what is said of each output; None where one thing is said of all."""
        names = self._outputs.names
        if isinstance(value, dict) and not _is_object(value):
            unknown = value.keys() - set(names)
            if unknown or len(set(names)) < len(names):
                raise _Unknown(f"of outputs that the model has no such names for: {_some(value)}")
            return [value.get(name) for name in names]
        if not isinstance(value, list):
            return None
        if len(value) != len(names) or any(isinstance(each, list) for each in value):
            raise _Unknown(f"a list of {len(value)} for {len(names)} outputs")
        return value

    def _joined(self, values: Sequence[Json]) -> Json:
        names = self._outputs.names
        if self._outputs.keyed:
            return dict(zip(names, values, strict=True))
        return values[0] if len(names) == 1 else list(values)

    def _loss(self, value: Json) -> Json:
        name, config, is_function = _named(value)
        today = ALIASES.get(name, name)
        self._check_keras2(today)
        if today in FUNCTIONS and FUNCTIONS[today][1] is not None:
            return name if isinstance(value, str) and name not in _RENAMED else today
        if is_function and name in LOSSES and not config:
            return name
        keywords = LOSSES.get(name)
        if keywords is None or is_function:
            raise _Unknown(_why(name, "loss"))
        written = self._object(name, config, keywords | {"name", "reduction", "dtype"}, ("fn",))
        if self._era != "keras3":
            written.pop("dtype", None)
        if written.get("reduction") == "auto":
            written["reduction"] = "sum_over_batch_size"
        if written.get("reduction") == "none":
            raise _Unknown(f"{name}: with reduction none it gives a number for each sample")
        return spelling.serialized("keras.losses", name, written)

    # -- metrics -----------------------------------------------------------------------------

    def _metrics(self, key: str, stated: Json, loss: Json) -> Json:
        stated = _plain(stated)
        if stated is None or not any(True for _ in _leaves(stated)):
            return None
        try:
            if self._is_kept:
                written = _mapped(stated, lambda each: self._metric(each, loss, ""))
                self._carried += [f"metric {_title(each)}" for each in _leaves(stated)]
                return written
            is_each = isinstance(stated, list) and len(stated) == len(self._outputs.names) > 1
            if self._era == "keras3" and is_each:  # in Keras 2, a list is for every output
                stated = [_as_list(each) for each in stated]
            return self._metrics_per_output(key, stated, _plain(loss))
        except _Unknown as error:
            self._dropped.append(f"{key} {error}")
            return None

    def _metrics_per_output(self, key: str, stated: Json, loss: Json) -> Json:
        names = self._outputs.names
        lists: list[list[Json]]
        if isinstance(stated, dict) and not _is_object(stated):
            lists = [_as_list(each) for each in self._each(stated) or ()]
        elif not isinstance(stated, list) or not any(isinstance(each, list) for each in stated):
            lists = [_as_list(stated) for _ in names]  # one list for every output
        elif len(names) == 1:
            lists = [list(_leaves(stated))]
        else:
            lists = self._lists(stated)
        losses = self._each(loss) or [loss] * len(names)
        result: list[list[Json]] = []
        for name, metrics, of_loss in zip(names, lists, losses, strict=True):
            prefix = f"{name}_" if len(names) > 1 else ""
            made = [self._kept(key, metric, of_loss, prefix) for metric in metrics]
            result.append([each for each in made if each is not None])
        if not any(result):
            return None
        if self._outputs.keyed:
            return dict(zip(names, result, strict=True))
        return result[0] if len(names) == 1 else [each or None for each in result]

    def _lists(self, stated: list[Json]) -> list[list[Json]]:
        if len(stated) != len(self._outputs.names):
            raise _Unknown(f"a list of {len(stated)} for {len(self._outputs.names)} outputs")
        return [_as_list(each) for each in stated]

    def _kept(self, key: str, metric: Json, loss: Json, prefix: str) -> Json:
        try:
            written = self._metric(metric, loss, prefix)
        except _Unknown as error:
            _add(self._dropped, f"metric {error}")
            return None
        title = _title(metric).removeprefix(prefix)
        _add(self._carried, f"{'weighted ' * (key != 'metrics')}metric {title}")
        return written

    def _metric(self, value: Json, loss: Json, prefix: str) -> Json:
        name, config, is_function = _named(value)
        if is_function and name in _ACCURACY:
            if self._by_loss and _is_named(loss, _BINARY):
                return _metric_object("BinaryAccuracy", {"name": name})
            return name
        if name == "MeanMetricWrapper":
            function, _, _ = _named(config.get("fn"))
            config = {key: item for key, item in config.items() if key != "fn"}
            today = FUNCTIONS.get(ALIASES.get(function, function), (None, None))[0]
            if today is None:
                raise _Unknown(_why(function, "metric"))
            name, is_function = today, False
        elif is_function:
            today = FUNCTIONS.get(ALIASES.get(name, name), (None, None))[0]
            if today is None and name in METRICS:
                return name if isinstance(value, str) else _metric_object(name, {})
            if today is None:
                raise _Unknown(_why(name, "metric"))
            return _metric_object(today, {"name": name})
        keywords = METRICS.get(name)
        if keywords is None:
            raise _Unknown(_why(name, "metric"))
        written = self._object(name, config, keywords | {"name", "dtype"}, ("fn",))
        own_name = written.get("name")
        if prefix and isinstance(own_name, str):
            written["name"] = own_name.removeprefix(prefix)  # Keras 3 puts it there by itself
        return _metric_object(name, written)

    # -- the optimizer -----------------------------------------------------------------------

    def _optimizer(self, value: Json) -> JsonObject:
        if value is None:
            raise _Unknown("that the file does not state")
        name, config, is_string = _named(value)
        name = name.removeprefix("Custom>") if "is_legacy_optimizer" in config else name
        name = name.removeprefix("Experimental") if self._era == "keras2" else name
        by_lower = {each.lower(): each for each in (*OPTIMIZERS, *_LOSS_SCALE)}
        name = by_lower.get(name.lower(), name)
        if name in _LOSS_SCALE:
            self._check_keras2("LossScaleOptimizer")
            return self._loss_scaled(name, config)
        keywords = OPTIMIZERS.get(name)
        if keywords is None:
            raise _Unknown(_why(name, "optimizer"))
        if is_string and name == "Lion" and self._era == "keras2":
            config = {"learning_rate": 1e-4}  # tf_keras/src/optimizers/lion.py
        if self._era == "keras3":
            written = self._object(name, config, keywords | _EVERY_OPTIMIZER | {*_ONLY_KERAS3}, ())
            if "learning_rate" in written:
                written["learning_rate"] = self._rate(written["learning_rate"])
            if self._for_keras2:
                for key in _ONLY_KERAS3:
                    if written.pop(key, None) is not None:
                        raise _Unknown(f"{name}: Keras 2 has no {key} there")
                written["is_legacy_optimizer"] = False
            return spelling.serialized("keras.optimizers", name, written)
        return self._older_optimizer(name, config, keywords, is_string)

    def _older_optimizer(
        self, name: str, config: JsonObject, keywords: frozenset[str], is_string: bool
    ) -> JsonObject:
        config = dict(config)
        kind = "now" if is_string and not self._is_early else self._kind(config)
        rate = config.pop("lr", config.pop("learning_rate", None))
        decay = _number(config.pop("decay", 0.0) or 0.0, "decay")
        config.pop("schedule_decay", None)  # of Nadam: said below
        if config.get("epsilon", 0) is None:
            config["epsilon"] = 1e-7  # keras.backend.epsilon()
        if kind == "early":
            if "clipnorm" in config:  # it was of all gradients together
                config["global_clipnorm"] = config.pop("clipnorm")
            for key in ("global_clipnorm", "clipvalue"):
                if not config.get(key):
                    config.pop(key, None)
            if name == "Adagrad":
                config.setdefault("initial_accumulator_value", 0.0)
        clips = [key for key in ("clipnorm", "clipvalue", "global_clipnorm") if config.get(key)]
        if len(clips) > 1:
            raise _Unknown(f"{name}: Keras 3 takes one of {', '.join(clips)}")
        written = self._object(name, config, keywords | _EVERY_OPTIMIZER, _IDLE)
        if rate is not None:
            written["learning_rate"] = self._rate(rate)
        if decay:
            written["learning_rate"] = _decaying(name, written.get("learning_rate"), decay)
        uses_fused = name == "RMSprop" and bool(config.get("momentum"))
        different = DIFFERENT.get((kind, name))
        if different and not (kind == "legacy" and uses_fused):
            self._warnings.append(f"the optimizer {name} of the source {different}")
        if self._for_keras2:
            written["is_legacy_optimizer"] = False
        return spelling.serialized("keras.optimizers", name, written)

    def _kind(self, config: JsonObject) -> str:
        """Return whose optimizer it is: that of Keras before tf.keras (`early`), of tf.keras before
        2.11 (`legacy`), or of tf.keras since (`now`)."""
        if config.get("is_legacy_optimizer") is False:
            return "now"
        return "legacy" if "name" in config and not self._is_early else "early"

    def _loss_scaled(self, name: str, config: JsonObject) -> JsonObject:
        if config.get("dynamic", True) is not True:
            raise _Unknown(f"{name}: Keras 3 has no fixed scale there")
        keywords = {"initial_scale", "dynamic_growth_steps", "name"}
        inner = self._optimizer(config.get("inner_optimizer"))
        written = {key: config[key] for key in keywords & config.keys()}
        if not all(map(_is_plain, written.values())):
            raise _Unknown(f"{name}: with an option that is not a plain value")
        return spelling.serialized(
            "keras.optimizers", "LossScaleOptimizer", {"inner_optimizer": inner, **written}
        )

    def _rate(self, value: Json) -> Json:
        if not isinstance(value, dict):
            return _number(value, "learning_rate")
        name, config, _ = _named(value)
        keywords = SCHEDULES.get(name)
        if keywords is None:
            raise _Unknown(f"with the schedule {_why(name, 'schedule')}")
        written = self._object(name, config, keywords, ())
        return spelling.serialized("keras.optimizers.schedules", name, written)

    def _check_keras2(self, name: str) -> None:
        if self._for_keras2 and name in _NOT_IN_KERAS2:
            raise _Unknown(f"{name}: Keras 2 does not have it")

    # -- options -----------------------------------------------------------------------------

    def _object(
        self,
        name: str,
        config: JsonObject,
        keywords: frozenset[str] | set[str],
        idle: Sequence[str] | frozenset[str],
    ) -> JsonObject:
        written: JsonObject = {}
        self._check_keras2(name)
        for key, value in config.items():
            if key in idle:
                continue
            if key not in keywords:
                if value is None:
                    continue
                raise _Unknown(f"{name}: {self._name} has no {key} there")
            value = _policy_name(value) if key == "dtype" else value
            if key == "learning_rate" or _is_plain(value):
                written[key] = value
            else:
                raise _Unknown(f"{name}: its {key} is not a plain value")
        if written.get("name", "") is None:
            del written["name"]
        return written


def _metric_object(name: str, config: JsonObject) -> JsonObject:
    return spelling.serialized("keras.metrics", name, config)


def _decaying(name: str, rate: Json, decay: float) -> JsonObject:
    """Return the schedule that is the `decay` of an older optimizer: rate / (1 + decay * step), at
    step 0 first (keras/optimizers.py of 2.3.1; tf_keras/src/optimizers/legacy/optimizer_v2.py)."""
    if not isinstance(rate, float):
        raise _Unknown(f"{name}: its decay has no place in Keras 3 beside a schedule")
    config: JsonObject = {
        "initial_learning_rate": rate,
        "decay_steps": 1,
        "decay_rate": decay,
        "staircase": False,
        "name": "InverseTimeDecay",
    }
    return spelling.serialized("keras.optimizers.schedules", "InverseTimeDecay", config)


#: Names of functions that Keras 3 no longer takes as a text.
_RENAMED = frozenset({"logcosh", "huber_loss", "kullback_leibler_divergence"})


def _named(value: Json) -> tuple[str, JsonObject, bool]:
    """Return the name of a serialized object, its config, and whether it is a name alone: that of
    a function, or of a class with its defaults.

    Raises:
        _Unknown: it is no such object, or one of the user's own.
    """
    if isinstance(value, str):
        return value, {}, True
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        raise _Unknown(f"{value!s:.40}")
    name, config = value["class_name"], value.get("config")
    module, registered = value.get("module"), value.get("registered_name")
    if name == "function" and isinstance(config, str):
        name, config = config, {}
        is_own = registered not in (None, "function", name)
        is_function = True
    else:
        is_own = isinstance(registered, str) and ">" in registered
        is_function = False
    is_ours = module is None or str(module).partition(".")[0] in ("keras", "builtins", "tf_keras")
    if not is_ours or is_own:
        raise _Unknown(f"{name}: it is the user's own")
    return name, config if isinstance(config, dict) else {}, is_function


def _why(name: str, kind: str) -> str:
    why = REFUSED.get(name, f"Keras 3 has no such {kind}; it may be the user's own")
    return f"{name}: {why}"


def _title(value: Json) -> str:
    """Return what people call a loss, a metric or an optimizer."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return str(value)[:40]
    config = value.get("config")
    if value.get("class_name") == "function":
        return str(config)
    name = str(value.get("class_name")).removeprefix("Custom>")
    stated = config.get("name") if isinstance(config, dict) else None
    return str(stated) if name == "MeanMetricWrapper" and stated else name


def _is_object(value: Json) -> bool:
    return isinstance(value, dict) and isinstance(value.get("class_name"), str)


def _is_named(value: Json, name: str) -> bool:
    if isinstance(value, dict):
        return name in (_FUNCTION_OF.get(str(value.get("class_name"))), value.get("config"))
    return bool(value == name)


_FUNCTION_OF = {pair[1]: name for name, pair in FUNCTIONS.items() if pair[1]}


def _plain(value: Json) -> Json:
    """Return a structure with every sequence as a plain list."""
    if isinstance(value, dict):
        items = value.get("items")
        is_sequence = value.get("class_name") in ("__tuple__", "ListWrapper", "TupleWrapper")
        if is_sequence and isinstance(items, list):
            return [_plain(item) for item in items]
        is_leaf = _is_object(value)
        return value if is_leaf else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _leaves(value: Json) -> Iterator[Json]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict) and not _is_object(value):
        for item in value.values():
            yield from _leaves(item)
    elif value is not None:
        yield value


def _mapped(value: Json, change: Any) -> Json:
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict) and not _is_object(value):
        return {key: _mapped(item, change) for key, item in value.items()}
    return None if value is None else change(value)


def _as_list(value: Json) -> list[Json]:
    return list(_leaves(value))


def _is_plain(value: Json) -> bool:
    if isinstance(value, list):
        return all(not isinstance(item, list) and _is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _number(value: Json, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unknown(f"with a {what} that is not a number")
    try:
        return float(value)
    except OverflowError:
        raise _Unknown(f"with a {what} beyond all numbers") from None


def _policy_name(value: Json) -> Json:
    """Return a dtype by its name: Keras 3 writes a policy there."""
    config = value.get("config") if isinstance(value, dict) else None
    return config.get("name") if isinstance(config, dict) else value


def _some(value: JsonObject) -> str:
    return ", ".join(list(value)[:3])


def _add(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)


def _without_module(value: Json) -> Json:
    return {"class_name": value["class_name"], "config": value["config"]}


def _in_h5(value: Json, kind: int) -> Json:
    """Return a metric (0) or a loss (1) as an `.h5` has it: without its module, and as a class:
    Keras 3.15 does not load the functions that it has for short names, as `mae`, from there."""
    if _is_object(value):
        return _without_module(value)
    name = str(value)
    class_name = FUNCTIONS.get(ALIASES.get(name, name), (None, None))[kind]
    return value if class_name is None else {"class_name": class_name, "config": {"name": name}}
