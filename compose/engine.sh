#!/usr/bin/env bash
# A Docker engine for a Debian machine that has none: install it, start it, wait until it answers.
#
#   compose/engine.sh         as root. Prints what it did; does nothing when an engine answers.
#   compose/engine.sh stop    ends the engine that an earlier call started, and only that one.
#
# The packages come from Debian 13 (trixie), also on Debian 12, whose own engine is too old and has
# no `docker compose`. Only the four packages themselves: with `-t trixie` apt would upgrade libc and
# thirty others. The sources are the machine's own, with the suite's name changed, in a directory
# that goes away again: apt's configuration on this machine is not touched.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

SUITE=trixie
PACKAGES=(docker.io docker-cli docker-compose docker-buildx)
LOG=/var/log/faultline-dockerd.log
PIDFILE=/run/faultline-dockerd.pid
ANSWERS_WITHIN_S=60

say() { echo "engine: $*" >&2; }
fail() { say "$*"; exit 2; }
answers() { docker version --format '{{.Server.Version}}' 2>/dev/null; }
has_compose() { docker compose version >/dev/null 2>&1; }

need_root() {
  [ "$(id -u)" = 0 ] || fail "installing and starting an engine needs root; type: sudo $0"
}

# The machine's own package sources with the suite's name changed, pinned below everything else.
apt_directory() {
  local directory=$1 own
  own=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
  [ -n "$own" ] || fail "this is no Debian release that I know; install Docker by hand"
  mkdir -p "$directory/parts" "$directory/lists/partial"
  chmod -R a+rX "$directory"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
    if [ ! -s "$file" ] || ! grep -q "$own" "$file"; then continue; fi
    cp "$file" "$directory/parts/own-$(basename "$file")"
    if [ "$own" != "$SUITE" ]; then
      sed "s/$own/$SUITE/g" "$file" >"$directory/parts/next-$(basename "$file")"
    fi
  done
  cat >"$directory/preferences" <<PIN
Package: *
Pin: release n=$SUITE*
Pin-Priority: 50
PIN
  [ "$own" != "$SUITE" ] || : >"$directory/preferences"
}

apt() {
  local directory=$1
  shift
  apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$directory/parts" \
    -o Dir::Etc::preferences="$directory/preferences" -o Dir::State::lists="$directory/lists" \
    -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@"
}

install_packages() {
  command -v apt-get >/dev/null || fail "no apt-get here: install Docker by hand (with its compose plugin)"
  grep -qE '^(ID|ID_LIKE)=.*debian' /etc/os-release || fail "not a Debian machine: install Docker by hand"
  ! grep -q '^ID=ubuntu' /etc/os-release ||
    fail "on Ubuntu type: apt-get install docker.io docker-compose-v2 docker-buildx"
  local directory
  directory=$(mktemp -d)
  trap 'rm -rf "$directory"' RETURN
  chmod 755 "$directory"
  apt_directory "$directory"
  say "installing ${PACKAGES[*]} ($SUITE) …"
  apt "$directory" update >/dev/null
  apt "$directory" install -y --no-install-recommends "${PACKAGES[@]/%//$SUITE}" >&2
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    # One that an earlier call started may still be on its way: a second one would end at once, and
    # its number in the file would hide the first from `stop`.
    if [ "$(cat "/proc/$(cat "$PIDFILE" 2>/dev/null)/comm" 2>/dev/null)" != dockerd ]; then
      say "starting dockerd, log: $LOG"
      setsid nohup dockerd >>"$LOG" 2>&1 </dev/null &
      echo $! >"$PIDFILE"
    fi
  fi
  local tenths=0
  until answers >/dev/null; do
    tenths=$((tenths + 2))
    if [ $tenths -ge $((ANSWERS_WITHIN_S * 10)) ]; then
      tail -n 20 "$LOG" >&2 || true
      fail "no answer within $ANSWERS_WITHIN_S s; see $LOG"
    fi
    sleep 0.2
  done
}

stop_engine() {
  [ -s "$PIDFILE" ] || { say "none that I started"; return; }
  need_root
  local pid
  pid=$(cat "$PIDFILE")
  # The number may be another process's by now: it must be a dockerd.
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    say "stopped"
  fi
  rm -f "$PIDFILE"
}

if [ "${1:-}" = stop ]; then
  stop_engine
  exit
fi
if answers >/dev/null && has_compose; then
  say "engine $(answers) answers, $(docker compose version --short 2>/dev/null) is its compose"
  exit
fi
need_root
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null || ! has_compose; then install_packages; fi
answers >/dev/null || start_engine
has_compose || fail "the engine answers, but 'docker compose' does not; see docs of your docker package"
say "engine $(answers) answers, $(docker compose version --short) is its compose"
