"""A real browser for tests: Debian's Chromium, driven by Playwright's core, with axe beside it.

`LSTMCONVERT_BROWSER` names the `node_modules` folder that holds `playwright-core` and `axe-core`;
`.ci/run` installs them. Without it, or without Chromium, the tests that need it are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("browser.mjs")


class Browser:
    """One browser, with one page at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __call__(self, command: str, **options: Any) -> Any:
        """Run a command of the script, and return its answer."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps({"command": command, **options}), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline() or '{"error": "the browser is gone"}')
        if "error" in answer:
            raise AssertionError(f"{command} {options}: {answer['error']}")
        return answer["answer"]

    def open(self, file: Path, **options: Any) -> None:
        """Show a page, and wait until its script is ready."""
        self("open", file=str(file.resolve()), **options)

    def evaluate(self, code: str) -> Any:
        """Return what a JavaScript expression is on the page."""
        return self("eval", code=code)

    @property
    def reading(self) -> list[str] | None:
        """The texts of the bar at the bottom; None before its first use."""
        return self("read")

    def close(self) -> None:
        """End the browser."""
        with self._process as process:  # which closes its pipes
            assert process.stdin
            process.stdin.close()
            process.wait(timeout=60)


def missing() -> str | None:
    """Return why there is no browser, or None."""
    folder = os.environ.get("LSTMCONVERT_BROWSER")
    chromium = os.environ.get("LSTMCONVERT_CHROMIUM", "/usr/bin/chromium")
    if not folder or not (Path(folder) / "playwright-core").is_dir():
        return "LSTMCONVERT_BROWSER names no folder with playwright-core; .ci/run installs it"
    if not Path(chromium).exists():
        return f"{chromium} is not installed; .ci/run installs it"
    if shutil.which("node") is None:
        return "node is not installed"
    return None


def launch() -> Browser:
    """Start a browser, or skip the test and say why."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return Browser()
