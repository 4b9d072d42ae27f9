#!/usr/bin/env bash
# The kernels' unsafe code under checkers: the tests at every instruction set of this machine, with guard pages around every
# slice (tests/memory.rs); the SIMD paths again under AddressSanitizer; the threads' work under ThreadSanitizer; the portable path under Miri.
# All but the first need a nightly toolchain with the components miri and rust-src; without one they are passed over.
set -euo pipefail
cd "$(dirname "$0")/.."

for isa in portable avx2 avx512; do
  echo "== kernels with LANGEVIN_ISA=$isa, or the best below it"
  LANGEVIN_ISA=$isa cargo test --release -p langevin-kernels
done

if ! cargo +nightly miri --version >/dev/null 2>&1; then
  echo "== no nightly toolchain with Miri: the sanitizers and Miri passed over"
  exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')

echo "== AddressSanitizer"
RUSTFLAGS=-Zsanitizer=address cargo +nightly test --release -p langevin-kernels --target "$host" \
  --target-dir target/sanitizer --tests

echo "== ThreadSanitizer"
RUSTFLAGS=-Zsanitizer=thread cargo +nightly test --release -p langevin-kernels --target "$host" -Zbuild-std \
  --target-dir target/thread-sanitizer --lib parallel

echo "== Miri, portable kernels"
# Rayon keeps its threads to the end, which is not a leak to report, and its lists are sound by tree borrows only.
MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation" LANGEVIN_ISA=portable RAYON_NUM_THREADS=2 \
  cargo +nightly miri test -p langevin-kernels --target-dir target/miri --test memory
