# SPDX-License-Identifier: Apache-2.0
"""The program of pipelines/vector/vector.yaml, compiled and run by Vector's own VRL: vector.py, by the Python that
tests/provision vector made. Vector itself is not to be had."""
import json
import pathlib
import re
import sys

import vector_vrl

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSED_ON = (ROOT / "tests/data/sinks/golden.jsonl").read_text().splitlines()
LEFT_OUT = ("no JSON", "[1]", "{}", '{"schema": 1}', '{"schema": "others/1"}')

text = (ROOT / "pipelines/vector/vector.yaml").read_text()
indented = re.search(r"^    source: \|\n((?:      .*\n)+)", text, re.M).group(1)
program = "\n".join(line[6:] for line in indented.splitlines())
checked = vector_vrl.validate_vrl(program)
if not checked.success:
    sys.exit(f"vector.yaml: {checked.error}")
if vector_vrl.validate_vrl(program.replace(", err =", " =")).success:
    sys.exit("a program that ignores an error passed")


def run(line):
    (result,) = vector_vrl.execute_vrl(program, [json.dumps({"message": line, "file": "stalls.jsonl"})])
    return result


for line in PASSED_ON:
    if run(line) != {"line": line}:
        sys.exit(f"a record became {run(line)}")
for line in LEFT_OUT:
    if "aborted" not in run(line).get("error", ""):
        sys.exit(f"{line} became {run(line)}")
print(f"ok: {len(PASSED_ON)} records through vector.yaml's program, {len(LEFT_OUT)} other lines left out")
