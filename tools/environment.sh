# Sourced by ./demo and ./test: finds a Python, and makes the private environment in .venv.
# Nothing outside of this directory is changed, but for Debian's python3-venv where it is missing and we are root.

say() { printf '%s\n' "$*" >&2; }

find_python() {
  for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  say "serai needs Python 3.11 or newer, and none is on the PATH (PYTHON=/path/to/python names one)."
  exit 1
}

as_root_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

# environment [pip arguments...]: installs into .venv what these name, unless just this was installed before.
environment() {
  python=$(find_python) || exit 1
  if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      if as_root_apt; then
        say "installing python3-venv ..."
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
      else
        say "$python cannot make environments; on Debian and Ubuntu: sudo apt-get install python3-venv"
        exit 1
      fi
    fi
    say "making the environment .venv with $("$python" --version) ..."
    "$python" -m venv .venv || exit 1
  fi
  mark=".venv/.installed-$(printf '%s ' "$@" | cat - pyproject.toml constraints.txt | cksum | tr ' ' '-')"
  if [ ! -e "$mark" ]; then
    say "installing what is needed into .venv ..."
    # --group came with pip 25.1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' || exit 1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@" || exit 1
    : >"$mark"
  fi
}
