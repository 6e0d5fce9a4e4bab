"""TimeDistributed: a layer on each step, with the steps as more rows of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.nodes import IDLE
from lstmconvert.keras.modern.parts import Part
from lstmconvert.onnx.messages import Axis
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import END, Value

if TYPE_CHECKING:
    from lstmconvert.onnx.whole.network import Network

#: Classes that do to the last axis, or to single numbers, what they do whatever comes before it.
_STEPLESS = frozenset(
    {
        *("Dense", "Activation", "ReLU", "LeakyReLU", "ELU"),
        *IDLE,
    }
)
#: And those that do if they are told to by their axis.
_ALONG_LAST = frozenset({"LayerNormalization", "BatchNormalization", "Softmax"})


def time_distributed(site: Site, network: Network) -> Any:
    """TimeDistributed."""
    inner = site.part.children[0][1]
    given = site.arguments[0]
    if not isinstance(given, Value) or given.rank < 3:
        raise CorruptFile("TimeDistributed on what has no steps", where=site.label)
    mask = site.mask if isinstance(site.mask, Value) else None
    if _is_stepless(inner):
        bare = given.again()
        bare.mask = mask
        made = network.inner(site, inner, [bare])
        return _masked(made, mask)
    shape = _Steps(site, given)
    folded = shape.folded(given)
    if mask is not None:
        folded.mask = shape.folded_mask(mask)
    made = network.inner(site, inner, [folded])
    values = [made] if isinstance(made, Value) else list(made)
    results = []
    for value in values:
        result = shape.unfolded(value)
        inner_mask = value.mask
        result.mask = mask
        if not site.is_modern and inner_mask is not None and shape.batch is None:
            # tf_keras asks the inner layer what becomes of the mask, unless it knows the batch.
            result.mask = shape.unfolded(inner_mask)
        elif not site.is_modern and mask is not None and shape.batch is None:
            result.mask = _of_steps(site, mask)
        results.append(result)
    return results if len(results) > 1 else results[0]


def spectral(site: Site, network: Network) -> Value:
    """SpectralNormalization: training alone changes the kernel that is stored."""
    inner = site.part.children[0][1]
    given: Value = site.arguments[0]
    made: Value = network.inner(site, inner, [given])
    if made.dtype == given.dtype:
        return made
    # Keras gives the layer's numbers back in the type of what it was given, which drops the mask.
    result = site.writer.cast(made, given.dtype).again()
    result.mask = None
    return result


def _is_stepless(inner: Part) -> bool:
    if inner.layer is not None or inner.is_model:
        return False
    if inner.class_name in _STEPLESS:
        return True
    return inner.class_name in _ALONG_LAST and inner.config.get("axis", -1) in (-1, [-1])


def _masked(made: Any, mask: Value | None) -> Any:
    result = made.again() if isinstance(made, Value) else made
    result.mask = mask
    return result


def _of_steps(site: Site, mask: Value) -> Value:
    """Return a mask of what is in the steps as one of the steps: a step counts if anything in it
    does (tf_keras/src/layers/rnn/time_distributed.py, `compute_mask`)."""
    if mask.rank == 2:
        return mask
    numbers = site.writer.cast(mask, "int32")
    axes = list(range(2, mask.rank))
    most = site.reduce("ReduceMax", site.writer.form(numbers), axes, "step_counts_as_number")
    return site.writer.cast(Value(most, "int32", mask.shape[:2]), "bool")


class _Steps:
    """The first two axes of what a TimeDistributed is given, which become one."""

    def __init__(self, site: Site, given: Value) -> None:
        self._site = site
        batch, steps = given.shape[:2]
        self.batch = batch if isinstance(batch, int) else None
        self._steps = steps if isinstance(steps, int) else None
        # What another TimeDistributed has made is there with its steps as rows.
        self._rows: Value | None = None
        self._whole = given
        if given.folded is not None:
            self._rows, self._whole = given.folded

    def folded(self, value: Value) -> Value:
        """Return (batch · steps, …)."""
        site = self._site
        if self._rows is not None:
            rows = self._rows.again()
            rows.mask = None
            is_real = rows.dtype.startswith(("float", "bfloat"))
            return site.writer.cast(rows, site.policy) if is_real else rows
        value = value if not value.dtype.startswith(("float", "bfloat")) else site.writer.cast(
            value, site.policy
        )
        rest = value.shape[2:]
        name = site.op("Reshape", [site.writer.form(value), self._flat(value)], "each_step")
        count: Axis = None
        if self.batch is not None and self._steps is not None:
            count = self.batch * self._steps
        return Value(name, value.dtype, (count, *rest))

    def folded_mask(self, mask: Value) -> Value:
        """Return a mask of the steps, or of what is in them, as the inner layer gets it."""
        site = self._site
        name = site.op("Reshape", [site.writer.form(mask), self._flat(mask)], "mask_of_each_step")
        return Value(name, "bool", (None, *mask.shape[2:]))

    def _flat(self, value: Value) -> str:
        site, rest = self._site, value.shape[2:]
        sizes = [size for size in rest if isinstance(size, int)]
        if len(sizes) == len(rest):
            return site.ints(-1, *sizes)
        shape = site.op("Shape", [site.writer.form(value)], "shape")
        behind = site.op("Slice", [shape, site.ints(2), site.ints(END)], "behind_steps")
        return site.op("Concat", [site.ints(-1), behind], "each_step_shape", axis=0)

    def unfolded(self, value: Value) -> Value:
        """Return (batch, steps, …)."""
        site, rest = self._site, value.shape[1:]
        name = site.writer.form(value)
        sizes = [size for size in rest if isinstance(size, int)]
        is_known = len(sizes) == len(rest)
        if is_known and self._steps is not None:
            target = site.ints(-1, self._steps, *sizes)
        else:
            whole = site.op("Shape", [site.writer.form(self._whole)], "shape")
            before = site.op("Slice", [whole, site.ints(0), site.ints(2)], "steps_shape")
            behind = site.ints(*sizes)
            if not is_known:
                shape = site.op("Shape", [name], "inner_shape")
                behind = site.op("Slice", [shape, site.ints(1), site.ints(END)], "behind")
            parts = [before] if is_known and not sizes else [before, behind]
            target = before if len(parts) == 1 else site.op("Concat", parts, "shape_back", axis=0)
        made = site.op("Reshape", [name, target], "steps")
        result = Value(made, value.dtype, (*self._whole.shape[:2], *rest))
        result.folded = value, self._whole
        return result

