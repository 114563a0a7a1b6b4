#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The man page and the completions say what the binary's --help says, and work in the real shells.

docs.py LOOPTRACE DIRECTORY, where DIRECTORY holds what packaging/generate wrote.
"""
import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
looptrace, generated = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1)).resolve()


def run(*command, **options) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def help_of(*command) -> str:
    return run(looptrace, *command, "--help")


def commands() -> list[str]:
    listed = help_of().split("Commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines()]


def options(command: str) -> list[str]:
    return sorted({o for line in help_of(command).splitlines() if line.startswith("  -")
                   for o in re.split(r" {2,}| [A-Z]", line.strip())[0].split(",")})


def long_options(command: str) -> list[str]:
    return [option for option in options(command) if option.startswith("--")]


class ManPage(unittest.TestCase):
    def test_mandoc_finds_no_fault(self):
        checked = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", generated / "looptrace.8"],
                                 capture_output=True, text=True)
        faults = [line for line in checked.stdout.splitlines() if "mandoc.db" not in line]
        self.assertEqual(faults, [])

    def test_it_has_every_command_and_option(self):
        text = re.sub(r".\x08", "", run("mandoc", "-T", "ascii", "-O", "width=200", generated / "looptrace.8"))
        self.assertGreater(len(commands()), 3)
        for command in commands():
            start = text.find(f"   looptrace {command}")
            self.assertGreater(start, 0, command)
            part = text[start : text.find("\n   looptrace ", start + 1)]
            for option in options(command):
                self.assertRegex(part, rf"(?<![\w-]){option}(?![\w-])", f"{command} {option}")

    def test_it_tells_the_version(self):
        self.assertIn(run(looptrace, "--version").split()[-1], (generated / "looptrace.8").read_text())


@unittest.skipUnless("agent" in commands(), "this looptrace has no agent")
class Configuration(unittest.TestCase):
    PAGE = generated / "looptrace.conf.5"
    SHIPPED = [ROOT / "packaging/looptrace.conf", ROOT / "packaging/kubernetes/looptrace.conf"]

    def test_the_agent_accepts_what_is_shipped(self):
        for path in self.SHIPPED:
            run(looptrace, "agent", "--config", path, "--check-config")

    def test_mandoc_finds_no_fault(self):
        checked = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", self.PAGE], capture_output=True, text=True)
        self.assertEqual([line for line in checked.stdout.splitlines() if "mandoc.db" not in line], [])

    def test_the_page_has_every_key(self):
        text = re.sub(r".\x08", "", run("mandoc", "-T", "ascii", "-O", "width=200", self.PAGE))
        keys = re.findall(r"^(?:# )?(\w+) = (\S+)", self.SHIPPED[0].read_text().split("[targets]")[1], re.M)
        self.assertGreater(len(keys), 20)
        for key, value in keys:
            self.assertIn(f"     {key} = {value}", text)

    def test_a_key_that_is_not_the_agents_is_refused(self):
        # The agent knows its keys: if the shipped file had others, the first test would fail.
        wrong = subprocess.run([looptrace, "agent", "--config", "/dev/stdin", "--check-config"], input="[trace]\nthresold = 1\n",
                               capture_output=True, text=True)
        self.assertEqual(wrong.returncode, 2, wrong.stderr)


class Completions:
    """What each shell must offer; `complete(words)` asks it to complete the last of them."""

    def test_commands(self):
        self.assertLessEqual(set(commands()), set(self.complete(["looptrace", ""])))

    def test_options_of_each_command(self):
        for command in commands():
            self.assertEqual(self.only_long(["looptrace", command, "--"]), long_options(command), command)

    def test_options_without_a_command_are_those_of_trace(self):
        self.assertEqual(self.only_long(["looptrace", "--"]), long_options("trace"))

    def test_values(self):
        self.assertEqual(sorted(self.complete(["looptrace", "-f", ""])), ["folded", "json", "pretty"])
        self.assertEqual(self.complete(["looptrace", "trace", "--hook", "al"]), ["always"])

    def test_files(self):
        self.assertIn("looptrace.8", self.complete(["looptrace", "-o", "looptrace."]))

    def only_long(self, words):
        return sorted(word for word in self.complete(words) if word.startswith("--"))


class Bash(Completions, unittest.TestCase):
    def complete(self, words):
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _looptrace; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        return run("bash", "-c", script, "bash", generated / "looptrace.bash", *words, cwd=generated).split()

    def test_shellcheck(self):
        run("shellcheck", "-s", "bash", generated / "looptrace.bash")

    def test_values_after_an_equals_sign(self):
        self.assertEqual(self.complete(["looptrace", "--hook", "=", "al"]), ["always"])


class Fish(Completions, unittest.TestCase):
    def complete(self, words):
        home = dict(os.environ, HOME=str(generated), XDG_CONFIG_HOME=str(generated / "none"))
        line = " ".join(words)
        out = run("fish", "--no-config", "-c", f"source {generated}/looptrace.fish; complete -C {line!r}",
                  cwd=generated, env=home)
        return [row.split("\t")[0] for row in out.splitlines()]


class Zsh(Completions, unittest.TestCase):
    """zsh completes only at a prompt: a pseudo terminal of its own, in which compadd prints what it is given.

    What is typed before the prompt stands is edited by the kernel: no control character but TAB, which it keeps for zsh.
    """

    DRIVER = r"""
zmodload zsh/zpty || exit 1
zpty session zsh -f -i
zpty -w session "PROMPT=; cd '$2'; autoload -U compinit; compinit -u -D; source '$1'; compdef _looptrace looptrace"
zpty -w session 'zstyle ":completion:*" list-grouped false; LISTMAX=0; unsetopt list_ambiguous'
zpty -w session 'compadd() { local -a shown; if [[ " $* " == *" -O "* || " $* " == *" -A "* || " $* " == *" -D "* ]]; then builtin compadd "$@"; return; fi; builtin compadd -O shown "$@"; print -l -- offer=${^shown}=; builtin compadd "$@" }'
zpty -w session 'complete-once() { zle complete-word; print -- do""ne }; zle -N complete-once; bindkey "^I" complete-once'
zpty -w session 'print -- rea""dy'
zpty -r session text '*ready*' || exit 1
zpty -w -n session "$3"$'\t'
zpty -r session text '*done*' || exit 1
print -r -- "$text"
"""

    def complete(self, words):
        out = run("timeout", "30", "zsh", "-f", "-c", self.DRIVER, "zsh", generated / "looptrace.zsh", generated,
                  " ".join(words))
        return sorted(set(re.findall(r"offer=(.*?)=(?=[\r\n]|$)", out)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
