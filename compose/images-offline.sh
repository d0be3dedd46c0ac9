#!/usr/bin/env bash
# Stand-ins for the base images, for machines that reach no image registry:
#
#   faultline/python:standin   for python:3.13-slim (also holds nftables, for FAULTS=packets)
#   faultline/redis:standin    for redis:8          (the same image)
#   faultline/kafka:standin    for apache/kafka:4   (a JRE and Kafka's Maven artefacts)
#
#   compose/images-offline.sh [python] [kafka]      (default: both; those that are here stay)
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
# Part of the tarballs' names: what is built differently is another file.
RECIPE=$(cat "$HERE/images-offline.sh" "$HERE"/kafka/*.sh "$HERE/../labs/harness/testbed/kafka-pom.xml" $CA |
  sha256sum | cut -c1-12)
KAFKA=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$HERE/../labs/harness/testbed/kafka_install.py")
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

has() { [ "$(docker image inspect --format '{{index .Config.Labels "faultline.recipe"}}' "$1" 2>/dev/null)" = "$RECIPE" ]; }

load() { # TARBALL IMAGE
  docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c "ENV PIP_CERT=$CA" -c 'CMD ["python3"]' -c "LABEL faultline.recipe=$RECIPE" "$1" "$2" >/dev/null
  say "$2 is here ($(docker image inspect --format '{{.Size}}' "$2" | awk '{printf "%.0f MB", $1 / 1e6}'))"
}

python_image() {
  local tarball="$CACHE/python-$RECIPE.tar"
  if has faultline/python:standin && has faultline/redis:standin; then
    say "faultline/python:standin and faultline/redis:standin are here"
    return
  fi
  if [ ! -s "$tarball" ]; then
    say "building the stand-in for python and redis (half a minute) …"
    # A venv in /usr/local gives the paths of the official image, and pip may install there.
    # The bytecode stays: without it each start of a node would compile for half a second.
    debootstrap_into "$tarball" python3,python3-venv,redis-server,nftables \
      --customize-hook='chroot "$1" python3 -m venv /usr/local' \
      --customize-hook='rm -rf "$1"/usr/share/python-wheels' \
      --customize-hook='mkdir -p "$1"/data && chown 999:1000 "$1"/data'
  fi
  load "$tarball" faultline/python:standin
  docker tag faultline/python:standin faultline/redis:standin
}

kafka_image() {
  local tarball="$CACHE/kafka-$RECIPE.tar"
  if has faultline/kafka:standin; then
    say "faultline/kafka:standin is here"
    return
  fi
  if [ ! -s "$tarball" ]; then
    local libs
    libs=$(ls -d "${XDG_CACHE_HOME:-$HOME/.cache}/faultline/kafka-$KAFKA/libs" 2>/dev/null) ||
      fail "Apache Kafka $KAFKA is not here; type: make kafka"
    say "building the stand-in for Apache Kafka (a minute) …"
    # Java's set-up fails without a place for its manual, which is left out.
    debootstrap_into "$tarball" openjdk-21-jre-headless \
      --essential-hook='mkdir -p "$1"/usr/share/man/man1' \
      --customize-hook='mkdir -p "$1"/opt/kafka/libs "$1"/opt/kafka/bin "$1"/opt/kafka/config' \
      --customize-hook="cp $libs/*.jar \"\$1\"/opt/kafka/libs/" \
      --customize-hook="cp $HERE/kafka/*.sh \"\$1\"/opt/kafka/bin/" \
      --customize-hook='mkdir -p "$1"/var/lib/kafka/data && chown -R 1000:1000 "$1"/var/lib/kafka'
  fi
  load "$tarball" faultline/kafka:standin
}

for image in "${@:-python kafka}"; do
  for each in $image; do
    case $each in
      python) python_image ;;
      kafka) kafka_image ;;
      *) fail "unknown image $each: python or kafka" ;;
    esac
  done
done
