#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The dashboards are what their generator writes, and dashboards.mjs finds no fault with them; nor configs.mjs with the
configurations of programs that are not to be had here."""
import subprocess
import sys

from support import CACHE, ROOT, need_node_modules

modules = need_node_modules()
here = ROOT / "tests/pipelines"
files = sorted((ROOT / "dashboards/grafana").glob("*.json"))
for command in (
    [sys.executable, ROOT / "dashboards/generate.py", "--check"],
    ["node", here / "dashboards.mjs", modules, *files],
    ["node", here / "configs.mjs", modules],
):
    if subprocess.run(command).returncode != 0:
        sys.exit(1)
python = CACHE / "vector-vrl" / "bin" / "python"
if python.exists():
    sys.exit(subprocess.run([python, here / "vector.py"]).returncode)
print("not run: Vector's VRL (tests/provision vector)")
