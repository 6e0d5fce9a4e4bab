"""The table of containers: every kind of file that is read or written here, one row each.

A new container is a row and a module. These rows say how files are recognised and opened, which
suffix names which kind of file to write, what a folder is searched for, and how a kind of file is
called in titles, hints, help texts and the guide. Nothing else in the package knows a container
by its name.

The order of the rows is the order in which they are tried: by what a file holds first, then by its
name. A file that no row knows may still be of a kind that people mistake for a model: these are
the rows of `FOREIGN`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Set
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from lstmconvert.errors import install

if TYPE_CHECKING:
    from lstmconvert.containers.modules import (
        ArrayModule,
        ChainModule,
        DraftingModule,
        Opened,
        OpeningModule,
    )
    from lstmconvert.files.jsontext import Json

Test = Callable[["Opened"], bool]

PER_GATE, KERAS = "gates", "keras"
#: The hint where a .mat file is of a version that is not read.
SAVE_IN_MATLAB = "in MATLAB: s = load(file); save(file, '-struct', 's', '-v7')"
_ONNX_OPTIONS = frozenset({"fused", "whole", "chain", "opset", "state_inputs", "length_input"})
_KERAS_OPTIONS = frozenset(
    {
        *("rescale_hard_sigmoid", "era", "for_keras", "keep_custom", "weights_of", "replace"),
        "no_compile",
    }
)
#: Options of `convert` that some kinds of file take and others do not -> what they are for.
OPTIONS = {
    **dict.fromkeys(sorted(_ONNX_OPTIONS), "ONNX destinations"),
    **dict.fromkeys(sorted(_KERAS_OPTIONS), "Keras destinations"),
    "replace": "whole models, for Keras or ONNX",
    "prefix": "C headers",
    "weights": "C headers",
    "fold_batchnorm": "destinations that hold chains of layers",
    "check": "destinations with a place for what a model answers",
    "with_other": "destinations of named arrays",
    "with_optimizer": "destinations that hold the weights of other layers",
}


class Container(NamedTuple):
    """One kind of file.

    Fields:
        name: what metadata and `--json` call it.
        title: what people call it.
        suffixes: of its files.
        module: the module that opens and writes it, below this package or by its whole name. It is
            imported when it is needed.
        known: whether a path is such a file, or None: it is written only.
        arrays: whether its files are named arrays, so that the module is an `ArrayModule`; else it
            opens and drafts models.
        written: whether it is written here.
        layouts: the layouts that it is made for.
        general: whether it holds every other layout too, but those of a `sole` container.
        sole: whether no other container holds its layouts.
        default: the layout that it is written in, where the user names none; None: one of several
            has to be named.
        fixed: whether its arrays have no other names than those of its one layout.
        document: whether it says more of a layer than its arrays: its functions, its options.
        metadata: whether it has a place for our metadata, so that every option comes back from it.
        checksums: whether its per-gate files carry a checksum of each array.
        other: whether it has a place for tensors of other layers.
        chain: whether it holds a whole model that is a chain of layers: its module is a
            `ChainModule`.
        program: the program that its files are made for, where they say more than layers, for that
            program: what they say is carried between files of one program.
        second: the suffix of a second file, where it has one.
        folder: whether names are those of a folder that is one such model.
        as_folder: whether it is written as such a folder, not as a file.
        ambiguous: whether files of these suffixes are often something else, so that one in a folder
            that is not a model is passed over.
        options: those of `OPTIONS` that it takes, in addition to what `other` states; `check` is
            among them only where a file without our metadata has a place for it.
        use: what it is written for, in the help text of `convert`; empty: the file of a framework.
        instead: what to do where a file of this kind is asked for, and it is not written here.
        by: what makes or takes such files.
        notes: for the guide.
        needs: the extra of this package that reads and writes it.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    module: str
    known: Test | None = None
    arrays: bool = True
    written: bool = True
    layouts: tuple[str, ...] = ()
    general: bool = False
    sole: bool = False
    default: str | None = None
    fixed: bool = False
    document: bool = False
    metadata: bool = True
    checksums: bool = False
    other: bool = False
    chain: bool = False
    program: str = ""
    second: str | None = None
    folder: Callable[[Set[str]], bool] | None = None
    as_folder: bool = False
    ambiguous: bool = False
    options: frozenset[str] = frozenset()
    use: str = ""
    instead: str | None = None
    by: str = ""
    notes: str = ""
    needs: str | None = None

    @property
    def is_keras(self) -> bool:
        """Whether it is one of Keras's own files."""
        return KERAS in self.layouts

    @property
    def has_place(self) -> bool:
        """Whether a file has a place for our metadata that is read again. Keras's do not."""
        return self.metadata and self.known is not None and not self.is_keras

    @property
    def kind(self) -> str:
        """Its title without an article, and without its suffix."""
        return self.title.partition(" (")[0].removeprefix("a ").removeprefix("an ")

    @property
    def replaceable(self) -> Callable[[Path], bool] | None:
        """Whether a folder may give way to a new one; None where a file is written."""
        return self._is_model if self.as_folder else None

    def _is_model(self, path: Path) -> bool:
        from lstmconvert.containers.modules import Opened

        return self.folder is not None and self.folder(Opened(path).names)

    @property
    def destinations(self) -> str:
        """The layouts that it is written in, in words, the default first."""
        if not self.written:
            return "not written"
        names = [f"`{name}`" for name in self.layouts]
        return ", ".join([*names, *(["a framework's"] if self.general else [])])

    @property
    def fixed_layout(self) -> str | None:
        """The layout that its arrays always have, if there is one."""
        return self.layouts[0] if self.fixed else None

    def takes(self, option: str) -> bool:
        """Whether one of `OPTIONS` means something for this kind of file."""
        if option == "with_other":
            return self.other
        if option == "fold_batchnorm":
            return self.chain
        if option == "check" and self.has_place:
            return True
        if option == "with_optimizer":
            return self.other or self.is_keras
        return option in self.options

    def tells(self, layout: str) -> bool:
        """Whether the name of the container tells that its arrays are in this layout."""
        if self.general:
            return False
        return not self.layouts or self.layouts == (layout,)

    def holds(self, layout: str) -> bool:
        """Whether it holds a layout."""
        if layout in self.layouts or not self.general:
            return layout in self.layouts
        return layout not in _sole_layouts() and layout != PER_GATE

    def array_module(self) -> ArrayModule:
        """Return the module of a container of named arrays."""
        return cast("ArrayModule", self._module())

    def chain_module(self) -> ChainModule:
        """Return the module of a container that holds a whole chain of layers."""
        return cast("ChainModule", self._module())

    def opening_module(self) -> OpeningModule:
        """Return the module that opens its files as models."""
        return cast("OpeningModule", self._module())

    def drafting_module(self) -> DraftingModule:
        """Return the module that it is written by from models."""
        return cast("DraftingModule", self._module())

    def _module(self) -> object:
        return _imported(self.module)


