#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# To be sourced: packages of another Debian suite, from the mirrors that this machine's apt uses, with lists of their
# own. The system's apt is not touched.
# shellcheck disable=SC2034  # used by whom sources it
#
#   suite_open SUITE ARCH DIRECTORY || reason=$suite_error     then: apt-get "${suite_options[@]}" ...

suite_options=()
suite_error=  # why suite_open failed

# shellcheck disable=SC2016  # apt expands it
suite_mirror() {  # PATTERN: the first of this machine's sources that (with "-v", does not) name security
  apt-get indextargets --format '$(REPO_URI)' | sort -u | grep "$@" security | head -n 1
}

suite_open() {
  local suite=$1 arch=$2 root=$3 main security
  local signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  suite_options=(-qq -o "Dir::Etc=$root/etc" -o "Dir::State=$root/state" -o "Dir::State::status=$root/state/status"
                 -o "Dir::Cache=$root/cache" -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch"
                 -o Acquire::Languages=none -o APT::Sandbox::User=root)
  [ -z "$(find "$root/state/fresh" -mmin -1440 2>/dev/null)" ] || return 0
  main=$(suite_mirror -v) || { suite_error="apt has no sources here"; return 1; }
  security=$(suite_mirror -e) || security=
  mkdir -p "$root"/etc/{preferences.d,apt.conf.d,sources.list.d,trusted.gpg.d} "$root"/state/lists/partial \
    "$root"/cache/archives/partial
  touch "$root/state/status"
  echo "deb $signed $main $suite main" >"$root/etc/sources.list"
  case $suite in
    sid | *-backports) ;;
    *) [ -z "$security" ] || echo "deb $signed $security $suite-security main" >>"$root/etc/sources.list" ;;
  esac
  if apt-get "${suite_options[@]}" update >"$root/update.log" 2>&1; then
    touch "$root/state/fresh"
  elif [ ! -e "$root/state/fresh" ]; then
    suite_error="the package lists of $suite: $(grep -m 1 '^[EW]:' "$root/update.log" || echo "apt-get update failed")"
    return 1
  fi
}
