#!/bin/bash
# Installs the Debian packages that a make target needs, and says what it does. Idempotent; needs root only to install.
set -euo pipefail
optional=()
case "${1:?usage: setup.sh venv|test|bench}" in
  venv)  packages=(python3-venv python3-seccomp)
         # Compiles the modules on a request's way; without, they are interpreted, which is slower.
         optional=(gcc libc6-dev libpython3-dev) ;;
  test)  packages=(python3-venv python3-seccomp util-linux debootstrap squid openssl gcc libc6-dev git acl apparmor)
         # From wherever it comes: a Docker Engine that is there already is not replaced by Debian's.
         command -v dockerd >/dev/null || packages+=(docker.io)
         command -v podman >/dev/null || packages+=(podman golang-github-containers-common)
         command -v runc >/dev/null || packages+=(runc)
         command -v conmon >/dev/null || packages+=(conmon) ;;
  bench) packages=(python3-venv python3-seccomp util-linux nginx-light haproxy wrk gcc libc6-dev libssl-dev ca-certificates
                  bubblewrap tini dumb-init catatonit)
         # For the profile of what falls short; elsewhere it has another name for each kernel.
         grep -q '^ID=debian' /etc/os-release && packages+=(linux-perf) ;;
  *) echo "setup.sh: unknown set '$1'" >&2; exit 2 ;;
esac
absent() {
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
  done
}
mapfile -t missing < <(absent "${packages[@]}")
mapfile -t wanted < <(absent "${optional[@]}")
if [ "$(id -u)" -eq 0 ]; then
  missing+=("${wanted[@]}")
elif [ ${#wanted[@]} -ne 0 ]; then
  echo "coding-agents: helpers will be slower without these Debian packages: ${wanted[*]}" >&2
fi
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "coding-agents: these Debian packages are missing: ${missing[*]}; run 'sudo apt-get install ${missing[*]}' first." >&2
  exit 2
fi
had_containerd=$(command -v containerd || true)
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
if [[ " ${missing[*]} " == *" docker.io "* ]]; then
  # The tests run an engine of their own; what the package starts, now or at boot, is none of their business.
  if [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now docker.socket docker.service
    [ -n "$had_containerd" ] || systemctl --quiet disable --now containerd.service
  else
    service docker stop >/dev/null 2>&1 || true
    update-rc.d docker disable
  fi
fi
if [[ " ${missing[*]} " == *" squid "* ]]; then
  if [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now squid.service
  else
    service squid stop >/dev/null 2>&1 || true
    update-rc.d squid disable
  fi
fi
