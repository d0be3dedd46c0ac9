#!/usr/bin/env bash
# Stand-ins for the base images, for machines that reach no image registry:
#
#   faultline/<image>:standin    one for each line of compose/stand-ins; that of python also holds
#                                nftables, for FAULTS=packets
#
#   compose/images-offline.sh [image …]    (default: all; those that are here stay)
#
# Built from the distribution's packages by mmdebstrap, as root. The packages come from where this
# machine's own apt gets them; no host is named here. The images carry this machine's certificate
# bundle, so that pip works behind its proxies: never push them.
#
# Tarballs are kept in ${FAULTLINE_CACHE:-~/.cache/faultline}: an engine that has lost its images
# gets them back within seconds.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

SUITE=trixie
HERE=$(cd "$(dirname "$0")" && pwd)
CACHE=${FAULTLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/faultline}
CA=/etc/ssl/certs/ca-certificates.crt
SLIM=()
for path in doc man locale info; do SLIM+=("--dpkgopt=path-exclude=/usr/share/$path/*"); done

say() { echo "images-offline: $*" >&2; }
fail() { say "$*"; exit 2; }

docker version >/dev/null 2>&1 || fail "no Docker engine answers; type: sudo compose/engine.sh"

debootstrap_into() { # TARBALL PACKAGES [more options of mmdebstrap …]
  local tarball=$1 packages=$2 work
  shift 2
  [ "$(id -u)" = 0 ] || fail "building stand-ins needs root; type: sudo $0"
  command -v apt-get >/dev/null || fail "not a Debian machine: stand-ins are built from Debian's packages"
  command -v mmdebstrap >/dev/null || {
    say "installing mmdebstrap …"
    apt-get -q update >/dev/null
    apt-get -q install -y --no-install-recommends mmdebstrap >/dev/null
  }
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  local own source
  own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  for source in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$source" ]; then break; fi
  done
  # mmdebstrap tells the two formats apart by their content.
  sed "s/$own/$SUITE/g" "$source" >"$work/$SUITE.sources"
  mkdir -p "$CACHE"
  # To a file, then imported: in a pipe a build that failed would leave an empty image behind.
  mmdebstrap --quiet --variant=minbase "${SLIM[@]}" --include="ca-certificates,$packages" "$@" \
    --customize-hook="cp $CA \"\$1$CA\"" \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*' \
    "$SUITE" "$work/root.tar" "$work/$SUITE.sources"
  mv "$work/root.tar" "$tarball.new"
  rm -f "${tarball%-*}"-*.tar # of earlier recipes
  mv "$tarball.new" "$tarball"
  rm -rf "$work"
  trap - EXIT
}

# Part of the tarball's name: what is built differently is another file. Only what this image is
# built from counts, so that another line of the list does not build all of them anew.
recipe() { # IMAGE LINE
  { echo "$2"; cat "$HERE/images-offline.sh" "$HERE/../labs/harness/testbed/members/kafka-pom.xml" $CA
    if [ -d "$HERE/$1" ]; then cat "$HERE/$1"/*; fi; } | sha256sum | cut -c1-12
}

has() { [ "$(docker image inspect --format '{{index .Config.Labels "faultline.recipe"}}' "$1" 2>/dev/null)" = "$2" ]; }

load() { # TARBALL IMAGE RECIPE
  docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c "ENV PIP_CERT=$CA" -c 'CMD ["python3"]' -c "LABEL faultline.recipe=$3" "$1" "$2" >/dev/null
  say "$2 is here ($(docker image inspect --format '{{.Size}}' "$2" | awk '{printf "%.0f MB", $1 / 1e6}'))"
}

build() { # IMAGE
  local line packages data owner recipe tarball HOOKS
  line=$(grep -E "^$1 " "$HERE/stand-ins") || fail "unknown image $1: one of $(images)"
  read -r _ packages data owner <<<"$line"
  recipe=$(recipe "$1" "$line")
  tarball="$CACHE/$1-$recipe.tar"
  if has "faultline/$1:standin" "$recipe"; then
    say "faultline/$1:standin is here"
    return
  fi
  if [ ! -s "$tarball" ]; then
    say "building the stand-in for $1 (up to a minute) …"
    # Whose data directory it is in the image, a fresh volume's will be.
    HOOKS=(--customize-hook="mkdir -p \"\$1\"$data && chown $owner \"\$1\"$data")
    # shellcheck disable=SC1090
    if [ -e "$HERE/$1/stand-in.sh" ]; then . "$HERE/$1/stand-in.sh"; fi
    debootstrap_into "$tarball" "$packages" "${HOOKS[@]}"
  fi
  load "$tarball" "faultline/$1:standin" "$recipe"
}

images() { grep -oE '^[a-z][a-z0-9-]*' "$HERE/stand-ins" | xargs; }

for image in ${*:-$(images)}; do build "$image"; done
