"""The command line as a whole: help, usage, errors, streams, exit codes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
from support.cli import FIXTURES, KERAS, SEED95, WEIGHTS, environment, failure, run, spawn
from support.thinned import turns

import lstmconvert
from lstmconvert import api, errors, guide
from lstmconvert.cli import failures, output
from lstmconvert.cli.main import COMMANDS, program
from lstmconvert.containers import table

NO_TERMINALS = sys.platform == "win32"


def test_version() -> None:
    assert run("--version") == (0, f"lstmconvert {lstmconvert.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(flag: str) -> None:
    code, out, err = run(flag)
    assert (code, err) == (0, "")
    for name, text in COMMANDS.items():
        assert re.search(rf"^  {name} +{text.split()[0]}", out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_ends_with_examples(command: str) -> None:
    code, out, _ = run(command, "-h")
    assert (code, out) == (0, run(command, "--help").out)
    examples = out.partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    assert all(example.strip().startswith(f"lstmconvert {command}") for example in examples)
    assert all(len(line) <= 80 for line in out.splitlines())


def test_help_names_every_option_of_the_design() -> None:
    wanted = """--from --to --layer --dtype --config --set --lstm-only --with-other --with-optimizer
        --fused --bare --rescale-hard-sigmoid --era --force --allow-lossy --dry-run --json"""
    assert set(wanted.split()) <= set(re.findall(r"^  (--[a-z-]+)", run("convert", "-h").out, re.M))


def test_no_command_shows_the_help_as_talk() -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: lstmconvert [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["inspekt", "x"], "no such command 'inspekt'", "did you mean inspect?"),
        (["inspect", "x", "--jsn"], "no such option '--jsn'", "did you mean --json?"),
        (["-q", "inspect", "x"], "no such option '-q'",
         "options stand behind the command: lstmconvert inspect FILE -q"),
        (["inspect"], "missing argument 'SRC'", "lstmconvert inspect --help shows how it is used"),
        (
            ["diff", "a", "b", "c"],
            "got unexpected extra argument (c)",
            "lstmconvert diff --help shows how it is used",
        ),
        (["xyzzy"], "no such command 'xyzzy'", "lstmconvert --help shows how it is used"),
    ],
)
def test_usage(args: list[str], error: str, hint: str) -> None:
    assert failure(*args) == (error, hint)


READ = table.readable()
CONTENTS = {
    "empty.keras": (
        b"",
        "the file is empty",
        "copy or download it again",
    ),
    "pointer.keras": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "the file is a Git LFS pointer, not the model itself",
        "run `git lfs pull` in its repository",
    ),
    "text.h5": (
        b"layer,units\nlstm,2\n",
        f"not a model file; found text; expected {READ}",
        "lstmconvert formats lists the kinds of files that are read",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("command", ["inspect", "convert", "diff"])
def test_files_that_are_no_model(tmp_path: Path, name: str, command: str) -> None:
    content, error, hint = CONTENTS[name]
    path = tmp_path / name
    path.write_bytes(content)
    more = {"inspect": [], "convert": [tmp_path / "out.safetensors"], "diff": [SEED95]}
    assert failure(command, path, *more[command]) == (f"{path}: {error}", hint)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_missing_file() -> None:
    assert failure("inspect", "nowhere.keras") == (
        "nowhere.keras: No such file or directory",
        "check the path",
    )


def test_a_directory(tmp_path: Path) -> None:
    error, _ = failure("inspect", tmp_path)
    assert error == (
        f"{tmp_path}: a directory that holds no model; expected config.json and model.weights.h5 "
        "(an unzipped .keras)"
    )


def test_a_model_without_lstm_lists_its_layers() -> None:
    path = KERAS / "lstm_model.h5"
    layers = "input_layer_1 (InputLayer), gru (GRU), dense_1 (Dense)"
    assert failure("convert", path, "x.safetensors") == (
        f"{path}: the model has no LSTM layer; found layers {layers}",
        "is it the right file? A whole Keras model without an LSTM goes to .keras, .h5 and .onnx",
    )


@pytest.mark.parametrize("command", [["inspect", SEED95], ["convert", SEED95, "x.safetensors"]])
def test_an_unknown_layer_suggests_the_close_one(command: list[object]) -> None:
    assert failure(*command, "--layer", "lsmt") == (
        "lsmt: no LSTM layer of that name; expected one of lstm",
        "did you mean lstm?",
    )


def test_the_suffix_does_not_matter_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "lstm.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    assert run("inspect", path, "--json").json["source"]["container"] == "weights.h5"


@pytest.mark.parametrize("size", [1, 100, 1000, 4000])
def test_truncated_files(tmp_path: Path, size: int) -> None:
    for source in (SEED95, WEIGHTS):
        path = tmp_path / source.name
        path.write_bytes(source.read_bytes()[:size])
        error, _ = failure("inspect", path)
        assert error.startswith(f"{path}: ")


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    error, _ = failure("inspect", "evil\x1b[31m\u202e\n.keras")
    assert error.startswith(r"evil\x1b[31m\u202e\n.keras: ")


def raising(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    def load(*_args: object, **_options: object) -> None:
        raise failure

    monkeypatch.setattr(api, "opened", load)


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        (MemoryError(), "not enough memory"),
        (RecursionError(), "the file is nested too deeply"),
        (OSError(28, "No space left on device", "out.keras"), "out.keras: No space left on device"),
        (ValueError("x\ny"), r"a fault of lstmconvert itself: ValueError: x\ny"),
        (ModuleNotFoundError("No module", name="h5py"), "the package h5py is not installed"),
    ],
)
def test_other_failures_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, exception: Exception, error: str
) -> None:
    raising(monkeypatch, exception)
    assert failure("inspect", SEED95)[0] == error


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ValueError("boom"))
    code, _, err = run("inspect", SEED95, LSTMCONVERT_DEBUG="1")
    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert "lstmconvert: error: a fault of lstmconvert itself: ValueError: boom\n" in err


def test_control_c(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert run("inspect", SEED95) == (130, "", "lstmconvert: interrupted\n")


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


@pytest.mark.parametrize("kind", sorted(subclasses(errors.LSTMConvertError), key=str))
def test_every_error_has_a_hint(
    kind: type[errors.LSTMConvertError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(kind("what", where="file", found="x", expected="y")) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "lstmconvert: error: file: what; found x; expected y"
    assert len(hint) > len("hint: ")


def test_module_and_command_are_the_same() -> None:
    code, out, err = run("inspect", SEED95)
    done = spawn("inspect", SEED95)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)
    assert "Usage: lstmconvert inspect" in spawn("inspect", "--help").stdout


@pytest.mark.parametrize("args", [["inspect", SEED95], ["--help"], ["inspect", SEED95, "--json"]])
def test_a_closed_pipe_is_quiet(args: list[object]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = spawn(*args, stdout=writer, stderr=-1)
    os.close(writer)
    assert (done.returncode, done.stderr) == (failures.PIPE_CLOSED, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = spawn("inspect", SEED95, stdout=full, stderr=-1)
    assert done.returncode == 2
    assert done.stderr.startswith("lstmconvert: error: No space left on device\nhint: ")
    assert done.stderr.count("\n") == 2


@pytest.mark.skipif(NO_TERMINALS, reason="needs a POSIX shell")
def test_a_closed_stdout_is_no_failure() -> None:
    done = spawn("inspect", SEED95, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0
    assert done.stderr.startswith("note: opens in Keras")
    assert done.stderr.count("\n") == 1


def on_terminal(columns: int, *args: object, **changes: str) -> str:
    """Run a command on a pseudo-terminal and return what it shows."""
    import pty
    import struct
    import termios

    fcntl = pytest.importorskip("fcntl", reason="needs POSIX", exc_type=ImportError)

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = environment(TERM="xterm-256color", **changes)
    for name in {"COLUMNS", "NO_COLOR"} - set(changes):
        settings.pop(name, None)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux says so at the end
            while chunk := os.read(ours, 1 << 16):
                shown.extend(chunk)

    reader = threading.Thread(target=read)  # a terminal holds a few kilobytes that no one reads
    reader.start()
    with (
        open(theirs, "w", encoding="utf-8") as terminal,
        mock.patch.dict(os.environ, settings, clear=True),
        mock.patch.multiple(
            sys, stdout=terminal, stderr=terminal, __stdout__=terminal, __stderr__=terminal
        ),
        contextlib.suppress(SystemExit),
    ):
        program.main([str(arg) for arg in args])
    reader.join()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def words_of(text: str) -> set[str]:
    return {word.rstrip(":,") for word in plain(text).split()}


@pytest.mark.skipif(NO_TERMINALS, reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("name", "columns"), turns(["seed95", "both_unlike", "conv_lstm2d", "zoo"], (80, 60))
)
def test_reports_fit_the_terminal(name: str, columns: int) -> None:
    lines = plain(on_terminal(columns, "inspect", KERAS / f"{name}.keras")).splitlines()
    assert len(lines) > 10
    assert all(len(line) <= columns for line in lines if not line.startswith(("hint", "note")))


@pytest.mark.skipif(NO_TERMINALS, reason="needs a pseudo-terminal")
def test_colour_is_for_terminals_that_want_it() -> None:
    coloured = on_terminal(80, "inspect", SEED95)
    assert "\x1b[1mseed95.keras\x1b[0m" in coloured
    assert on_terminal(80, "inspect", SEED95, NO_COLOR="1").rstrip() == plain(
        "\n".join(line.rstrip() for line in plain(coloured).splitlines())
    )
    assert "\x1b" not in on_terminal(80, "inspect", "nowhere", TERM_PROGRAM="x", NO_COLOR="1")
    assert "\x1b[31m" in on_terminal(80, "inspect", "nowhere")
    assert "\x1b" not in run("inspect", SEED95).out


def test_what_stdout_cannot_encode_is_spelled_in_ascii() -> None:
    done = spawn("inspect", SEED95, env=environment(PYTHONIOENCODING="ascii"))
    assert done.returncode == 0
    assert "7 inputs x 4 gates x 2 units" in done.stdout
    assert "4*(7*2 + 2*2 + 2)" in done.stdout
    assert done.stdout.isascii()


def test_fixtures_are_where_these_tests_look() -> None:
    assert FIXTURES.is_dir()


@pytest.mark.skipif(NO_TERMINALS, reason="needs a pseudo-terminal")
def test_narrow_terminals_break_no_short_word() -> None:
    for columns in (60, 40):
        words = words_of(on_terminal(columns, "inspect", SEED95))
        assert {"kernel", "input", "forget", "columns", "inputs", "units", "gates"} <= words


@pytest.mark.skipif(NO_TERMINALS, reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [20, 60])
def test_narrow_terminals_break_no_name(columns: int) -> None:
    words = words_of(on_terminal(columns, "inspect", KERAS / "names.keras"))
    for name in lstmconvert.load(KERAS / "names.keras"):
        assert name in words
    words = words_of(on_terminal(columns, "formats"))
    assert {"nnx-optimized-cell", "frugally-deep", "PyTorch", ".weights.h5"} <= words


def test_force_color_colours_a_pipe_and_no_color_wins() -> None:
    forced = run("inspect", SEED95, FORCE_COLOR="1", NO_COLOR="")
    assert "\x1b[1mseed95.keras\x1b[0m" in forced.out
    both = run("inspect", SEED95, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b" not in both.out


def test_quiet_leaves_the_answer_and_errors(tmp_path: Path) -> None:
    old = FIXTURES / "keras-1.2.2" / "sequential.h5"
    assert run("convert", old, tmp_path / "a.keras").err.startswith("warning: ")
    assert run("convert", old, tmp_path / "b.keras", "-q") == (0, "", "")
    assert run("inspect", SEED95, "--quiet").out == run("inspect", SEED95).out
    error, hint = failure("inspect", "nowhere", "-q")
    assert error
    assert hint
    assert run("convert", old, tmp_path / "c.keras").err != "", "quiet is of one run"


def test_verbose_says_what_was_opened_and_what_it_took(tmp_path: Path) -> None:
    said = run("convert", SEED95, tmp_path / "a.safetensors", "-v").err
    assert "opened fixtures/keras-3.15.1/seed95.keras: a Keras archive (.keras), Keras 3.15" in said
    assert "as a safetensors file, layout gates: lstm" in said
    assert re.search(r"lstmconvert [\d.]+: \d+\.\d\d s", said)
    assert "\nwrote " in said


def test_every_command_takes_both() -> None:
    for name in COMMANDS:
        text = run(name, "--help").out
        assert "-q, --quiet" in text, name
        assert "-v, --verbose" in text, name


def test_guide_lists_and_shows_pages() -> None:
    assert "# The guide" in run("guide").out
    assert run("guide", "recipes").out.startswith("# Recipes\n")
    assert "<!--" not in run("guide", "layouts").out
    error, hint = failure("guide", "recipe")
    assert error.startswith("the guide has no such page; found recipe; expected ")
    assert hint == "did you mean recipes?"


@pytest.mark.skipif(NO_TERMINALS, reason="needs a pseudo-terminal")
def test_guide_is_laid_out_on_a_terminal() -> None:
    shown = on_terminal(80, "guide", "recipes")
    assert "```" not in shown
    assert "\x1b[" in shown
    assert "\x1b[" not in on_terminal(80, "guide", "recipes", NO_COLOR="1")
    narrow = on_terminal(60, "guide", "compare", NO_COLOR="1")
    # No word of a table is cut: where its columns have no room, each row is a paragraph.
    for line in guide.text("compare").splitlines():
        if line.startswith("|") and "--" not in line:
            words = re.sub(r"[`|]|\*\*", " ", line).split()
            assert [word for word in words if word not in narrow] == []


def test_reports_are_what_the_standard_library_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of a JSON report are put together here; the oracle is `json.dumps`."""
    value = {
        "empty": [{}, [], ""], "é\n\"\\": "\x00\u2028𝄞", "none": None, "flags": [True, False],
        "numbers": [0, -1, 1 << 70, 0.1, -0.0, 1e300, 5e-324], "pair": (1, ({"a": [[2]]},)),
    }  # fmt: skip
    output.as_json(value)
    assert capsys.readouterr().out == json.dumps(value, indent=2) + "\n"
    output.as_json({**value, "pair": iter(value["pair"]), "none": iter(())})
    assert capsys.readouterr().out == json.dumps({**value, "none": []}, indent=2) + "\n"
    output.as_json([math.nan, math.inf, -math.inf])
    assert json.loads(capsys.readouterr().out) == ["NaN", "Infinity", "-Infinity"]


def test_a_table_of_nothing_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([])
    output.table([("a", "b"), ("é", "\x1b")], header=("first", "second"))
    assert capsys.readouterr().out == "  first  second\n  a      b\n  é      \\x1b\n"