@cache
def _imported(module: str) -> object:
    return import_module(module, __package__)


# -- how files are recognised -----------------------------------------------------------------


def starts(data: bytes, at: int = 0) -> Test:
    """Return the test for a file with these bytes at one of its first places."""
    return lambda file: file.head[at:].startswith(data)


def named(*suffixes: str) -> Test:
    """Return the test for a file whose name ends so."""
    return lambda file: file.is_there and file.path.name.lower().endswith(suffixes)


def json_with(**kinds: type) -> Test:
    """Return the test for a JSON object that has these keys, with values of these types."""

    def test(file: Opened) -> bool:
        value = file.json
        return isinstance(value, dict) and all(
            key in value and isinstance(value[key], kind) for key, kind in kinds.items()
        )

    return test


def either(*tests: Test) -> Test:
    """Return the test for what one of several tests knows."""
    return lambda file: any(test(file) for test in tests)


def both(first: Test, second: Test) -> Test:
    """Return the test for what two tests know."""
    return lambda file: first(file) and second(file)


def _hdf5(file: Opened) -> bool:
    return file.is_hdf5


def _keras_names(names: Set[str]) -> bool:
    from lstmconvert.keras.stores.archive import is_archive  # imported late to keep start-up fast

    return is_archive(names)


def _keras_archive(file: Opened) -> bool:
    return (file.is_folder or file.is_zip) and _keras_names(file.names)


def _safetensors(file: Opened) -> bool:
    """Eight bytes of a length, and a JSON object."""
    return file.head[8:9] == b"{" and not file.is_zip


def _zip_of_arrays(file: Opened) -> bool:
    return file.is_zip and any(name.endswith(".npy") for name in file.names)


#: The number that begins what `torch.save` wrote before it wrote zips (torch/serialization.py).
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P"


def _of_torch(file: Opened) -> bool:
    """A zip of one folder, with a pickle and a version; or a pickle of the number above."""
    if file.head.startswith(_OLD_TORCH):
        return True
    roots = {name.partition("/")[0] for name in file.names} if file.is_zip else set()
    if len(roots) != 1:
        return False
    root = next(iter(roots))
    return {f"{root}/data.pkl", f"{root}/version"} <= set(file.names)


