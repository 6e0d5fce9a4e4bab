"""Spectrograms: the frequencies of a sound in windows that move along it; Fourier transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.messages import Axis
from lstmconvert.onnx.whole.shaping import is_channels_first
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import END, Shape, Value
from lstmconvert.tensors.dtypes import Array, dtype_of

#: keras.config.epsilon(), the least power and magnitude that a logarithm is taken of.
_LEAST = 1e-7
#: keras/src/layers/preprocessing/mel_spectrogram.py.
_MEL_BREAK_FREQUENCY, _MEL_HIGH_FREQUENCY = 700.0, 1127.0
_STFT_SINCE = 17
#: A transform is a product with all its waves: so many steps of float32 take 32 MB.
_LONGEST = 2048
_MODES = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")


def stft_spectrogram(site: Site) -> Value:
    """STFTSpectrogram: a convolution with the sines and cosines that are its weights."""
    value = site.given(site.arguments[0])
    if value.rank != 3:
        raise CorruptFile("a spectrogram of other than channels over time", where=site.label)
    mode = site.word("mode", "log", *_MODES)
    first = is_channels_first(site)
    channels, time = (1, 2) if first else (2, 1)
    count = value.static(channels)
    if count is None:
        raise site.refused("inputs", "an unknown number of channels")
    step = site.option("frame_step") or site.integer("frame_length", 256) // 2
    if not isinstance(step, int):
        raise site.refused("frame_step", step)
    length = site.part.arrays[0].shape[0]
    # (batch, 1, channels, time): each channel by itself, as rows of an image.
    name = site.op("Unsqueeze", [site.writer.form(value, (0, channels, time)), site.ints(1)])
    padding, steps = _padding(site, value.shape[time], length, step)

    def part(role: str) -> str:
        _, _, bins = site.needed(role).shape
        kernel = site.weight(role, (2, 1, 0), (bins, 1, 1, length))
        return site.op(
            "Conv", [name, kernel], role.removesuffix("_kernel"), kernel_shape=[1, length],
            strides=[1, step], **padding,
        )  # fmt: skip

    bins = site.part.arrays[0].shape[-1] * (2 if mode == "stft" else 1)
    made = _of_mode(site, mode, part)
    return _arranged(site, made, (value.shape[0], bins, count, steps), first=first)


def _padding(site: Site, size: Axis, length: int, step: int) -> tuple[dict[str, Any], Axis]:
    """Return the attributes that pad the time, and how many windows there are."""
    if site.word("padding", "valid", "valid", "same") == "valid":
        return {}, (size - length) // step + 1 if isinstance(size, int) else None
    if not isinstance(size, int):
        return {"auto_pad": "SAME_UPPER"}, size if step == 1 else None
    steps = -(-size // step)
    total = max((steps - 1) * step + length - size, 0)
    return {"pads": [0, total // 2, 0, total - total // 2]}, steps


def _of_mode(site: Site, mode: str, part: Any) -> str:
    """Return (batch, frequencies, channels, windows)."""
    if mode in ("real", "imag"):
        return str(part(f"{mode}_kernel"))
    real, imaginary = part("real_kernel"), part("imag_kernel")
    if mode == "angle":
        return angle(site, imaginary, real)
    if mode == "stft":
        return site.op("Concat", [real, imaginary], axis=1)
    squares = [site.op("Mul", [name, name], "square") for name in (real, imaginary)]
    power = site.op("Add", squares, "power")
    if mode == "psd":  # what is between the first and the last stands for two frequencies
        bins = site.part.arrays[0].shape[-1]
        factors = np.full((bins, 1, 1), 2, np.float32)
        factors[[0, -1]] = 1
        return site.op("Mul", [power, site.constant(factors.astype(site.compute), "twice")], "psd")
    least = site.number(_LEAST)
    magnitude = site.op("Sqrt", [site.op("Max", [power, least])], "magnitude")
    if mode == "magnitude":
        return magnitude
    return site.op("Log", [site.op("Max", [magnitude, least])], "log")


def _arranged(
    site: Site, made: str, shape: tuple[Axis, int, int, Axis], *, first: bool
) -> Value:
    """Return (batch, frequencies, channels, windows) as the layer's options say."""
    batch, bins, channels, steps = shape
    if site.flag("expand_dims", False):
        if first:
            return site.made(made, (batch, channels, steps, bins), (0, 3, 1, 2))
        return site.made(made, (batch, steps, bins, channels), (0, 2, 3, 1))
    if first:
        turned = site.op("Transpose", [made], "by_channel", perm=[0, 2, 1, 3])
        flat = site.op("Reshape", [turned, site.ints(0, bins * channels, -1)], "joined")
        return site.made(flat, (batch, bins * channels, steps))
    turned = site.op("Transpose", [made], "by_window", perm=[0, 3, 2, 1])
    flat = site.op("Reshape", [turned, site.ints(0, -1, bins * channels)], "joined")
    return site.made(flat, (batch, steps, bins * channels))


