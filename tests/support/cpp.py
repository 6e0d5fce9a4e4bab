"""Programs around C++ libraries, compiled by the tests from their public sources.

The sources lie outside the repository. `LSTMCONVERT_CPP` names the folders to include, separated as
in PATH, and the tests that need one are skipped where it is not there:

    frugally-deep/include FunctionalPlus/include json/include eigen    frugally-deep
    RTNeural RTNeural/modules/json                                      RTNeural
    lwtnn/include, Eigen's and Boost's folders                          lwtnn
    NeuralAmpModelerCore NeuralAmpModelerCore/Dependencies/nlohmann eigen   NeuralAmpModelerCore
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lstmconvert.tensors.dtypes import Array

VARIABLE = "LSTMCONVERT_CPP"

_FRUGALLY_DEEP = """
#include <fdeep/fdeep.hpp>
#include <iostream>
int main(int, char **words) {
  try {
    const auto model = fdeep::load_model(words[1], false, fdeep::dev_null_logger);
    std::size_t steps, inputs;
    std::cin >> steps >> inputs;
    std::vector<float> x(steps * inputs);
    for (auto &number : x) std::cin >> number;
    std::cout.precision(9);
    const fdeep::tensor given(fdeep::tensor_shape(steps, inputs), x);
    for (const auto &output : model.predict({given}))
      for (float number : output.to_vector()) std::cout << number << ' ';
  } catch (const std::exception &error) {
    std::cerr << error.what();
    return 1;
  }
}
"""
_RTNEURAL = """
#include <RTNeural/RTNeural.h>
#include <fstream>
#include <iostream>
int main(int, char **words) {
  std::ifstream file(words[1]);
  const auto model = RTNeural::json_parser::parseJson<TYPE>(file);
  if (!model) return 1;
  model->reset();
  std::size_t steps, inputs;
  std::cin >> steps >> inputs;
  std::cout.precision(17);
  std::vector<TYPE> x(inputs);
  for (std::size_t t = 0; t < steps; ++t) {
    for (auto &number : x) std::cin >> number;
    model->forward(x.data());
    for (int i = 0; i < model->getOutSize(); ++i) std::cout << model->getOutputs()[i] << ' ';
  }
}
"""
_LWTNN = """
#include <lwtnn/LightweightGraph.hh>
#include <lwtnn/parse_json.hh>
#include <fstream>
#include <iostream>
int main(int, char **words) {
  try {
    std::ifstream file(words[1]);
    const auto config = lwt::parse_json_graph(file);
    const auto &output = *config.outputs.begin();
    const lwt::LightweightGraph graph(config, output.first);
    std::size_t steps, inputs;
    std::cin >> steps >> inputs;
    lwt::LightweightGraph::SeqNodeMap given;
    auto &variables = given[config.input_sequences.at(0).name];
    for (std::size_t t = 0; t < steps; ++t)
      for (std::size_t i = 0; i < inputs; ++i) {
        double number;
        std::cin >> number;
        variables[config.input_sequences[0].variables.at(i).name].push_back(number);
      }
    const auto answer = graph.scan({}, given);
    std::cout.precision(17);
    for (std::size_t t = 0; t < steps; ++t)
      for (const auto &label : output.second.labels) std::cout << answer.at(label).at(t) << ' ';
  } catch (const std::exception &error) {
    std::cerr << error.what();
    return 1;
  }
}
"""
_NAM = """
#include <NAM/get_dsp.h>
#include <iostream>
int main(int, char **words) {
  nam::ScopedPrewarmOnResetDefault cold(false);
  const auto model = nam::get_dsp(std::filesystem::path(words[1]));
  std::size_t steps, inputs;
  std::cin >> steps >> inputs;
  std::vector<double> x(steps), y(steps);
  for (auto &number : x) std::cin >> number;
  model->Reset(48000, steps);
  double *in = x.data(), *out = y.data();
  model->process(&in, &out, steps);
  std::cout.precision(9);
  for (double number : y) std::cout << number << ' ';
}
"""
_IN_C = """
#include "x.h"
#include "x.h"
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
  int steps = atoi(words[1]), t;
  static amp_state state;
  float *x = (float *)malloc(sizeof(float) * steps * INPUTS);
  float *y = (float *)malloc(sizeof(float) * steps * OUTPUTS);
  if (count != 2 || fread(x, sizeof(float), steps * INPUTS, stdin) != (size_t)(steps * INPUTS))
    return 1;
  amp_reset(&state);
  amp_run(&state, x, steps, y);
  fwrite(y, sizeof(float), steps * OUTPUTS, stdout);
  amp_reset(&state);
  for (t = 0; t < steps; ++t) amp_step(&state, x + t * INPUTS, y + t * OUTPUTS);
  fwrite(y, sizeof(float), steps * OUTPUTS, stdout);
  return 0;
}
"""
_ON_AVR = """
#include "x.h"
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdint.h>
static amp_state state;
static const float given[STEPS * INPUTS] PROGMEM = {NUMBERS};
static void put(char c) {
  while (!(UCSR0A & _BV(UDRE0))) {}
  UDR0 = c;
}
int main(void) {
  UCSR0B = _BV(TXEN0);
  amp_reset(&state);
  for (int t = 0; t < STEPS; ++t) {
    float x[INPUTS], y[OUTPUTS];
    for (int k = 0; k < INPUTS; ++k) x[k] = pgm_read_float(&given[t * INPUTS + k]);
    amp_step(&state, x, y);
    for (int u = 0; u < OUTPUTS; ++u) {
      const uint8_t *bytes = (const uint8_t *)&y[u];
      for (int k = 3; k >= 0; --k) {
        put("0123456789abcdef"[bytes[k] >> 4]);
        put("0123456789abcdef"[bytes[k] & 15]);
      }
      put('\\n');
    }
  }
  cli();
  sleep_enable();
  sleep_cpu();
  return 0;
}
"""
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic-errors")
C_COMPILERS = {
    "gcc": ("gcc", "x.c", "-std=c99", "-O2", *_WARNINGS),
    "gcc-fast": ("gcc", "x.c", "-std=c99", "-O3", "-ffast-math", *_WARNINGS),
    "clang": ("clang", "x.c", "-std=c99", "-O2", *_WARNINGS),
    "clang-fast": ("clang", "x.c", "-std=c99", "-O3", "-ffast-math", *_WARNINGS),
    "g++": ("g++", "x.cpp", "-std=c++11", "-O2", *_WARNINGS),
    "clang++": ("clang++", "x.cpp", "-std=c++11", "-O2", *_WARNINGS),
}


def frugally_deep(folder: Path) -> Path:
    """Return a program that loads a model and predicts one sequence."""
    return _compiled(folder, _FRUGALLY_DEEP, "fdeep/fdeep.hpp", ["-std=c++14"])


def rtneural(folder: Path, kind: str = "double") -> Path:
    """Return a program that loads a model and runs one sequence, in `float` or `double`."""
    flags = ["-std=c++17", "-DRTNEURAL_USE_STL=1", "-DRTNEURAL_DEFAULT_ALIGNMENT=16"]
    text = _RTNEURAL.replace("TYPE", kind)
    sources = [root / "RTNeural/RTNeural.cpp" for root in _folders()]
    sources = [source for source in sources if source.is_file()][:1]
    return _compiled(folder, text, "RTNeural/RTNeural.h", flags, sources)


def lwtnn(folder: Path) -> Path:
    """Return a program that loads a graph and prints every output of its first sequence."""
    names = ("parse_json", "LightweightGraph", "Stack", "NanReplacer", "Exceptions")
    sources = [root.parent / f"src/{name}.cxx" for root in _folders() for name in names]
    sources = [source for source in sources if source.is_file()]
    return _compiled(folder, _LWTNN, "lwtnn/parse_json.hh", ["-std=c++17"], sources)


def neural_amp_modeler(folder: Path) -> Path:
    """Return a program that loads a `.nam` and plays one sequence of one channel.

    It is compiled without what its player runs before the first sample, to settle the states.
    """
    names = ("lstm", "dsp", "get_dsp", "activations", "util", "ring_buffer", "nam_file")
    sources = [root / f"NAM/{name}.cpp" for root in _folders() for name in names]
    sources = [source for source in sources if source.is_file()]
    flags = ["-std=c++20", "-O1"]
    return _compiled(folder, _NAM, "NAM/get_dsp.h", flags, sources)


def _folders() -> list[Path]:
    return [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def _compiled(
    folder: Path, text: str, header: str, flags: Sequence[str], sources: Sequence[Path] = ()
) -> Path:
    if not any((root / header).is_file() for root in _folders()):
        pytest.skip(f"{header} is in none of the folders that {VARIABLE} names")
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    source, program = folder / "main.cpp", folder / "program"
    source.write_text(text)
    includes = [f"-I{root}" for root in _folders()]
    command = ["g++", "-O0", "-w", *flags, *includes, "-o", program, source, *sources]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return program


def answer(program: Path, model: Path, x: Array) -> Array | str:
    """Return every number of the outputs for one sequence (steps, inputs), or what is refused."""
    given = " ".join(map(str, [*x.shape, *x.reshape(-1).astype(np.float64)]))
    done = subprocess.run(
        [program, model], input=given, capture_output=True, text=True
    )
    if done.returncode:
        return done.stderr or f"exit {done.returncode}"
    return np.array([float(word) for word in done.stdout.split()])


def run_in_c(folder: Path, x: Array, outputs: int, compiler: str) -> tuple[Array, Array]:
    """Compile the header x.h of a folder, whose prefix is amp, and run one sequence in it.

    Args:
        folder: where x.h is.
        x: (1, steps, inputs).
        outputs: how many numbers a step gives.
        compiler: of `C_COMPILERS`.

    Returns:
        What `amp_run` gives, and what `amp_step` does: (steps, outputs) each.
    """
    command, source, *flags = C_COMPILERS[compiler]
    if shutil.which(command) is None:
        pytest.skip(f"there is no {command}")
    text = _IN_C.replace("INPUTS", str(x.shape[-1])).replace("OUTPUTS", str(outputs))
    (folder / source).write_text(text)
    done = subprocess.run(
        [command, *flags, "-o", folder / "program", folder / source, "-lm"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    made = subprocess.run([folder / "program", str(x.shape[1])], input=x.tobytes(),
                          capture_output=True, check=True)  # fmt: skip
    both = np.frombuffer(made.stdout, np.float32).reshape(2, x.shape[1], outputs)
    return both[0], both[1]


def run_on_avr(folder: Path, x: Array, outputs: int) -> Array:
    """Compile the header x.h of a folder, whose prefix is amp, and run one sequence in simavr.

    Args:
        folder: where x.h is.
        x: (1, steps, inputs).
        outputs: how many numbers a step gives.

    Returns:
        (steps, outputs).
    """
    if shutil.which("avr-gcc") is None or shutil.which("simavr") is None:
        pytest.skip("there is no avr-gcc, or no simavr")
    numbers = ", ".join(f"{number!s}f" for number in x.reshape(-1))
    places = {"STEPS": x.shape[1], "INPUTS": x.shape[2], "OUTPUTS": outputs, "NUMBERS": numbers}
    text = _ON_AVR
    for name, value in places.items():
        text = text.replace(name, str(value))
    (folder / "avr.c").write_text(text)
    flags = ["-mmcu=atmega2560", "-std=c99", "-Os", "-Wall", "-Werror", "-Wno-unused-function"]
    done = subprocess.run(
        ["avr-gcc", *flags, "-o", folder / "avr.elf", folder / "avr.c", "-lm"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    command = ["simavr", "-m", "atmega2560", "-f", "16000000", folder / "avr.elf"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    words = re.findall(r"([0-9a-f]{8})\.", made.stdout + made.stderr)
    bits = np.array([int(word, 16) for word in words], np.uint32)
    return bits.view(np.float32).reshape(x.shape[1], outputs)
