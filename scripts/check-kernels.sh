#!/usr/bin/env bash
# The kernels' unsafe code under checkers: the tests at every instruction set of this machine, with guard pages around every
# slice (tests/memory.rs); NEON's in an emulator; the SIMD paths again under AddressSanitizer; the threads' work under ThreadSanitizer; the
# portable path under Miri. NEON needs the target aarch64-unknown-linux-gnu, qemu-aarch64 and aarch64-linux-gnu-gcc (Debian's qemu-user,
# gcc-aarch64-linux-gnu and libc6-dev-arm64-cross), the rest a nightly toolchain with the components miri and rust-src. What is not there is
# passed over.
set -euo pipefail
cd "$(dirname "$0")/.."

for isa in portable avx2 avx512; do
  echo "== kernels with LANGEVIN_ISA=$isa, or the best below it"
  LANGEVIN_ISA=$isa cargo test --release -p langevin-kernels
done

if command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null &&
  [ -d "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu" ]; then
  echo "== kernels with NEON, emulated"
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
    cargo test --release -p langevin-kernels --target aarch64-unknown-linux-gnu --tests
else
  echo "== no emulator, linker or target for 64-bit ARM: NEON passed over"
fi

if ! cargo +nightly miri --version >/dev/null 2>&1; then
  echo "== no nightly toolchain with Miri: the sanitizers and Miri passed over"
  exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')

echo "== AddressSanitizer"
# Slabs of the pool that results are cut out of are never given back, which is no leak to report.
ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address cargo +nightly test --release -p langevin-kernels --target "$host" \
  --target-dir target/sanitizer --tests

echo "== ThreadSanitizer"
RUSTFLAGS=-Zsanitizer=thread cargo +nightly test --release -p langevin-kernels --target "$host" -Zbuild-std \
  --target-dir target/thread-sanitizer --lib parallel

echo "== Miri, portable kernels"
# Rayon keeps its threads to the end, which is not a leak to report, and its lists are sound by tree borrows only.
MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-disable-isolation" LANGEVIN_ISA=portable RAYON_NUM_THREADS=2 \
  cargo +nightly miri test -p langevin-kernels --target-dir target/miri --test memory