# ---- transforms ----------------------------------------------------------------------------------
#
# ONNX Runtime's DFT errs by 5e-6 where a size is not a power of two; a product with the waves does
# not, and is in every opset.


def fft(site: Site, real: Value, imaginary: Value) -> list[Value]:
    """FFT: a complex transform of the last axis, in two parts."""
    return _transformed(site, real, imaginary, real.rank - 1)


def fft2(site: Site, real: Value, imaginary: Value) -> list[Value]:
    """FFT2: a complex transform of the last two axes, in two parts."""
    first = _transformed(site, real, imaginary, real.rank - 1)
    return _transformed(site, first[0], first[1], real.rank - 2)


def ifft2(site: Site, real: Value, imaginary: Value) -> list[Value]:
    """IFFT2: back from `fft2`. Exchanged parts make the transform turn the other way."""
    swapped = fft2(site, imaginary, real)
    count = math.prod(_length_of(site, real, axis) for axis in (-2, -1))
    divided = [
        site.op("Div", [site.writer.form(part), site.number(float(count))], "divided")
        for part in swapped[::-1]
    ]
    return [site.made(name, real.shape) for name in divided]


def rfft(site: Site, value: Value) -> list[Value]:
    """RFFT: the transform of real numbers, cut off or filled with zeros to `fft_length`."""
    size = _length_of(site, value, -1)
    length = site.integer("fft_length", size)
    waves = _waves(site, size, length, length // 2 + 1)
    waves[length:] = 0
    name = site.op("MatMul", [site.writer.form(value), _kernel(site, waves, "waves")])
    return _parts(site, name, (*value.shape[:-1], length // 2 + 1), value.rank - 1)


def irfft(site: Site, real: Value, imaginary: Value) -> Value:
    """IRFFT: back from `rfft`, cut off or filled with zeros to what `fft_length` has."""
    size = _length_of(site, real, -1)
    length = site.integer("fft_length", 2 * (size - 1))
    cosines, sines = np.split(_waves_back(site, size, length), 2, axis=1)
    parts = [
        site.op("MatMul", [site.writer.form(value), _kernel(site, kernel, what)])
        for value, kernel, what in ((real, cosines, "cosines"), (imaginary, sines, "sines"))
    ]
    return site.made(site.op("Add", parts, "signal"), (*real.shape[:-1], length))


def _waves_back(site: Site, size: int, length: int) -> Array:
    """Return what the real and the imaginary part of each frequency are in a signal, (size,
    2 · length)."""
    waves = _waves(site, size, length, length)
    waves[length // 2 + 1 :] = 0
    # The first frequency, and the last of an even length, stand for themselves; the rest for two.
    twice = np.full((size, 1), 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[length // 2 : length // 2 + 1] = 1
    return np.asarray(waves * twice / length)


def istft(site: Site, real: Value, imaginary: Value) -> Value:
    """ISTFT: the sum of what windows of frequencies are in a signal, each at its place: a
    transposed convolution. Its window is TensorFlow's (`inverse_stft_window_fn`)."""
    if site.compute not in ("float32", "float64"):
        raise site.refused("inputs", site.compute)
    size, step = site.integer("fft_length"), site.integer("sequence_stride")
    bins, window = _length_of(site, real, -1), np.ones(size)
    if site.config.get("window", "hann") is not None:
        window = _window(site, size)
        squares = np.pad(window**2, (0, -size % step)).reshape(-1, step).sum(0)
        whole = np.resize(squares, size)
        window = np.divide(window, whole, out=np.zeros(size), where=whole != 0)
    kernel = np.stack(np.split(_waves_back(site, bins, size), 2, axis=1)) * window
    names = [site.op("Unsqueeze", [site.writer.form(part), site.ints(real.rank - 1)], "part")
             for part in (real, imaginary)]  # fmt: skip
    joined = site.op("Concat", names, "parts", axis=real.rank - 1)  # (…, windows, 2, bins)
    shape = site.op("Shape", [joined], "shape")
    windows = site.op("Slice", [shape, site.ints(-3), site.ints(-2)], "window_count")
    flat_shape = site.op("Concat", [site.ints(-1), windows, site.ints(2 * bins)], axis=0)
    flat = site.op("Reshape", [joined, flat_shape], "flat")
    channels = site.op("Transpose", [flat], "frequencies", perm=[0, 2, 1])
    name = _kernel(site, kernel.reshape(2 * bins, 1, size), "waves")
    made = site.op("ConvTranspose", [channels, name], "signal", kernel_shape=[size], strides=[step])
    outer = site.op("Slice", [shape, site.ints(0), site.ints(-3)], "outer_shape")
    whole_shape = site.op("Concat", [outer, site.ints(-1)], axis=0)
    made = site.op("Reshape", [made, whole_shape], "whole_signal")
    start = size // 2 if site.flag("center", True) else 0
    end = start + site.integer("length") if site.option("length") is not None else -start or END
    made = site.op("Slice", [made, site.ints(start), site.ints(end), site.ints(-1)], "cut")
    count = real.static(-2)
    total = None if count is None else len(range(size + step * (count - 1))[start:end])
    return site.made(made, (*real.shape[:-2], total))


def stft(site: Site, value: Value) -> list[Value]:
    """STFT: the transforms of windows that move along the last axis."""
    if site.compute not in ("float32", "float64"):
        raise site.refused("inputs", site.compute)
    size, step = site.integer("fft_length"), site.integer("sequence_stride")
    samples = _length_of(site, value, -1)
    if site.flag("center", True):
        sides = [0] * (value.rank - 1)
        pads = site.ints(*sides, size // 2, *sides, size // 2)
        name = site.op("Pad", [site.writer.form(value), pads], "reflected", mode="reflect")
        value = site.made(name, (*value.shape[:-1], samples + 2 * (size // 2)))
    moved = windows(site, value, size, step)
    waves = _waves(site, size, size, size // 2 + 1) * _window(site, size)[:, None]
    name = site.op("MatMul", [site.writer.form(moved), _kernel(site, waves, "waves")])
    return _parts(site, name, (*moved.shape[:-1], size // 2 + 1), moved.rank - 1)


def windows(site: Site, value: Value, length: int, step: int) -> Value:
    """Return windows of the last axis, (…, windows, length)."""
    size = _length_of(site, value, -1, math.inf)
    if size < length:
        raise site.refused("sequence_length", length, "the axis is shorter than a window")
    starts = np.arange(0, size - length + 1, step)
    places = site.constant((starts[:, None] + np.arange(length)).astype(np.int64), "places")
    made = site.op("Gather", [site.writer.form(value), places], "windows", axis=value.rank - 1)
    return Value(made, value.dtype, (*value.shape[:-1], len(starts), length))


def _transformed(site: Site, real: Value, imaginary: Value, axis: int) -> list[Value]:
    """Return the complex transform along one of the last two axes, in two parts."""
    size, is_last = _length_of(site, real, axis), axis == real.rank - 1
    waves = _waves(site, size, size, size)
    kernel = _kernel(site, waves if is_last else waves.T, f"waves_{axis}")

    def product(value: Value) -> list[str]:
        name = site.writer.form(value)
        made = site.op("MatMul", [name, kernel] if is_last else [kernel, name])
        return [site.writer.form(part) for part in _parts(site, made, real.shape, axis)]

    (cosines, sines), (turned_cosines, turned_sines) = product(real), product(imaginary)
    parts = [site.op("Sub", [cosines, turned_sines], "real"),
             site.op("Add", [sines, turned_cosines], "imaginary")]  # fmt: skip
    return [site.made(name, real.shape) for name in parts]


def _parts(site: Site, name: str, shape: Shape, axis: int) -> list[Value]:
    """Return the real and the imaginary half of an axis, each of a shape."""
    size = int(str(shape[axis]))
    names = site.ops("Split", [name, site.ints(size, size)], 2, "parts", axis=axis)
    return [site.made(part, shape) for part in names]


def _waves(site: Site, size: int, length: int, bins: int) -> Array:
    """Return cosines and sines of a transform, (size, 2 · bins): exp(-2 pi i t k / length)."""
    if max(size, length) > _LONGEST:
        raise site.refused("inputs", f"an axis of {max(size, length)}",
                           f"a transform of more than {_LONGEST} numbers")  # fmt: skip
    turns = np.outer(np.arange(size), np.arange(bins)) % length * (2 * np.pi / length)
    return np.concatenate([np.cos(turns), -np.sin(turns)], axis=1)


def _kernel(site: Site, array: Array, what: str) -> str:
    return site.constant(np.ascontiguousarray(array.astype(dtype_of(site.compute))), what)


def _length_of(site: Site, value: Value, axis: int, most: float = _LONGEST) -> int:
    size = value.static(axis)
    if size is None or not 0 < size <= most:
        raise site.refused("inputs", size, "a transform of an axis whose length is not known, or "
                           f"is more than {_LONGEST}")  # fmt: skip
    return size


# ---- sounds --------------------------------------------------------------------------------------


def mel_spectrogram(site: Site) -> Value:
    """MelSpectrogram: powers in bands as the ear has them, in decibels."""
    if site.compute not in ("float32", "float64"):
        site.compute = "float32"
    value = site.given(site.arguments[0])
    if value.rank != 2:
        raise site.refused("inputs", f"sounds of {value.rank} axes")
    size, step = site.integer("fft_length", 2048), site.integer("sequence_stride", 512)
    half = size // 2
    padded = site.op(
        "Pad", [site.writer.form(value), site.ints(0, half, 0, half)], "reflected", mode="reflect"
    )
    is_exact = size & (size - 1) == 0 and site.writer.opset >= _STFT_SINCE
    by = _power if is_exact else _power_by_waves
    power = by(site, padded, size, step)
    exponent = site.real("mag_exp", 2.0)
    if exponent != 2.0:
        spectrum = site.op("Sqrt", [power], "magnitude")
        power = site.op("Pow", [spectrum, site.number(exponent)], "power_of_magnitude")
    matrix = _bands(site, half + 1).astype(site.compute)
    if is_exact:
        made = site.op("MatMul", [power, site.constant(matrix, "bands")], "mel")
    else:
        bands = site.constant(np.ascontiguousarray(matrix.T), "bands")
        made = site.op("MatMul", [bands, power], "mel")
    if site.flag("power_to_db", True):
        made = _decibels(site, made)
    samples = value.static(1)
    steps = None if samples is None else (samples + 2 * half - size) // step + 1
    shape = (value.shape[0], site.integer("num_mel_bins", 128), steps)
    order = (0, 2, 1) if is_exact else (0, 1, 2)
    return site.writer.cast(site.made(made, shape, order), site.policy)


def _power(site: Site, signal: str, size: int, step: int) -> str:
    """Return the power of each frequency in each window, (batch, windows, frequencies)."""
    channel = site.op("Unsqueeze", [signal, site.ints(2)], "signal")
    window = site.constant(_window(site, size).astype(site.compute), "window")
    places = [site.writer.place(number) for number in (step, size)]
    pairs = site.op("STFT", [channel, places[0], window, places[1]], "frequencies", onesided=1)
    squares = site.op("Mul", [pairs, pairs], "squares")
    return site.reduce("ReduceSum", squares, [3], "power")


def _power_by_waves(site: Site, signal: str, size: int, step: int) -> str:
    """Return the same as (batch, frequencies, windows), by products with cosines and sines: the
    STFT of ONNX Runtime errs by 5e-6 where the size is not a power of two."""
    channel = site.op("Unsqueeze", [signal, site.ints(1)], "signal")
    turns = 2 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(size)) / size
    squares = []
    for wave in (np.cos, np.sin):
        kernel = (wave(turns) * _window(site, size))[:, None].astype(site.compute)
        name = site.constant(kernel, f"{wave.__name__}es")
        made = site.op("Conv", [channel, name], wave.__name__, kernel_shape=[size], strides=[step])
        squares.append(site.op("Mul", [made, made], "square"))
    return site.op("Add", squares, "power")


def _window(site: Site, size: int) -> Array:
    """Return the window, in the middle of zeros: periodic, as TensorFlow's are of an even length
    (tensorflow/python/ops/signal/window_ops.py)."""
    length = site.integer("sequence_length", size)
    kind = site.config.get("window", "hann")
    shares = {"hann": 0.5, "hamming": 0.54}
    if not 0 < length <= size or (kind is not None and kind not in ("hann", "hamming")):
        raise site.refused("window", kind)
    if kind is None:  # not even its length counts then
        return np.ones(size)
    if length % 2:
        raise site.refused("sequence_length", length, "TensorFlow has another window of an odd "
                           "length than Keras's other backends")  # fmt: skip
    share = shares[str(kind)]
    window = share - (1 - share) * np.cos(2 * np.pi * np.arange(length) / length)
    before = (size - length) // 2
    return np.pad(window, (before, size - length - before))


def _mel(frequency: Array | float) -> Array:
    share = np.asarray(frequency, np.float32) / np.float32(_MEL_BREAK_FREQUENCY)
    return np.asarray(np.float32(_MEL_HIGH_FREQUENCY) * np.log(np.float32(1) + share))


def _bands(site: Site, count: int) -> Array:
    """Return how much of each frequency is in each band, (frequencies, bands): triangles between
    places that are as far from each other in mel."""
    rate, bands = site.real("sampling_rate", 16000), site.integer("num_mel_bins", 128)
    low, high = site.real("min_freq", 20.0), site.real("max_freq", rate // 2)
    frequencies = np.linspace(0, rate / 2, count, dtype=np.float32)[1:]
    mels = _mel(frequencies)[:, None]
    edges = np.linspace(_mel(low), _mel(high), bands + 2, dtype=np.float32)
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(np.float32(0), np.minimum(rising, falling))
    return np.pad(triangles, ((1, 0), (0, 0)))


def _decibels(site: Site, name: str) -> str:
    least, ten = site.real("min_power", 1e-10), site.number(10.0)
    tall = site.op("Max", [name, site.number(least)], "powers")
    log = site.op("Div", [site.op("Log", [tall]), site.number(math.log(10.0))], "log10")
    reference = 10 * math.log10(max(abs(site.real("ref_power", 1.0)), least))
    decibels = site.op("Sub", [site.op("Mul", [ten, log]), site.number(reference)], "decibels")
    top = site.reduce("ReduceMax", decibels, [0, 1, 2], "loudest")
    lowest = site.op("Sub", [top, site.number(site.real("top_db", 80.0))], "lowest")
    return site.op("Max", [decibels, lowest], "heard")


def angle(site: Site, first: str, second: str) -> str:
    """The angle of the point (second, first), from -pi to pi."""
    zero, half_turn = site.number(0.0), site.number(math.pi)
    angle = site.op("Atan", [site.op("Div", [first, second])])
    is_below = site.op("Less", [first, zero], "is_below")
    turn = site.op("Where", [is_below, site.op("Neg", [half_turn]), half_turn], "turn")
    is_left = site.op("Less", [second, zero], "is_left")
    angle = site.op("Where", [is_left, site.op("Add", [angle, turn]), angle], "turned")
    # Straight up or down the quotient is infinite, whose angle is right; 0 / 0 is not a number.
    is_both = site.op("And", [site.op("Equal", [first, zero]), site.op("Equal", [second, zero])])
    return site.op("Where", [is_both, zero, angle], "angle")
