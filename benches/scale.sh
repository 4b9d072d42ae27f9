#!/usr/bin/env bash
# How training scales with processes on one machine: seconds and bytes on the wire for a step, beside what docs/scale.md's formula says.
#
#   cargo build --workspace --release --features langevin-cli/mpi && benches/scale.sh
#   benches/scale.sh 4                            with up to 4 processes of one thread each
#   MODEL=digits BATCH=64 benches/scale.sh 2      another model than the course's UNet
#
# Weak scaling: as many slots as processes, so that each does the same as one alone. Strong scaling: the same slots, however many processes.
# Every process has one thread; the line `threads` is one process with as many threads. It needs Open MPI's mpirun, and some minutes.
set -euo pipefail
export LC_ALL=C HF_HUB_OFFLINE=1

clone=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${PROGRAM:-$clone/target/release/langevin}")
most=${1:-2} model=${MODEL:-course-butterflies} batch=${BATCH:-2} steps=${STEPS:-4}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
ln -s "$clone/datasets/emoji" emoji

# A run of so many processes, slots and threads in each: seconds for a step (that of the fastest but the first), bytes sent.
run() {
  local name=$1 processes=$2 slots=$3 threads=$4 said seconds bytes
  said=$(RAYON_NUM_THREADS=$threads "$program" launch --num-processes "$processes" train --dataset-name emoji --model "$model" \
    --conditioning none --train-batch-size "$batch" --num-slots "$slots" --max-train-steps "$steps" --checkpointing-steps 0 \
    --save-images-epochs 0 --save-model-epochs 0 --eval-batch-size 1 --ddpm-num-inference-steps 1 --no-dashboard --overwrite-output-dir \
    --output-dir run 2>&1) || { echo "$said" >&2; exit 1; }
  seconds=$(sed -n 's/.*"pictures_per_second":\([0-9.]*\).*/\1/p' run/metrics.jsonl | tail -n 1 |
    awk -v pictures=$((batch * slots)) '{ printf "%.2f", pictures / $1 }')
  bytes=$(sed -n 's/^\([0-9]*\) bytes were sent.*/\1/p' <<<"$said")
  parameters=$(sed -n 's/.*(\([0-9,]*\) parameters).*/\1/p' <<<"$said" | tr -d ,)
  awk -v name="$name" -v p="$processes" -v r="$slots" -v t="$threads" -v s="$seconds" -v b="${bytes:-0}" -v n="$parameters" 'BEGIN {
    printf "%-8s %9d %5d %7d %10s %14.1f %14.1f\n", name, p, r, t, s, b / 1e6, 2 * 4 * n * (p - 1) / p / 1e6 }'
}

echo "$model, $batch pictures in a slot, $steps steps"
printf '%-8s %9s %5s %7s %10s %14s %14s\n' '' processes slots threads s/step 'MB sent' '2S(P-1)/P MB'
run alone 1 1 1
run threads 1 1 "$most"
for ((p = 2; p <= most; p *= 2)); do run weak "$p" "$p" 1; done
run alone 1 "$most" 1
run threads 1 "$most" "$most"
for ((p = 2; p <= most; p *= 2)); do run strong "$p" "$most" 1; done
