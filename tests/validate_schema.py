#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks looptrace's JSON Lines: validate_schema.py [--max-line BYTES] FILE|-

Each line must be an object that its schema (userspace/sinks/schemas) accepts, no longer than BYTES with its
line feed, without nulls, empty texts or dots in keys; a closed stall's times must add up. Exits 1 with the
first line that is wrong, 77 if python3-jsonschema is not installed.
"""

import argparse
import json
import pathlib
import sys

try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is not installed (apt-get install python3-jsonschema)", file=sys.stderr)
    sys.exit(77)

SCHEMAS = pathlib.Path(__file__).resolve().parent.parent / "userspace" / "sinks" / "schemas"
OPEN_NAMES = {"features", "dropped"}  # their keys are data


def load_validators():
    validators = {}
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[f"looptrace.{path.stem}/1"] = jsonschema.Draft202012Validator(schema)
    return validators


def unique_keys(pairs):
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError(f"a key stands twice in {keys}")
    return dict(pairs)


def house_rules(value, path="$"):
    """What no schema says once for all: null and "" mean absent, keys hold no dots."""
    if value is None or value == "":
        yield f"{path} is {json.dumps(value)}: leave it out"
    elif isinstance(value, dict):
        for key, child in value.items():
            if "." in key and path.rsplit(".", 1)[-1] not in OPEN_NAMES:
                yield f"{path} has the key {key!r} with a dot"
            yield from house_rules(child, f"{path}.{key}")
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from house_rules(child, f"{path}[{i}]")


def stall_rules(record):
    parts = record["time_ns"]
    total = parts["on_cpu"] + parts["runqueue"] + parts["blocked"]
    if record["state"] == "closed" and total != record["duration_ns"]:
        yield f"time_ns adds up to {total}, duration_ns is {record['duration_ns']}"
    for wait in record.get("waits", []):
        if "stack" in wait and wait["stack"] >= len(record.get("stacks", [])):
            yield f"a wait points to stack {wait['stack']}, which is not there"


def problems(line, validators, max_line):
    if max_line and len(line) > max_line:
        yield f"{len(line)} bytes, more than {max_line}"
    if not line.endswith(b"\n"):
        yield "no line feed at its end"
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, UnicodeDecodeError) as error:
        yield f"not JSON: {error}"
        return
    validator = validators.get(record.get("schema") if isinstance(record, dict) else None)
    if validator is None:
        yield "schema is absent or not known"
        return
    for error in validator.iter_errors(record):
        yield f"{error.json_path}: {error.message[:300]}"
    yield from house_rules(record)
    if record["schema"] == "looptrace.stall/1":
        yield from stall_rules(record)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-line", type=int, default=0)
    parser.add_argument("file")
    arguments = parser.parse_args()
    validators = load_validators()
    count = 0
    stream = sys.stdin.buffer if arguments.file == "-" else open(arguments.file, "rb")
    with stream:
        for number, line in enumerate(stream, 1):
            found = list(problems(line, validators, arguments.max_line))
            if found:
                print(f"{arguments.file}:{number}: {found[0]}\n{line[:2000].decode('utf-8', 'replace')}", file=sys.stderr)
                return 1
            count += 1
    if count == 0:
        print(f"{arguments.file}: no lines", file=sys.stderr)
        return 1
    print(f"{count} lines valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
