"""Every known attack, by its row of the list that the crafted files were made from.

A row names the crafted files that carry it out (`name-carrier`, or `name` for all carriers), and
tests of other kinds as `module::test`. A row of which nothing concerns us says why.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support import (
    crafted_arrays,
    crafted_config,
    crafted_hdf5,
    crafted_hdf5_bytes,
    crafted_kinds,
    crafted_matlab,
    crafted_onnx,
    crafted_paths,
    crafted_safetensors,
    crafted_tensorflow,
    crafted_texts,
    crafted_zip,
)
from support.corpus import ATTACKS
from support.crafted import CRAFTS, FIXTURES, KERAS
from support.crafted_others import OTHERS
from support.jail import Watch
from support.thinned import each

import lstmconvert as lc

TESTS = Path(__file__).resolve().parents[1]
MODULES = (
    crafted_arrays, crafted_config, crafted_hdf5, crafted_hdf5_bytes, crafted_kinds,
    crafted_matlab, crafted_onnx, crafted_paths, crafted_safetensors, crafted_tensorflow,
    crafted_texts, crafted_zip,
)  # fmt: skip

#: Row -> what attacks so. The keys of a table are the beginnings of its first cells.
ROWS: dict[str, tuple[str, ...]] = {
    # 1. Keras: code and side effects on load
    "CVE-2021-37678": ("test_security::test_a_yaml_beside_a_model_is_not_looked_at",),
    "CVE-2024-3660": ("lambda_layer", "lambda_of_keras_2", "fdeep-layers_that_run_code"),
    "CVE-2025-1550": ("function_of_any_module", "activation_of_any_module",
                      "initializer_of_any_module", "savedmodel-class_of_any_module"),
    "CVE-2025-8747": ("function_of_any_module",),
    "CVE-2025-9906": ("unsafe_deserialization",),
    "CVE-2025-9905": ("lambda_layer-legacy", "lambda_as_activation"),
    "CVE-2025-12058": ("vocabulary_is_a_file", "vocabulary_is_a_url"),
    "CVE-2026-1462": ("saved_model_layer",),
    "55888d3bec": ("torch_module", "lambda_layer"),
    "CVE-2026-12479": ("layer_name_upwards", "layer_name_of_windows", "layer_name_null",
                       "layer_name_long", "layer_name_absolute"),
    # 2. HDF5
    "CVE-2026-1669": ("external_storage",),
    "PR #22899/#22900": ("external_link_to_a_dataset", "external_link_to_a_group",
                         "external_link_at_the_root", "soft_link", "dangling_link",
                         "link_behind_a_name_that_is_a_path"),
    "PR #22976": ("virtual_dataset",),
    "CVE-2026-0897": ("shape_bomb_chunked", "shape_bomb_of_a_petabyte", "shape_bomb_contiguous",
                      "nothing_stored", "gaps_between_the_chunks"),
    "gzip bomb": ("gzip_bomb", "gzip_bomb_in_many_small_ones", "chunk_bomb"),
    "filters / plugins": ("foreign_filter",),
    "HDF5 C library memory bugs": ("heap_without_an_end", "names_whose_free_places_are_a_ring",
                                   "tree_of_chunks_that_grows_into_itself",
                                   "one_text_of_many_entries",
                                   "test_isolate::test_a_child_that_dies",
                                   "test_fuzz::test_mutants"),
    "hard-link cycle": ("hard_link_cycle", "five_hundred_levels", "one_dataset_of_many_names"),
    "soft-link loop": ("soft_link_loop",),
    "null dataspace": ("kernel_of_no_shape", "kernel_of_a_scalar", "kernel_of_no_rows"),
    "dtype zoo": ("big_endian", "kernel_of_opaque", "kernel_of_lists", "kernel_of_references",
                  "kernel_of_records", "kernel_of_complex", "kernel_of_enum", "kernel_of_booleans",
                  "kernel_of_integers", "float_with_another_bias"),
    "names": ("names_that_mislead", "a_name_of_five_thousand", "layer_name_escape",
              "layer_name_right_to_left"),
    "attributes": ("huge_attribute", "weight_names_numbers"),
    "not at offset 0": ("user_block",),
    "broken files": ("test_fuzz::test_truncations", "onnx_lfs",
                     "test_bad_input::test_source"),
    "JSON in model_config": ("json_nested", "json_not_a_number", "json_infinity", "json_duplicate",
                             "json_digits", "json_too_large", "json_surrogate", "units_true",
                             "units_of_a_petabyte", "rtneural-deep", "tfjs-entry_twice"),
    # 3. .keras zip
    "decompression bomb": ("zip_bomb", "zip_bomb_in_many_small_ones", "npz-zeros", "pt-bomb"),
    "lying central directory": ("zip_member_shorter_than_it_is", "zip_member_of_two_sizes",
                                "zip_deflated_size_lies"),
    "duplicate members": ("zip_with_two_configs", "zip_names_differ"),
    "'../evil', '/abs'": ("zip_members_upwards", "zip_member_is_a_link", "asset_upwards",
                          "asset_with_a_backslash", "npz-member_upwards"),
    "prefix junk / polyglot": ("hdf5_and_zip_in_one", "zip_behind_another",
                               "zip_with_bytes_behind_it"),
    "encrypted / zip64": ("zip_encrypted", "zip_of_several_disks", "zip_of_a_later_version"),
    # 4. safetensors
    "4": ("safetensors_overlap", "safetensors_hole", "safetensors_trailing_bytes",
          "safetensors_header_of_exabytes", "safetensors_header_too_long",
          "safetensors_shape_overflows", "safetensors_negative_axis", "safetensors_duplicate_name",
          "safetensors_leading_space", "safetensors_deep_json", "safetensors_names_that_mislead",
          "safetensors_of_many_names", "safetensors_metadata_is_a_number",
          "layer_name_metadata",
          "test_gates_file::test_the_librarys_fault_with_arrays_that_are_not_contiguous"),
    # 5. ONNX
    "CVE-2022-25882": ("onnx_external_above", "onnx_external_absolute", "onnx_external_symlink",
                       "onnx_external_hardlink", "onnx_external_pipe", "tfjs-shard_upwards",
                       "tfjs-shard_is_a_link", "tfjs-shard_has_two_names",
                       "ncnn-numbers_are_a_link"),
    "CVE-2025-51480": ("test_onnx_roundtrip::test_data_beside_the_model",),
    "CVE-2026-34445": ("onnx_external_offset_negative", "onnx_external_length_huge",
                       "onnx_external_two_locations", "onnx_external_offset_text"),
    "tensor bodies": ("onnx_negative_dimension", "onnx_huge_dimensions", "onnx_two_fields",
                      "onnx_raw_data_cut", "onnx_type_99", "onnx_strings"),
    "protobuf limits": ("onnx_nested_60", "onnx_nested_2000", "onnx_length_beyond"),
    "empty file": ("onnx_empty", "onnx_without_graph", "onnx_without_version"),
    "text format under .onnx": ("onnx_text",),
    # 6. TensorFlow's checkpoints and SavedModels
    "6": ("checkpoint-endless_varint", "checkpoint-shared_beyond_the_key",
          "checkpoint-block_outside", "checkpoint-snappy_bomb", "checkpoint-beyond_the_shard",
          "checkpoint-another_shard", "checkpoint-endless_shards", "checkpoint-larger_shape",
          "checkpoint-slices_that_are_missing", "checkpoint-another_checksum",
          "checkpoint-graph_in_a_circle", "checkpoint-graph_beyond_its_nodes",
          "checkpoint-keys_out_of_order", "savedmodel-functions_of_any_kind",
          "test_bundle_hostile::test_lying_strings",
          "test_bundle_hostile::test_every_byte_and_every_length"),
    # 7. Silent wrong numbers
    "7.1": ("test_diff::test_hard_sigmoid_of_two_keras_versions_differs_between_files",),
    "7.3": ("test_recorded::test_cudnn_is_unpacked_as_tf_keras_unpacks_it",),
    "7.5": ("virtual_dataset",),
    "7.6": ("onnx_negative_dimension",),
    "7.7": ("big_endian",),
    # What was added later
    "integrity checked only": ("test_checks::test_a_flipped_bit_is_found_before",),
    "TorchScript archive": (
        "test_torchfile::test_a_program_is_refused",
    ),
    "`.keras` with TFSMLayer": (
        "test_code::test_it_is_never_written_to_a_file_that_keras_trusts",
    ),
    "one flatbuffer table": ("test_growth::test_operators_of_a_tflite",),
    "temporary files judged": ("test_debris::test_another_process_of_our_number",),
    "symbolic links inside": ("test_links::test_a_link_is_refused",),
    "a source rewritten": (
        "test_checks::test_a_file_that_is_written_to_while_it_is_converted",
    ),
}  # fmt: skip
#: Rows that concern nothing of ours.
APART = {
    "CVE-2025-12060": "no archive is unpacked, and nothing is downloaded",
    "CVE-2026-12481": "its page gives no detail",
    "CVE-2024-5187": "onnx.hub is not used",
}


def _crafts() -> set[str]:
    names = {craft.name for craft in (*CRAFTS, *OTHERS, *crafted_onnx.CRAFTS)}
    for end in ("-legacy", "-weights", "-archive"):
        names |= {name.removesuffix(end) for name in names}
    return names


@each("row", ROWS)
def test_a_row_is_carried_out(row: str) -> None:
    crafts = _crafts()
    for name in ROWS[row]:
        module, is_test, test = name.partition("::")
        if is_test:
            text = next(TESTS.rglob(f"{module}.py")).read_text(encoding="utf-8")
            assert f"\ndef {test}(" in text, name
        else:
            assert name in crafts, name


@pytest.mark.corpus
def test_no_row_is_left_out() -> None:
    text = ATTACKS.read_text(encoding="utf-8")
    cells = re.findall(r"^\| *(.+?) *\|", text, re.MULTILINE)
    heads = ("id", "risk", "what")
    rows = [cell for cell in cells if cell not in heads and not cell.startswith("---")]
    assert len(rows) > 30
    for row in rows:
        assert any(row.startswith(known) for known in (*ROWS, *APART)), row
    for known in (*ROWS, *APART):
        assert known[0].isdigit() or any(row.startswith(known) for row in rows), known


def test_a_yaml_beside_a_model_is_not_looked_at(tmp_path: Path) -> None:
    source = shutil.copy(FIXTURES / KERAS, tmp_path / "model.keras")
    beside = tmp_path / "model.yaml"
    beside.write_text("!!python/object/apply:os.system ['true']")
    watch = Watch(beside)
    lc.convert(source, tmp_path / "out.safetensors")
    opened = watch.opened()
    watch.close()
    assert not opened
    with pytest.raises(lc.LSTMConvertError):
        lc.load(beside)
