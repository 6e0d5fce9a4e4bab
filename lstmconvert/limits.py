"""Every limit on untrusted input, in one place, each with its reason.

A limit is read from the environment when it is needed, so that a user with an honest giant raises
it without touching code: `LSTMCONVERT_MAX_JSON_BYTES=1000000000 lstmconvert inspect big.keras`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

from lstmconvert.errors import LimitExceeded, UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """One bound: its name (also the environment variable's tail), its value and its reason."""

    name: str
    default: int
    reason: str
    #: The environment variable that raises this limit, and its name as the environment keeps it.
    variable: str = field(init=False)
    _key: Any = field(init=False)

    def __post_init__(self) -> None:
        variable = f"LSTMCONVERT_MAX_{self.name.upper()}"
        object.__setattr__(self, "variable", variable)
        object.__setattr__(self, "_key", os.environ.encodekey(variable))

    @property
    def value(self) -> int:
        """The limit in force.

        Raises:
            UsageError: the environment variable holds no positive integer.
        """
        # Asked for a name that it does not have, `os.environ` raises two errors and catches them,
        # and a file is held against twenty limits: what it keeps the names in is looked at first.
        kept = getattr(os.environ, "_data", None)
        if kept is not None and self._key not in kept:
            return self.default
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        if not text.isascii() or not text.isdigit() or int(text[:30]) == 0:
            raise UsageError(
                "the limit must be a positive integer", where=self.variable, found=repr(text[:40])
            )
        return int(text)

    def check(self, amount: int, where: object, what: str) -> None:
        """Raise `LimitExceeded` if `amount` is above the limit."""
        if amount <= 1:  # as no limit is less
            return
        limit = self.value
        if amount > limit:
            raise LimitExceeded(
                f"{what} is above the limit",
                where=where,
                found=f"{amount:,}",
                expected=f"at most {limit:,} ({self.reason})",
                hint=f"if you trust the file, set {self.variable}={amount} and try again",
            )


JSON_BYTES = Limit("json_bytes", 256 * MIB, "the metadata of 10,000 layers is 80 MB")
REPORT_BYTES = Limit(
    "report_bytes", 4 * GIB, "a file of a batch takes some 900: four million files"
)
DOWNLOAD_BYTES = Limit("download_bytes", 64 * GIB, "a model of 16 billion numbers in float32")
DOWNLOAD_SECONDS = Limit("download_seconds", 7200, "64 GiB at 9 MB a second")
DOWNLOAD_STALL_SECONDS = Limit(
    "download_stall_seconds", 120, "a store that sends nothing for two minutes is not there"
)
TEMPORARY_BYTES = Limit(
    "temporary_bytes", 256 * GIB, "each process of a batch has a source and what is made of it"
)
STORE_ATTEMPTS = Limit(
    "store_attempts", 5, "with the waits between them a store has fifteen seconds to recover"
)
JSON_VALUES = Limit("json_values", 8_000_000, "a layer's config and metadata have some 300")
JSON_DENSE = Limit(
    "json_dense",
    500_000,
    "a key, list or object takes 20 bytes of a model's text, and 100 and more of memory",
)
PACKED_BYTES = Limit("packed_bytes", 4 * MIB, "Keras stores its config as it is")
CONFIG_BYTES = Limit("config_bytes", 40 * MIB, "a config of 10,000 layers is 20 MB")
JSON_NUMBERS = Limit(
    "json_numbers", 4_000_000, "a number takes 20 bytes of text, and 100 of memory: name a --layer"
)
CSV_BYTES = Limit("csv_bytes", 64 * MIB, "a sequence of a million steps and five inputs")
JSON_DEPTH = Limit("json_depth", 200, "nested models are a few levels deep, each some ten brackets")
HEADER_BYTES = Limit("header_bytes", 100_000_000, "the safetensors format allows no more")
HDF5_DEPTH = Limit("hdf5_depth", 64, "layer paths have a few parts for each nested model")
HDF5_OBJECTS = Limit("hdf5_objects", 2_000_000, "10,000 layers with optimizer slots are 200,000")
HDF5_ATTRIBUTES = Limit(
    "hdf5_attributes", 2000, "an object of Keras's has four, and a dozen for 10,000 layers' names"
)
ATTRIBUTE_BYTES = Limit("attribute_bytes", 64 * MIB, "the largest attribute is a model's config")
CHUNK_BYTES = Limit("chunk_bytes", 64 * MIB, "h5py makes chunks of one megabyte at most")
ZIP_DIRECTORY_BYTES = Limit("zip_directory_bytes", 8 * MIB, "an entry takes some 80 bytes")
STACK_CELLS = Limit("stack_cells", 8, "their order is found by trying all, without a config")
ZIP_MEMBERS = Limit("zip_members", 100_000, "a Keras archive has three, and a few assets")
RANK = Limit("rank", 8, "the kernels of ConvLSTM3D have five axes")
ARRAYS = Limit("arrays", 100_000, "10,000 layers of two directions have 80,000")
EQX_LEAVES = Limit("eqx_leaves", 30_000, "10,000 cells have three each")
TREE_DEPTH = Limit("tree_depth", 64, "modules lie in modules a few levels deep")
UNITS = Limit("units", 1 << 24, "no LSTM is that wide")
TENSOR_BYTES = Limit("tensor_bytes", 64 * GIB, "one tensor of more has not been seen")
PATH_LENGTH = Limit("path_length", 4096, "64 groups with names of 60 characters")
NPY_HEADER_BYTES = Limit("npy_header_bytes", 10_000, "NumPy's own bound; it writes 118 bytes")
PICKLE_OPCODES = Limit(
    "pickle_opcodes", 4_000_000, "an array takes 30, a variable 120; 10,000 layers' slots 1,800,000"
)
PICKLE_OBJECTS = Limit(
    "pickle_objects", 1_000_000, "an array takes 8, a variable 36; 10,000 layers' slots 540,000"
)
PICKLE_TEXT_BYTES = Limit("pickle_text_bytes", 64 * MIB, "a variable's names take 200 bytes")
DIRECTORY_FILES = Limit("directory_files", 100_000, "a saved model has a few dozen files")
PROTOBUF_BYTES = Limit("protobuf_bytes", 256 * MIB, "10,000 layers' object graph is 20 MB")
SNAPPY_BYTES = Limit(
    "snappy_bytes", 64 * MIB, "blocks end at 256 KiB, and 10,000 layers' index is 9 MB"
)
PROTOBUF_MESSAGES = Limit("protobuf_messages", 5_000_000, "a layer takes a hundred or so")
PROTOBUF_DENSE = Limit(
    "protobuf_dense", 100_000, "a message takes 20 bytes of a model, and 100 and more of memory"
)
PARTITIONS = Limit("partitions", 1024, "TensorFlow cuts a variable over a few servers")
COREML_BYTES = Limit("coreml_bytes", (1 << 31) - 1, "a protocol buffer holds no more")
COREML_MESSAGES = Limit("coreml_messages", 1_000_000, "a layer takes some forty")
FLATBUFFER_BYTES = Limit("flatbuffer_bytes", (1 << 31) - 1, "its offsets have 31 bits")
ONNX_DEPTH = Limit("onnx_depth", 90, "a graph in a node takes three levels; protobuf allows 100")
ONNX_NODES = Limit("onnx_nodes", 2_000_000, "10,000 layers with functions put in are 400,000")
ISOLATED_BYTES = Limit(
    "isolated_bytes", 8 * GIB, "the address space of --isolate's child; TensorFlow maps several GB"
)
ISOLATED_SECONDS = Limit(
    "isolated_seconds", 600, "processor time of --isolate's child; 1 GB takes some three"
)

#: Stored data that claims to expand by more than this factor is refused …
RATIO = Limit("ratio", 100, "honest Keras files are stored uncompressed; deflated weights reach 10")
#: … once the declared size is above this floor.
RATIO_FLOOR = Limit("ratio_floor_bytes", 64 * MIB, "below it an expansion does no harm")

#: Bytes held at a time while tensors are streamed from file to file: what a core's cache holds.
BUFFER_BYTES = MIB
#: Bytes read at a time to be summed or hashed and forgotten: what the cache next to a core holds.
HOT_BYTES = 256 * KIB


#: A model's protocol buffers have at most one message in this number of bytes.
_MESSAGE_BYTES = 8


def check_density(messages: int, size: int, where: object) -> None:
    """Refuse messages of next to no bytes each, of which a small file has millions."""
    beyond = messages - size // _MESSAGE_BYTES
    if beyond > 0:  # rarely: looking up a limit takes time
        what = f"the number of messages beyond one in {_MESSAGE_BYTES} bytes"
        PROTOBUF_DENSE.check(beyond, where, what)


def check_expansion(declared: int, stored: int, where: object) -> None:
    """Refuse data that declares far more bytes than are stored for it (zip and HDF5 bombs)."""
    if declared <= stored:
        return  # as nearly always, and limits take time to look up
    if declared > RATIO_FLOOR.value and declared > RATIO.value * max(stored, 1):
        raise LimitExceeded(
            "the data expands beyond the limit",
            where=where,
            found=f"{declared:,} bytes declared, {stored:,} stored",
            expected=f"at most {RATIO.value} times, above {RATIO_FLOOR.value:,} bytes",
            hint=f"if you trust the file, raise {RATIO.variable} or {RATIO_FLOOR.variable}",
        )


def confine() -> bool:
    """Limit this process's memory, and the processor time that it may take from now on.

    Beyond the time a signal ends it; beyond the memory it has a `MemoryError`, or crashes.

    Returns:
        Whether both are limited. Windows has neither limit, and macOS has none for memory.
    """
    try:
        import resource
    except ImportError:
        return False
    is_limited = True
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(used.ru_utime + used.ru_stime) + ISOLATED_SECONDS.value
    for kind, most in (
        (resource.RLIMIT_AS, ISOLATED_BYTES.value),
        (resource.RLIMIT_CPU, until),  # the soft limit alone: beyond the hard one no signal tells
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (soft, hard))
        except (OSError, ValueError):
            is_limited = False
    return is_limited
