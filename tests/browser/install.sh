#!/usr/bin/env bash
# Chromium and its driver, from the distribution, for the tests of the report (Debian, Ubuntu; root).
set -euo pipefail
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null
chromium --version