def _of_lwtnn(file: Opened) -> bool:
    """Its layers have an architecture (lwtnn/src/parse_json.cxx, `get_layer`)."""
    match file.json:
        case {"layers": [{"architecture": str()}, *_], "inputs": list(), "outputs": _}:
            return True
    return False


#: First bytes of what joblib compresses by default, and of gzip (RFC 1950, 2.2; RFC 1952, 2.3.1).
COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")
_PICKLES = (".pkl", ".pickle", ".joblib")


def _of_pickle(file: Opened) -> bool:
    """A pickle of protocol 2 to 5 (Lib/pickletools.py), or one that joblib compressed."""
    if file.head[:1] == b"\x80" and file.head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    return file.head.startswith(COMPRESSED) and named(*_PICKLES)(file)


def _equinox(file: Opened) -> bool:
    return file.head.startswith((b"\x93NUMPY", b"{")) and named(".eqx")(file)


def _onnx(file: Opened) -> bool:
    """ir_version from 3, and the tag of a field that follows it (onnx/onnx.proto, ModelProto)."""
    head, following = file.head, b"\x12\x1a\x22\x28\x32\x3a\x42"
    is_model = len(head) > 2 and head[0] == 8 and 3 <= head[1] < 128 and head[2] in following
    return is_model or named(".onnx")(file)


