#!/bin/sh
# Everything that is made from device crates: k2k.ptx and check.ptx, the numbers of their contracts (the words behind the names
# of entry points stay), the table of their machine code, and the PTX of the examples. Run it after a change of core, device
# or kernels, and read what changes in the contracts. Needs a compiler with the sources of `core` and ptxas
# and nvdisasm, but no GPU (`k2k doctor` says which are here, and how to get them). One to three minutes on two processors.
#
# With --check: writes nothing, and fails if a PTX file was not made from this source.
# K2K_RUSTC is the compiler, if not the distribution's.
set -eu
cd "$(dirname "$0")/../.."
rustc=${K2K_RUSTC:-/usr/bin/rustc}
k2k_ptx() { cargo run -q --release -p k2k-ptx -- "$@"; }

case ${1:-} in
    '') way=--out ;;
    --check) way=--check ;;
    *) echo "usage: $0 [--check]" >&2 && exit 2 ;;
esac
library=backend-cuda/ptx/k2k.ptx check=backend-cuda/cli/ptx/check.ptx
for module in "kernels $library" "check $check"; do
    k2k_ptx build --manifest-path backend-cuda/kernels/Cargo.toml --toolchain-rustc "$rustc" \
        --no-default-features -F "${module% *}" "$way" "${module#* }"
done
for example in double denoise; do
    k2k_ptx build --manifest-path "backend-cuda/examples/$example/Cargo.toml" --toolchain-rustc "$rustc" \
        "$way" "backend-cuda/examples/$example/$example.ptx"
done
[ "$way" = --check ] && exit
k2k_ptx audit --bless --sass sm_75,sm_80,sm_90,sm_100 --require-sass --table backend-cuda/results/sass.md \
    "$library" "$check"
k2k_ptx audit --bless --sass sm_90 --require-sass backend-cuda/examples/double/double.ptx \
    backend-cuda/examples/denoise/denoise.ptx
