#!/bin/bash
# Installs the Debian packages that a make target needs, and says what it does. Idempotent; needs root only to install.
set -euo pipefail
case "${1:?usage: setup.sh venv|test|bench}" in
  venv)  packages=(python3-venv python3-seccomp) ;;
  test)  packages=(python3-venv python3-seccomp util-linux debootstrap docker.io) ;;
  bench) packages=(python3-venv python3-seccomp nginx-light wrk) ;;
  *) echo "setup.sh: unknown set '$1'" >&2; exit 2 ;;
esac
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "coding-agents: these Debian packages are missing: ${missing[*]}; run 'sudo apt-get install ${missing[*]}' first." >&2
  exit 2
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
