#!/usr/bin/env bash
# What is too slow, or wants too much, for every change, and must hold before a release: run by hand and by the release workflow.
#
#   scripts/release-check.sh                 all of it
#   scripts/release-check.sh book deny       some of it
#
# Each part says what it did in a line at the end: passed, failed, or passed over for want of a tool. It ends with 1 if one failed.
set -uo pipefail
cd "$(dirname "$0")/.."
parts=(${@:-kills mpich wheel package book deny kernels lavapipe})
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
results=() failed=0

has() { command -v "$1" >/dev/null; }
skip() { echo "passed over: $*"; return 77; }

# A hundred kills at random moments, of a run alone and of those that train on top of others.
kills() { LANGEVIN_KILLS=${KILLS:-100} cargo test --workspace --release --test resume killed -- --nocapture; }

# The other family of MPI, with twenty kills, in a target folder of its own.
mpich() {
  has mpicc.mpich && has mpirun.mpich || { skip "no MPICH (Debian: mpich, libmpich-dev)"; return; }
  mkdir -p "$work/mpi"
  for tool in mpicc mpirun mpiexec; do ln -sf "$(command -v $tool.mpich)" "$work/mpi/$tool"; done
  PATH="$work/mpi:$PATH" MPICC=mpicc.mpich LANGEVIN_KILLS=20 \
    cargo test --workspace --release --features langevin-cli/mpi --target-dir target/mpich --test mpi
}

# A wheel that is installed where no Rust is.
wheel() {
  has python3 || { skip "no python3"; return; }
  python3 -m venv "$work/build" && "$work/build/bin/pip" -q install maturin || { skip "maturin cannot be had"; return; }
  "$work/build/bin/maturin" build --release --locked --out "$work/wheel" &&
    python3 -m venv "$work/fresh" && "$work/fresh/bin/pip" -q install --no-index "$work"/wheel/*.whl &&
    env -i HOME="$work" PATH="$work/fresh/bin:/usr/bin:/bin" langevin train --max-train-steps 20 --output-dir "$work/run" --no-dashboard &&
    env -i HOME="$work" PATH="$work/fresh/bin:/usr/bin:/bin" langevin sample "$work/run" --steps 5 --output "$work/three.png" &&
    ls -l "$work"/wheel/*.whl
}

# What the registry of crates would be sent, each under its limit of 10 MB.
package() {
  cargo publish --workspace --dry-run --allow-dirty --locked || return 1
  local large
  large=$(find target/package -maxdepth 1 -name '*.crate' -size +10M)
  [ -z "$large" ] || { echo "over 10 MB: $large"; return 1; }
}

# The documentation as a book; that its links lead somewhere is a test of every change.
book() { has mdbook || { skip "no mdbook"; return; }; mdbook build docs; }

deny() { has cargo-deny || { skip "no cargo-deny"; return; }; cargo deny check; }

kernels() { scripts/check-kernels.sh; }

# A GPU that is none: Mesa's driver for processors.
lavapipe() {
  ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 || { skip "no lavapipe (Debian: mesa-vulkan-drivers)"; return; }
  VK_ICD_FILENAMES=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json | head -n 1) LANGEVIN_DEVICE=wgpu \
    cargo test --workspace --release --features langevin-cli/wgpu --target-dir target/wgpu --test operations --test device
}

for part in "${parts[@]}"; do
  printf '\n== %s\n' "$part"
  start=$SECONDS
  "$part"
  case $? in
    0) said="passed" ;;
    77) said="passed over" ;;
    *) said="FAILED" failed=1 ;;
  esac
  results+=("$(printf '%-10s %-12s %5d s' "$part" "$said" $((SECONDS - start)))")
done
printf '\n%s\n' "$(git rev-parse --short HEAD), $(rustc --version), $(uname -m)" "${results[@]}"
exit $failed