def _plain_arrays(value: Json) -> bool:
    """Whether a JSON value is an object of nested lists of numbers, or of such objects."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            _is_array(item)
            or (isinstance(item, dict) and bool(item) and all(map(_is_array, item.values())))
            for item in value.values()
        )
    )


def _is_array(item: Json) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], (int, float, list))


def _package_names(names: Set[str]) -> bool:
    """Whether these are the names in a Core ML package (coremltools/models/utils.py)."""
    return {"Manifest.json", "Data/"} <= names


def _saved_model_names(names: Set[str]) -> bool:
    return "saved_model.pb" in names


def _saved_model(file: Opened) -> bool:
    """A folder that `tf.saved_model.save` wrote, or one of the files by which it is given."""
    from lstmconvert.tensorflow.formats.savedmodel import is_saved_model

    if file.is_folder:
        return is_saved_model(file.path)
    is_part = file.path.name in ("saved_model.pb", "keras_metadata.pb")
    return is_part and is_saved_model(file.path.parent)


def _checkpoint(file: Opened) -> bool:
    """A folder of checkpoints, the start of their names, or one of their files."""
    if file.is_folder:
        marks = {"saved_model.pb", "checkpoint", "variables/"}
        return bool(file.names & marks) or any(name.endswith(".index") for name in file.names)
    path = file.path
    if not file.is_there:
        return os.path.isfile(f"{path}.index")
    is_part = path.name in ("checkpoint", "saved_model.pb") or ".data-" in path.name
    if is_part or (path.suffix == ".meta" and path.with_suffix(".index").is_file()):
        return True
    from lstmconvert.tensorflow.formats.checkpoint import is_table

    return is_table(file.source)


def _graph(file: Opened) -> bool:
    """A GraphDef: its first field is a node, which begins with a name and an operation; or a
    `.meta` file that has one, and no checkpoint beside it."""
    if file.head[:1] != b"\x0a":
        return False
    from lstmconvert.tensorflow.formats.graphdef import is_graph

    return is_graph(file.source)


# -- the rows ---------------------------------------------------------------------------------

_FLAX = ("flax", "nnx", "nnx-optimized", "flax-cell", "nnx-cell", "nnx-optimized-cell")

CONTAINERS: tuple[Container, ...] = (
    Container(
        name="safetensors",
        title="a safetensors file",
        suffixes=(".safetensors",),
        module=".safetensors",
        known=_safetensors,
        layouts=(PER_GATE,),
        general=True,
        default=PER_GATE,
        checksums=True,
        other=True,
        use="one tensor a gate",
        by="lstmconvert, PyTorch, Flax, MLX and others",
        notes="per gate, or in a framework's layout",
    ),
    Container(
        name="keras",
        title="a Keras archive (.keras)",
        suffixes=(".keras",),
        module=".keras",
        known=_keras_archive,
        arrays=False,
        layouts=(KERAS,),
        default=KERAS,
        folder=_keras_names,
        options=_KERAS_OPTIONS,
        use="Keras",
        by="Keras 3.0 to 3.15, TF 2.12 to 2.15, tf_keras",
        notes="stored members are read in place; an unzipped directory and `model.weights.npz` "
        "too, without unpickling; a `.keras` that is really HDF5",
    ),
    Container(
        name="npz",
        title="a NumPy archive (.npz)",
        suffixes=(".npz",),
        module=".npz",
        known=_zip_of_arrays,
        layouts=(PER_GATE,),
        general=True,
        default=PER_GATE,
        checksums=True,
        other=True,
        ambiguous=True,
        use="one tensor a gate",
        by="lstmconvert, NumPy, Chainer",
        notes="per gate, or in a framework's layout",
    ),
    Container(
        name="pt",
        title="a PyTorch file",
        suffixes=(".pt", ".pth"),
        module=".torchfile",
        known=_of_torch,
        written=False,
        general=True,
        other=True,
        ambiguous=True,
        instead="PyTorch takes .safetensors --to torch: safetensors.torch.load_file(path)",
        by="`torch.save`",
        notes="opened without PyTorch: the pickle is read as data, and nothing in it is called; "
        "state_dicts, training checkpoints, whole modules; before PyTorch 1.6, too",
    ),
    Container(
        name="pickle",
        title="a pickle",
        suffixes=_PICKLES,
        module=".picklefile",
        known=_of_pickle,
        arrays=False,
        written=False,
        metadata=False,
        ambiguous=True,
        instead="no pickle is written: .npz holds the same arrays and their names",
        by="`pickle.dump`, `joblib.dump` of a Keras model, or of `get_weights()`",
        notes="read as data, and nothing in it is called; models of Keras 2.12 and later",
    ),
    Container(
        name="params",
        title="an MXNet parameters file (.params)",
        suffixes=(".params",),
        module=".params",
        known=starts(b"\x12\x01" + bytes(6)),
        layouts=("mxnet",),
        other=True,
        ambiguous=True,
        by="MXNet, `save_parameters`, `load_parameters`",
    ),
    Container(
        name="ncnn",
        title="an ncnn model (.param)",
        suffixes=(".param",),
        module=".ncnn",
        known=starts(b"7767517\n"),
        layouts=("ncnn",),
        default="ncnn",
        fixed=True,
        chain=True,
        document=True,
        second=".bin",
        by="ncnn",
        notes="`x.param` and `x.bin`; the whole chain of layers",
    ),
    Container(
        name="tflite",
        title="a TensorFlow Lite model (.tflite)",
        suffixes=(".tflite",),
        module=".tflite",
        known=starts(b"TFL3", at=4),
        layouts=("tflite",),
        default="tflite",
        fixed=True,
        chain=True,
        document=True,
        by="TensorFlow's converter, LiteRT",
        notes="the fused LSTM operator, with the clip that the converter adds; and cells that the "
        "converter took apart, unrolled or in a WHILE; 8-bit weights as what they stand for",
        needs="tflite",
    ),
    Container(
        name="mat",
        title="a MATLAB file (.mat)",
        suffixes=(".mat",),
        module=".mat",
        known=starts(b"MATLAB "),
        layouts=("matlab",),
        default="matlab",
        ambiguous=True,
        by="MATLAB, `save` and `load`",
        notes="versions 5 to 7",
        needs="matlab",
    ),
    Container(
        name="msgpack",
        title="a msgpack file",
        suffixes=(".msgpack",),
        module=".msgpack",
        known=named(".msgpack"),
        layouts=_FLAX,
        default="flax",
        metadata=False,
        other=True,
        ambiguous=True,
        by="`flax.serialization`",
    ),
    Container(
        name="mlmodel",
        title="a Core ML model (.mlmodel)",
        suffixes=(".mlmodel",),
        module=".mlmodel",
        known=named(".mlmodel"),
        layouts=("coreml",),
        default="coreml",
        fixed=True,
        document=True,
        by="Core ML, coremltools, kraken",
        notes="LSTM layers of a neural network, in pipelines too",
    ),
    Container(
        name="mlpackage",
        title="a Core ML package (.mlpackage)",
        suffixes=(".mlpackage",),
        module=".mlprogram",
        known=lambda file: file.is_folder and _package_names(file.names),
        arrays=False,
        layouts=("coreml-mil",),
        default="coreml-mil",
        fixed=True,
        document=True,
        folder=_package_names,
        as_folder=True,
        by="Core ML, coremltools",
        notes="the `lstm` operations of an ML program, which is what is written, or the LSTM "
        "layers of a neural network; a folder",
    ),
    Container(
        name="eqx",
        title="an Equinox file (.eqx)",
        suffixes=(".eqx",),
        module=".eqx",
        known=_equinox,
        layouts=("equinox",),
        default="equinox",
        fixed=True,
        metadata=False,
        by="`equinox.tree_serialise_leaves`",
        notes="one cell; the arrays have no names",
    ),
    Container(
        name="weights.h5",
        title="a Keras weights file (.weights.h5)",
        suffixes=(".weights.h5",),
        module=".keras",
        known=_hdf5,
        arrays=False,
        layouts=(KERAS,),
        default=KERAS,
        options=_KERAS_OPTIONS,
        use="Keras",
        by="Keras 3, TF 2.12 and later",
        notes="no config: options are unknown until `--config` or `--set`",
    ),
    Container(
        name="h5",
        title="a legacy Keras file (.h5)",
        suffixes=(".h5", ".hdf5"),
        module=".keras",
        known=_hdf5,
        arrays=False,
        layouts=(KERAS,),
        default=KERAS,
        options=_KERAS_OPTIONS,
        use="Keras",
        by="Keras 0.x to 3, tf.keras, tf_keras",
        notes="whole models and weights alone; Keras 1's twelve arrays, `consume_less=\"gpu\"`, "
        "Theano's kernels",
    ),
    Container(
        name="weights.json",
        title="sharded Keras weights (.weights.json)",
        suffixes=(".weights.json",),
        module=".keras",
        known=json_with(weight_map=dict),
        arrays=False,
        written=False,
        instead="write a .weights.h5",
        by="Keras 3.10 and later",
        notes="no config, as in `.weights.h5`; the shards lie beside it",
    ),
    Container(
        name="frugally-deep",
        title="a frugally-deep model (.json)",
        suffixes=(".json",),
        module=".fdeep",
        known=json_with(architecture=object, trainable_params=dict),
        layouts=("frugally-deep",),
        fixed=True,
        chain=True,
        document=True,
        ambiguous=True,
        by="frugally-deep, `convert_model.py`, `load_model`",
        notes="a whole chain of layers of ours; of others the LSTMs, by the config inside",
    ),
    Container(
        name="tfjs",
        title="a TensorFlow.js model (model.json)",
        suffixes=(".json",),
        module=".tfjs",
        known=json_with(modelTopology=object, weightsManifest=list),
        layouts=("tfjs",),
        fixed=True,
        document=True,
        second=".bin",
        ambiguous=True,
        by="TensorFlow.js, `loadLayersModel`",
        notes="layers models, which become whole `.keras` files; `model.json` and its shards",
    ),
    Container(
        name="json",
        title="arrays as JSON",
        suffixes=(".json",),
        module=".jsonarrays",
        known=either(json_with(tensors=dict), lambda file: _plain_arrays(file.json)),
        general=True,
        other=True,
        ambiguous=True,
        by="lstmconvert, `json.dump` of a state_dict's lists",
        notes="nested lists of numbers that read back bit for bit",
    ),
    Container(
        name="trainer",
        title="a guitar trainer's JSON",
        suffixes=(".json",),
        module=".trainer",
        known=json_with(model_data=dict, state_dict=dict),
        written=False,
        layouts=("torch",),
        fixed=True,
        program="trainer",
        ambiguous=True,
        instead="AIDA-X and RTNeural take .aidax",
        by="Automated-GuitarAmpModelling and what came of it",
        notes="PyTorch's arrays as lists, with both biases, the head and `skip`",
    ),
    Container(
        name="nam",
        title="a Neural Amp Modeler file (.nam)",
        suffixes=(".nam",),
        module=".nam",
        known=json_with(architecture=str, config=dict, weights=list),
        layouts=("nam",),
        default="nam",
        fixed=True,
        chain=True,
        program="nam",
        by="Neural Amp Modeler",
        notes="the architecture LSTM, with its initial states and its head",
    ),
    Container(
        name="aida-x",
        title="an AIDA-X model (.aidax)",
        suffixes=(".aidax",),
        module=".rtneural",
        known=both(json_with(in_shape=object, layers=list), named(".aidax")),
        layouts=("rtneural",),
        default="rtneural",
        fixed=True,
        chain=True,
        program="rtneural",
        by="AIDA-X",
        notes="as RTNeural's",
    ),
    Container(
        name="rtneural",
        title="an RTNeural model (.json)",
        suffixes=(".json",),
        module=".rtneural",
        known=json_with(in_shape=object, layers=list),
        layouts=("rtneural",),
        fixed=True,
        chain=True,
        program="rtneural",
        ambiguous=True,
        by="RTNeural, AIDA-X",
        notes="the whole chain of layers, and all keys of the file",
    ),
    Container(
        name="lwtnn",
        title="an lwtnn model (.json)",
        suffixes=(".json",),
        module=".lwtnn",
        known=_of_lwtnn,
        layouts=("lwtnn",),
        fixed=True,
        document=True,
        ambiguous=True,
        by="lwtnn, `kerasfunc2json.py`, `keras2json.py`, `parse_json_graph`",
        notes="graphs and lists of layers; the input offsets and scales are not carried",
    ),
    Container(
        name="onnx",
        title="an ONNX model",
        suffixes=(".onnx",),
        module=".onnx",
        known=_onnx,
        arrays=False,
        layouts=(PER_GATE,),
        default=PER_GATE,
        other=True,
        options=_ONNX_OPTIONS | {"replace"},
        use="a graph that runs",
        by="lstmconvert, PyTorch, Keras, tf2onnx and others",
        notes="LSTM operators of any writer, and cells of plain operators, unrolled, in a Loop or "
        "a Scan; per gate where it is written here",
    ),
    Container(
        name="savedmodel",
        title="a SavedModel directory",
        suffixes=(),
        module=".tensorflow",
        known=_saved_model,
        arrays=False,
        written=False,
        folder=_saved_model_names,
        by="tf.keras, tf_keras, Keras 3 `export`, `tf.saved_model.save`",
        notes="the whole model where Keras 2 wrote it, or with `--config`; nothing is executed",
    ),
    Container(
        name="checkpoint",
        title="a TensorFlow checkpoint",
        suffixes=(".index",),
        module=".tensorflow",
        known=_checkpoint,
        arrays=False,
        written=False,
        by="`save_weights`, `tf.train.Checkpoint`, TF 1 `Saver` (V1 and V2)",
        notes="roles from the object graph; with `--config` the whole model; TF 1's cells, stacks "
        "and both directions, under any name; `--from tf1` says that what has a cell's arrays is "
        "one",
    ),
    Container(
        name="graphdef",
        title="a frozen graph of TensorFlow (.pb)",
        suffixes=(".pb",),
        module=".tensorflow",
        known=_graph,
        arrays=False,
        written=False,
        ambiguous=True,
        instead="write a .keras: keras.models.load_model(path).export(folder) makes a SavedModel",
        by="`convert_variables_to_constants`, `freeze_graph`",
        notes="also a `.meta` whose weights are constants; TF 1's cells by the names of their "
        "constants, cells that are one operation (of cuDNN's the vector that Keras makes), and any "
        "cell of plain operations; the graph says the forget bias, the functions, the clips and "
        "how the layer runs",
    ),
    Container(
        name="c",
        title="a C header",
        suffixes=(".h",),
        module=".cheader",
        layouts=("c",),
        sole=True,
        chain=True,
        options=frozenset({"prefix", "weights", "check"}),
        default="c",
        document=True,
        use="C",
        by="any C99 compiler",
        notes="a forward pass that needs only `math.h`; written only",
    ),
)

_TENSORRT = "write a .onnx, of which trtexec --onnx=FILE makes an engine"
_C = "write a .h, which is a whole forward pass in C99"
#: Suffixes of files that are not written here, and are asked for -> the road that there is.
ROADS = {
    ".engine": _TENSORRT,
    ".plan": _TENSORRT,
    ".trt": _TENSORRT,
    ".xml": "write a .onnx, which OpenVINO reads as it is",
    ".npy": ".npz holds several arrays and their names",
    ".c": _C,
    ".cpp": _C,
    ".hpp": _C,
    ".ckpt": "no checkpoint is written: .weights.h5 is what model.load_weights(path) takes",
}

#: Kinds of models that came from no file: name -> name in words.
IN_MEMORY = {"live": "a layer in memory", "arrays": "arrays in memory"}


class Foreign(NamedTuple):
    """A kind of file that people mistake for a model, and that is refused by its name.

    Fields: `what` it is; `known`, as in `Container`; `hint`: what to do; `expected` instead.
    """

    what: str
    known: Test
    hint: str | None = None
    expected: str | None = None


def _level_4(file: Opened) -> bool:
    """The first bytes of a `.mat` file of version 4, which has no signature.

    Type (in decimal: byte order, 0, numbers, kind), rows, columns, whether there are imaginary
    parts ("MAT-File Format", MathWorks, chapter 2; scipy/io/matlab/_mio4.py).
    """
    if not named(".mat")(file) or len(file.head) < 16:
        return False
    for order in "<>":
        kind, rows, columns, imaginary = struct.unpack(f"{order}4i", file.head[:16])
        fits = kind // 1000 in range(5) and kind // 100 % 10 == 0
        fits = fits and kind // 10 % 10 in range(6) and kind % 10 in range(3)
        if fits and min(rows, columns) >= 0 and imaginary in (0, 1):
            return True
    return False


def _in_folder(name: str) -> Test:
    return lambda file: file.is_folder and name in file.names


def _of_tesseract(file: Opened) -> bool:
    """The number of entries, at most 1000, and where the first is, or that there is none
    (tesseract, src/ccutil/tessdatamanager.cpp, `LoadMemBuffer`)."""
    if len(file.head) < 12:
        return False
    count, first = struct.unpack("<Iq", file.head[:12])
    return 0 < count <= 1000 and first in (-1, 4 + 8 * count)


def _in_zip(*members: str) -> Test:
    return lambda file: file.is_zip and set(members) <= file.names


_SOURCE = "convert the model that it was made of"
_HTML = "an HTML page, perhaps of a download that failed"

#: Kinds of files with a sentence of their own.
FOREIGN: tuple[Foreign, ...] = (
    Foreign(
        "a checkpoint of Orbax, which is not read",
        _in_folder("manifest.ocdbt"),
        "restore it with Orbax, and give lstmconvert.save what live.from_flax(params) returns",
    ),
    Foreign(
        "one array of NumPy, without a name",
        starts(b"\x93NUMPY"),
        "np.savez(path, **arrays) keeps several arrays and their names, and is read",
    ),
    Foreign(
        "the graph of a TensorFlow checkpoint, without its weights",
        named(".meta"),
        "its weights are in files of the same name, .index and .data-00000-of-00001: they belong "
        "beside it",
    ),
    Foreign(
        "a .mat file of version 4, which is not read",
        _level_4,
        SAVE_IN_MATLAB,
        "version 5 to 7",
    ),
    Foreign(
        "a graph of TensorFlow as text (.pbtxt), which is not read",
        either(named(".pbtxt"), starts(b"node {")),
        "google.protobuf.text_format.Parse(text, tf.compat.v1.GraphDef()).SerializeToString() is "
        "the .pb of it, which is read if its weights are in it",
    ),
    Foreign(
        "Tesseract's trained data (.traineddata), which is not read",
        either(named(".traineddata"), _of_tesseract),
        "its LSTMs run over pictures, in 8 bits or float, in a format of their own: only Tesseract "
        "runs them",
    ),
    Foreign(
        "the LSTM of ICU4X that finds words, which is not read",
        json_with(model=str, dic=dict),
        "mat2 to mat7 are the kernels and biases of both directions: under Keras's names, "
        "np.savez(path, **arrays) makes a file that is read",
    ),
    Foreign(
        "a GGUF file, of llama.cpp, which is not read",
        starts(b"GGUF"),
        _SOURCE,
    ),
    Foreign(
        "an engine of TensorRT, which is not read",
        either(starts(b"ftrt"), named(".engine", ".plan", ".trt")),
        "it is compiled for one graphics card: give the .onnx that it was built from",
    ),
    Foreign(
        "a model of OpenVINO (.xml), which is not read",
        both(named(".xml"), starts(b"<?xml")),
        "give the .onnx, Keras or PyTorch file that it was made of",
    ),
    Foreign(
        "a model of Deeplearning4j, which is not read",
        _in_zip("configuration.json", "coefficients.bin"),
        "np.savez(path, **arrays) of the arrays of model.paramTable() makes a file that is read",
    ),
    Foreign(
        "a model of Torch 7 (.t7), which is not read",
        named(".t7"),
        "PyTorch before 1.0 reads it (torch.utils.serialization.load_lua): save its state_dict",
    ),
    Foreign(
        "a model of Caffe (.caffemodel), which is not read",
        named(".caffemodel"),
        "in pycaffe: np.savez(path, **{name: blob.data for each of net.params})",
    ),
    Foreign(
        "a model of PaddlePaddle for inference, which is not read",
        named(".pdmodel", ".pdiparams"),
        "give the file that paddle.save(layer.state_dict(), path) wrote, as arrays: np.savez",
    ),
    Foreign(
        "a model of MNN (.mnn), which is not read",
        named(".mnn"),
        "give the .onnx or .tflite file that it was made of",
    ),
)
#: First bytes of other files, and what they are.
FOREIGN_BYTES: dict[bytes, str] = {
    b"<!DOCTYPE": _HTML,
    b"<html": _HTML,
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"%PDF": "a PDF document",
}


# -- what the rows are asked ------------------------------------------------------------------


def container(name: str) -> Container | None:
    """Return the row of a name; None if the model came from no file, or the name is unknown."""
    return next((row for row in CONTAINERS if row.name == name), None)


def title_of(name: str) -> str:
    """Return what people call a container."""
    row = container(name)
    return IN_MEMORY.get(name, name) if row is None else row.title


def recognised(file: Opened) -> Container | None:
    """Return the row of the container that a path is of, if there is one."""
    return next((row for row in CONTAINERS if row.known is not None and row.known(file)), None)


def written() -> list[Container]:
    """Return the rows of the containers that are written here, as the table lists them."""
    return [row for row in CONTAINERS if row.written]


def read() -> list[Container]:
    """Return the rows of the containers that are read here."""
    return [row for row in CONTAINERS if row.known is not None]


def main_suffixes(rows: Iterable[Container]) -> list[str]:
    """Return the first suffix of each row, each once."""
    return list(dict.fromkeys(row.suffixes[0] for row in rows if row.suffixes))


def suffixes(rows: Iterable[Container]) -> list[str]:
    """Return the suffixes of rows, each once, as the table lists them."""
    return list(dict.fromkeys(suffix for row in rows for suffix in row.suffixes))


def suffix_of(name: str, rows: Iterable[Container]) -> str | None:
    """Return the longest suffix of some rows that a file's name ends with, if there is one."""
    lowered = name.lower()
    fitting = [row.suffixes for row in rows if lowered.endswith(row.suffixes)]
    every = [suffix for listed in fitting for suffix in listed if lowered.endswith(suffix)]
    return max(every, key=len, default=None)


