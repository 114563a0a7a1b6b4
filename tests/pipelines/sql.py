#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Records of real stalls for sql.mjs: sql.py LOOPTRACE VICTIM-DIRECTORY"""
import pathlib
import subprocess
import sys
import tempfile

from support import ROOT, need_node_modules, stalling_servers

modules = need_node_modules()
looptrace, victims = sys.argv[1], pathlib.Path(sys.argv[2])
with tempfile.TemporaryDirectory(prefix="looptrace-sql-") as work:
    records = pathlib.Path(work) / "records.jsonl"
    with stalling_servers(victims, 7) as pids:
        targets = [word for pid in pids for word in ("-p", str(pid))]
        subprocess.run([looptrace, *targets, "-d", "4s", "-i", "1s", "-f", "json", "-o", records], check=True)
    sys.exit(subprocess.run(["node", ROOT / "tests/pipelines/sql.mjs", modules, records]).returncode)
