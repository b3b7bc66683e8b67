#!/bin/sh
# The browser tests need Chromium, and one needs w3m. On a CI machine they are installed; anywhere else that is not ours to do.
if command -v chromium >/dev/null 2>&1 && command -v w3m >/dev/null 2>&1; then
  exit 0
fi
if [ "${CI:-}" = "true" ] && [ "$(id -u)" = "0" ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium w3m >/dev/null && exit 0
fi
echo "NOTE: chromium or w3m is not installed: the browser tests will be SKIPPED. (Debian: apt-get install chromium w3m)" >&2