def readable() -> str:
    """Return what is read here, for an error: suffixes, and the words for what has none."""
    texts = dict.fromkeys(row.suffixes[0] if row.suffixes else row.title for row in read())
    return ", ".join(texts)


def uses() -> str:
    """Return which suffix to write for what, for a help text."""
    purposes: dict[str, list[Container]] = {}
    for row in written():
        purposes.setdefault(row.use, []).append(row)
    others = purposes.pop("", [])
    texts = [f"{_listed(main_suffixes(rows), 'or')} for {use}" for use, rows in purposes.items()]
    if others:
        texts.append(f"{_listed(main_suffixes(others), 'and')} are frameworks' own")
    return "; ".join(texts)


def _listed(words: list[str], joint: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {joint} {last}" if first else last


def markdown() -> str:
    """Return the table of files of the guide."""
    lines = ["| kind | file | read | `--to` | made or opened by | notes |", "|---" * 6 + "|"]
    for row in CONTAINERS:
        cells = (
            row.kind,
            " ".join(f"`{suffix}`" for suffix in row.suffixes) or "a directory",
            "no" if row.known is None else "yes",
            row.destinations,
            row.by,
            row.notes if row.needs is None else f"{row.notes}; needs `{install(row.needs)}`",
        )
        lines.append("| " + " | ".join(cell.removeprefix("; ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def unread() -> str:
    """Return the table of what is named and not read, for the guide."""
    from lstmconvert.keras.reading.read import OTHER_HDF5  # imported late to keep start-up fast

    rows = [(row.what, row.hint or "") for row in FOREIGN] + list(OTHER_HDF5.values())
    lines = ["| what it is | what to do |", "|---|---|"]
    lines += [f"| {what.partition(', which ')[0]} | {hint} |" for what, hint in rows]
    return "\n".join(lines) + "\n"


def layouts_of(row: Container, known: Iterable[str]) -> list[str]:
    """Return which of some layouts a container holds, its default first.

    Args:
        row: the container.
        known: the names of layouts, as the table of layouts lists them.
    """
    every = [*([row.default] if row.default else []), *row.layouts, *filter(row.holds, known)]
    return list(dict.fromkeys(every))


def holders(layout: str) -> list[Container]:
    """Return the containers that are written in a layout: those that are made for it first."""
    every = [row for row in written() if row.holds(layout)]
    return sorted(every, key=lambda row: row.general and layout not in row.layouts)


def _sole_layouts() -> set[str]:
    return {layout for row in CONTAINERS if row.sole for layout in row.layouts}
