#!/bin/sh
# The browser tests need Chromium, one needs w3m, and those of deploy/ need nginx, Caddy and promtool (Debian's prometheus). On a
# CI machine they are installed, without starting their services; anywhere else that is not ours to do.
missing=""
for program in chromium w3m nginx caddy promtool; do
  command -v $program >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "${CI:-}" = "true" ] && [ "$(id -u)" = "0" ] && command -v apt-get >/dev/null 2>&1; then
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d; }
  # Chromium with what it recommends: its fonts decide how wide a text is.
  apt-get update -qq && export DEBIAN_FRONTEND=noninteractive && apt-get install -y -qq chromium w3m >/dev/null &&
    apt-get install -y -qq --no-install-recommends nginx-light caddy prometheus >/dev/null && exit 0
fi
echo "NOTE: not installed:$missing; their tests will be SKIPPED. (Debian: apt-get install chromium w3m nginx-light caddy prometheus)" >&2
