#!/usr/bin/env bash
# One archive that runs on a Debian 12 (or any Linux of this architecture) without packages: a static binary, the examples, the licence.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

version=$(sed -n 's/^project(graft VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=graft-$version-linux-$(uname -m)
cmake --preset package --log-level=WARNING
ninja -C build/package -j "${GRAFT_JOBS:-$(nproc)}" graft
rm -rf "build/$name" "build/$name.tar.gz"
cmake --install build/package --component graft --prefix "build/$name" --strip >/dev/null
if ldd "build/$name/bin/graft" >/dev/null 2>&1; then
  echo "error: build/$name/bin/graft needs shared libraries:" >&2
  ldd "build/$name/bin/graft" >&2
  exit 1
fi
# The same input gives the same archive: names sorted, no owner, the time of the last commit.
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar -C build --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -cf - "$name" | gzip -n9 >"build/$name.tar.gz"

# Does it run with nothing around it? With root, in a root directory that holds the archive only.
test=$(mktemp -d)
trap 'rm -rf "$test"' EXIT
tar -C "$test" -xzf "build/$name.tar.gz"
env -i "$test/$name/bin/graft" --version
if [ "${1:-}" = --demo ]; then (cd "$test" && env -i "$name/bin/graft" demo); fi  # about two minutes
if [ "$(id -u)" = 0 ]; then
  env -i "$(PATH=$PATH:/usr/sbin; command -v chroot)" "$test" "/$name/bin/graft" --version >/dev/null
  echo "package: runs in an empty root directory"
fi
ls -l "build/$name.tar.gz"
