#!/usr/bin/env bash
# Makes ready what the tests need from Debian, once: commands, and a systemctl that needs no systemd.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools="${CODEDEPLOY_TEST_TOOLS:-$PWD/target/tools}"

# A command that a test calls, and the package that has it.
packages=()
needs() {
  PATH="/usr/sbin:/usr/bin:/sbin:/bin" type -P "$1" >/dev/null || packages+=("$2")
}
needs ip iproute2
needs setfacl acl
needs unshare util-linux
needs losetup mount
needs python3 python3
needs haproxy haproxy
needs jq jq
needs bzip2 bzip2
needs xz xz-utils
needs zstd zstd
needs zip zip
needs unzip unzip
needs bsdtar libarchive-tools
needs mandoc mandoc
needs rpmsign rpm
needs createrepo_c createrepo-c
needs gpg gnupg
needs minisign minisign
needs lintian lintian
needs rpmlint rpmlint
needs chromium chromium
needs chromedriver chromium-driver
if [ "$(id -u)" -eq 0 ]; then
  needs mkfs.ext4 e2fsprogs
  needs mkfs.xfs xfsprogs
  needs debootstrap debootstrap
  needs systemd-nspawn systemd-container
fi

fetch() {
  apt-get "$@" 2>/dev/null || { apt-get --quiet=2 update && apt-get "$@"; }
}

if [ "${#packages[@]}" -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ]; then
    echo "tests/tools.sh: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    fetch install --quiet=2 --yes --no-install-recommends "${packages[@]}" >/dev/null
  else
    echo "tests/tools.sh: missing, and only root can install them: ${packages[*]}" >&2
  fi
fi

# Unpacks a Debian package without installing it, unless its program is there.
unpack() {
  local package="$1" program="$2" scratch
  [ ! -x "$tools/$package/$program" ] || return 0
  echo "tests/tools.sh: unpacking $package into $tools"
  mkdir -p "$tools"
  scratch="$(mktemp -d "$tools/.$package.XXXXXX")"
  (cd "$scratch" && fetch -o APT::Sandbox::User=root download --quiet=2 "$package")
  dpkg-deb --extract "$scratch/${package}"_*.deb "$scratch/root"
  rm -rf "${tools:?}/$package"
  mv "$scratch/root" "$tools/$package"
  rm -rf "$scratch"
}

# It starts services itself; its package would replace systemd.
unpack systemctl usr/bin/systemctl
# Its package would start a service that collects metrics of this machine.
unpack prometheus usr/bin/promtool

# Its package would serve a site on port 80.
unpack nginx usr/sbin/nginx

# Of this host's release, so that what was built here runs there.
if [ "$(id -u)" -eq 0 ] && { [ ! -x "$tools/machine/usr/bin/dnf" ] || [ ! -x "$tools/machine/usr/bin/python3" ]; }; then
  echo "tests/tools.sh: unpacking a Debian system into $tools/machine"
  tests/machine "$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")" "$tools/machine"
fi
