#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks JSON Lines against looptrace's schemas (userspace/sinks/schemas): validate_schema.py FILE|-

Prints "ok" or the first fault of each line. Exits 1 if there is a fault or no line, 77 if python3-jsonschema is not
installed.
"""
import json
import pathlib
import sys

try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is not installed (apt-get install python3-jsonschema)", file=sys.stderr)
    sys.exit(77)

SCHEMAS = pathlib.Path(__file__).resolve().parent.parent / "userspace" / "sinks" / "schemas"


def load_validators():
    validators = {}
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[f"looptrace.{path.stem}/1"] = jsonschema.Draft202012Validator(schema)
    return validators


def fault(line, validators):
    try:
        record = json.loads(line)
    except ValueError as error:
        return f"not JSON: {error}"
    name = record.get("schema") if isinstance(record, dict) else None
    validator = validators.get(name) if isinstance(name, str) else None
    if validator is None:
        return "schema is absent or not known"
    for error in validator.iter_errors(record):
        return f"{error.json_path}: {error.message[:300]}"
    return None


def main():
    validators = load_validators()
    with sys.stdin if sys.argv[1] == "-" else open(sys.argv[1], encoding="utf-8") as file:
        faults = [fault(line, validators) for line in file]
    for found in faults:
        print(found or "ok")
    return int(not faults or any(faults))


sys.exit(main())
