#!/usr/bin/env bash
# Makes a copy of the pinned loom with loom.patch applied, and prints the cargo option that puts it in loom's place:
#
#     cargo --config "$(loom-tests/patched-loom.sh)" test ...
#
# `paths` and not `[patch]`, because a patch would rewrite Cargo.lock. Does nothing when the copy is there already.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
out=${CARGO_TARGET_DIR:-$root/target}/loom-patched
case $out in /*) ;; *) out=$PWD/$out ;; esac
cargo=${CARGO:-cargo}

version=$(sed -n 's/^loom = "=\([0-9.]*\)"$/\1/p' "$here/Cargo.toml")
[ -n "$version" ] || { echo "patched-loom: no exact version of loom in loom-tests/Cargo.toml" >&2; exit 1; }

stamp="$version $(cksum < "$here/loom.patch")"
if [ "$(cat "$out/.patched" 2>/dev/null || true)" != "$stamp" ]; then
    # cargo knows where the source lies, whatever registry, mirror or vendor folder it came from; it downloads it if
    # it must.
    manifest=$("$cargo" metadata --format-version 1 --manifest-path "$root/Cargo.toml" |
        awk -v key="\"name\":\"loom\",\"version\":\"$version\"" '{
            at = index($0, key); if (!at) next
            rest = substr($0, at); mark = "\"manifest_path\":\""
            rest = substr(rest, index(rest, mark) + length(mark)); print substr(rest, 1, index(rest, "\"") - 1)
        }')
    [ -f "$manifest" ] || { echo "patched-loom: cargo metadata lists no loom $version" >&2; exit 1; }

    new=$out.new.$$
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$(dirname "$out")"
    cp -R "$(dirname "$manifest")" "$new"
    chmod -R u+w "$new"
    if command -v patch >/dev/null; then
        (cd "$new" && patch -p1 --fuzz=0 -s < "$here/loom.patch") >&2
    elif command -v git >/dev/null; then
        # The copy lies inside this repository, to which git would otherwise take the paths to be relative.
        (cd "$new" && GIT_CEILING_DIRECTORIES=$(dirname "$new") git apply -p1 "$here/loom.patch") >&2
    else
        echo "patched-loom: needs patch or git to apply loom-tests/loom.patch" >&2
        exit 1
    fi
    echo "$stamp" > "$new/.patched"
    rm -rf "$out"
    mv "$new" "$out"
fi
printf 'paths=["%s"]\n' "$out"
