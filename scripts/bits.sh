#!/usr/bin/env bash
# Hashes of what the program computes: training, drawing, an answer of the API. A change that is to move no bit prints the same
# lines before and after, on one machine.
#
#   scripts/bits.sh old/langevin > before.txt         with the program as it was
#   cargo build --release && scripts/bits.sh > after.txt
#   diff before.txt after.txt                         nothing, or the cases that moved
#   scripts/bits.sh target/release/langevin '^sample/guided'     only the cases whose names match
#
# One line per case: its name and a SHA-256, or `failed` with what the program said on the standard error; the exit status is then 1.
# A run has five lines: its weights, its metrics without the times, its settings (training.json), its other files, its samples.
# A picture's hash is that of the whole PNG, with the texts in it. Cases of `avx2/` and `portable/` are computed with those kernels.
# It builds nothing, works in a temporary folder that it removes, and needs bash and coreutils, nothing outside the clone. Two busy cores
# take some three minutes.
set -uo pipefail
export LC_ALL=C HF_HUB_OFFLINE=1
unset LANGEVIN_ISA LANGEVIN_API_KEY

clone=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${1:-$clone/target/release/langevin}") filter=${2:-}
if [[ ! -x $program ]]; then
  echo "$program is no program: build one with cargo build --release, or name one" >&2
  exit 2
fi
work=$(mktemp -d) server='' failures=0
trap '[[ -z $server ]] || kill "$server"; rm -rf "$work"' EXIT
export HF_HOME=$work/hub

# The program; what it prints is kept in the files `said` and `complaint`.
langevin() { "$program" "$@" </dev/null >said 2>complaint; }

# Whether a case is asked for: it matches the filter, and is one of the few that are computed by these kernels too.
wanted() { [[ $kernels$1 =~ $filter && $1 =~ $selection ]]; }

# The line of a case: the hash of some files, one after another. `metrics.jsonl` counts without what was measured of the machine; what
# the header of latents says comes in no order.
row() {
  local name=$1 file header
  shift
  for file in "$@"; do
    case $file in
      *.latents)
        header=$(od -An -tu8 -N8 "$file")
        head -c $((header + 8)) "$file" | grep -aoE '"[a-z_]+":("[^"]*"|\[[^]]*\])' | sort
        tail -c +$((header + 9)) "$file"
        ;;
      *metrics.jsonl) sed -E 's/"(pictures_per_second|memory_mb)":[^,}]*,?//g' "$file" ;;
      *) cat "$file" ;;
    esac || echo "no $file"
  done | sha256sum | sed "s|^|$kernels$name  |; s| *-\$||"
}

failed() {
  echo "$kernels$1  failed"
  echo "$kernels$1: $(tail -n 1 complaint)" >&2
  failures=1
}

# A training run: its name, the runs that it begins with (`-` for none), and its flags. It is trained where a case needs it.
declare -A flags_of needs_of trained
run() {
  needs_of[$1]=$2
  flags_of[$1]=${*:3}
}

# Trains a run unless that was done; what is no run is there otherwise.
need() {
  local name
  for name in "$@"; do
    [[ -n ${flags_of[$name]:-} && -z ${trained[$name]:-} ]] || continue
    need ${needs_of[$name]//,/ }
    local flags=${flags_of[$name]} usual="--eval-batch-size 4 --ddpm-num-inference-steps 3 --seed 5"
    usual+=" --learning-rate 1e-3 --lr-warmup-steps 1 --output-dir $name"
    [[ $flags == *--train-batch-size* ]] || usual+=' --train-batch-size 8'
    [[ $flags == *--lr-scheduler* ]] || usual+=' --lr-scheduler constant'
    [[ $flags == *--max-train-steps* ]] || usual+=' --max-train-steps 3'
    # What goes on has the settings of its first part.
    [[ $flags == *--resume* ]] && usual=''
    # shellcheck disable=SC2086 # flags have no spaces within
    if langevin train $usual $flags; then trained[$name]=well; else trained[$name]=badly; fi
  done
}

# Five lines for a run.
show_run() {
  local name=$1 folder=${2:-$1}
  wanted "train/$name" || return 0
  need "$name"
  if [[ ${trained[$name]} != well ]]; then
    failed "train/$name"
    return
  fi
  # shellcheck disable=SC2046 # file names have no spaces
  {
    row "train/$name/weights" $(find "$folder" -name '*.safetensors' -not -path '*/checkpoint-*' | sort)
    row "train/$name/metrics" "$folder/metrics.jsonl"
    row "train/$name/settings" "$folder/training.json"
    row "train/$name/files" $(find "$folder" -mindepth 1 \( -name '*.json' -o -name '*.txt' \) -not -name training.json \
      -not -path '*/checkpoint-*' | sort)
    row "train/$name/samples" "$folder/samples.png"
  }
}

runs() {
  local grey='--dataset-name digits --model grey.json --channels grey' colour='--dataset-name emoji --model colour.json --resolution 8'
  # The recipe of the built-in digits, with its own model, and what saves memory.
  run digits - --use-ema --gradient-accumulation-steps 2
  run digits-bf16 - --mixed-precision bf16
  run digits-checkpointing - --gradient-checkpointing
  run digits-bf16-checkpointing - --mixed-precision bf16 --gradient-checkpointing --use-ema=false
  run digits-exact - --exact-convolution
  # The course's models.
  run mnist - --dataset-name digits --model course-mnist --conditioning class --train-batch-size 4 --max-train-steps 2
  run basic - --dataset-name digits --model basic-unet --train-batch-size 4 --max-train-steps 2
  # Each conditioning, with its dropout.
  run none - $grey --conditioning none --random-flip
  run class - $grey --conditioning class --class-dropout 0.3 --use-ema
  run class-timestep - $grey --conditioning class-timestep
  run channels - $grey --conditioning channels --class-emb-size 3 --class-dropout 0.3
  run one-hot - $grey --conditioning channels --class-emb-size one-hot
  run vector - $colour --conditioning vector --vector-dropout 0.3 --use-ema
  run vector-simple - $colour --conditioning vector --vector-embedding simple_projection
  run vector-clip - $colour --conditioning vector --vector clip --vector-clip clip
  run text - $colour --conditioning cross-attention --caption-dropout 0.3 --use-ema --gradient-checkpointing
  run text-frozen - $colour --conditioning cross-attention --text-encoder clip
  run image-grey - $colour --conditioning-image grey --image-dropout 0.3 --random-flip
  run image-mask - $grey --conditioning class --conditioning-image mask --image-dropout 0.3
  run image-blur - $colour --conditioning-image blur:1.5
  run image-downscale - $colour --conditioning-image downscale:2
  run image-column - --train-data-dir pairs --model colour.json --resolution 8 --conditioning-image mirrored --train-batch-size 2
  run image-edges - $grey --conditioning-image edges
  # Objectives, and what may be done to noise and loss.
  run edm - $grey --conditioning none --objective edm
  run flow - $grey --conditioning class --objective flow
  run velocity - $colour --prediction-type v_prediction --ddpm-beta-schedule squaredcos_cap_v2
  run noise - $grey --conditioning none --snr-gamma 5 --noise-offset 0.1 --input-perturbation 0.1
  run zero-snr - $grey --conditioning none --prediction-type v_prediction --rescale-betas-zero-snr --loss-weighting p2
  run cosine - $grey --conditioning none --lr-scheduler cosine
  # A run of four steps, and one that is stopped after two and goes on.
  local parts="$grey --conditioning class --use-ema --gradient-accumulation-steps 2 --checkpointing-steps 2"
  run whole - $parts --max-train-steps 4
  run part - $parts --max-train-steps 2
  run resumed part --resume-from-checkpoint part --max-train-steps 4
  parts="$colour --conditioning cross-attention --use-ema --checkpointing-steps 2"
  run text-whole - $parts --max-train-steps 4
  run text-part - $parts --max-train-steps 2
  run text-resumed text-part --resume-from-checkpoint text-part --max-train-steps 4
  # Models that are trained on.
  run train-only class --pretrained class --dataset-name digits --train-only conv_out,norm --use-ema
  run on-class class --pretrained class --dataset-name digits
  run on-none none --pretrained none --dataset-name digits --conditioning class
  run on-channels channels --pretrained channels --dataset-name digits
  run on-one-hot one-hot --pretrained one-hot --dataset-name digits
  run on-vector vector --pretrained vector --dataset-name emoji
  run on-text text --pretrained text --dataset-name emoji --caption-dropout 0.2
  run on-text-unet text --pretrained text --dataset-name emoji --train-only unet.
  run on-image image-mask --pretrained image-mask --dataset-name digits
  run on-flow flow --pretrained flow --dataset-name digits
}

show_runs() {
  local name
  for name in digits digits-bf16 digits-checkpointing digits-bf16-checkpointing digits-exact mnist basic none class class-timestep channels one-hot \
    vector vector-simple vector-clip text text-frozen image-grey image-mask image-blur image-downscale image-column image-edges edm flow \
    velocity noise zero-snr cosine whole text-whole train-only on-class on-none on-channels on-one-hot on-vector on-text on-text-unet on-image on-flow; do
    show_run "$name"
  done
  show_run resumed part
  show_run text-resumed text-part
}

# A case of `langevin sample`: its name, the run, further flags. Two pictures in four steps, unless they say otherwise.
draw() {
  local name=sample/$1 run=$2 file=$1.png usual=(--seed 3)
  shift 2
  wanted "$name" || return 0
  need "$run"
  [[ " $* " == *' --count '* ]] || usual+=(--count 2)
  [[ " $* " == *' --steps '* ]] || usual+=(--steps 4)
  if langevin sample "$run" --output "$file" "${usual[@]}" "$@"; then row "$name" "$file"; else failed "$name"; fi
}

# The same run under another sampler: the scheduler's configuration that `convert` makes, and what it draws.
sampler() {
  local name=sampler/$1-$2 run=$1 folder=$1-$2
  wanted "$name" || return 0
  need "$run"
  if langevin convert "$run" "$folder" --scheduler "$2" &&
    langevin sample "$folder" --count 2 --seed 3 --steps "${3:-5}" --output "$folder.png"; then
    row "$name" "$folder/model_index.json" "$folder/scheduler/scheduler_config.json" "$folder.png"
  else
    failed "$name"
  fi
}

drawings() {
  local name
  for name in ddpm ddim pndm lms euler euler-a heun dpm2 dpm2-a dpm++2m dpm++2m-karras dpm++2m-sde dpm++2m-sde-karras dpm++3m dpm++2s \
    dpm-sde deis unipc sa-solver lcm tcd; do
    sampler none "$name"
  done
  sampler velocity ddim
  sampler edm edm-euler
  sampler edm edm-dpm++2m
  sampler flow flow-euler
  sampler flow flow-heun

  # By the run's own sampler or another, in two batches, by plain sums, as a film.
  draw own none
  draw ddim-eta none --scheduler ddim --eta 0.5
  draw batches class --count 5 --batch-size 2 --scheduler euler-a
  draw exact digits --scheduler ddim --exact-convolution
  draw mnist mnist --scheduler ddim --class 3 --guidance-scale 2
  draw basic basic --scheduler ddim
  draw digits digits --scheduler dpm++2m-karras --count 12

  # Guidance by class and by prompt.
  draw class class --class 3
  draw class-none class --class none --class 4
  draw guided-class class --class 3 --guidance-scale 3 --scheduler ddim
  draw guided-class-rescale class --class 3 --guidance-scale 3 --guidance-rescale 0.7
  draw guided-class-interval class --class 3 --guidance-scale 3 --guidance-interval 0.2:0.8 --scheduler dpm++2m
  draw guided-class-negative class --class 3 --guidance-scale 3 --negative-class 5 --scheduler heun
  draw class-timestep class-timestep --class 3 --guidance-scale 2
  draw channels channels --class 3 --guidance-scale 2
  draw one-hot one-hot --class 3 --class 7
  draw prompt text --prompt 'red heart'
  draw prompts text --prompt 'red heart' --prompt 'grinning face' --count 3 --batch-size 2
  draw no-prompt text
  draw guided-prompt text --prompt 'red heart' --guidance-scale 3 --scheduler ddim
  draw guided-prompt-negative text --prompt 'red heart' --negative-prompt 'blue square' --guidance-scale 3 --guidance-rescale 0.5
  draw prompt-frozen text-frozen --prompt 'red heart' --guidance-scale 2
  draw prompt-on on-text --prompt 'red heart' --guidance-scale 2

  # Guidance by a loss and by CLIP.
  draw guided-colour velocity --guide 'colour:#1AE680@100' --scheduler ddim
  draw guided-through velocity --guide 'colour:#1AE680' --guide symmetry@5 --guide-through model --scheduler ddim
  draw guided-schedule velocity --guide brightness:0.8@30 --guide-schedule root-signal --guide-clip 0.5 --scheduler euler-a
  draw guided-picture velocity --guide picture:picture.png --guide symmetry:horizontal --guide-schedule constant
  draw guided-known velocity --guide known:picture.png --mask mask.png --guide-schedule root-noise --scheduler ddim
  draw guided-class-symmetry class --class 3 --guidance-scale 2 --guide symmetry@10
  draw guided-clip velocity --guide 'clip:a red heart' --clip clip --cuts 2 --scheduler ddim
  draw guided-clip-picture velocity --guide clip-picture:picture.png --clip clip --cuts 0 --guide-through model --scheduler ddim

  # Beginning with a picture, painting in, a picture beside the noisy one, a vector.
  draw begun velocity --init-image picture.png --strength 0.5 --scheduler ddim --steps 6
  draw begun-class class --init-image picture.png --class 3 --guidance-scale 2
  draw inpainted velocity --inpaint picture.png --mask mask.png --steps 5
  draw inpainted-class class --inpaint picture.png --mask mask.png --class 3 --guidance-scale 2 --guide brightness:0.9
  draw image-grey image-grey --conditioning-image picture.png
  draw image-mask image-mask --conditioning-image picture.png --mask mask.png --class 3 --guidance-scale 2
  draw image-blur image-blur --conditioning-image picture.png --scheduler ddim
  draw image-downscale image-downscale --conditioning-image picture.png --scheduler ddim
  draw image-as-is image-downscale --conditioning-image picture.png --conditioning-as-is --scheduler ddim
  draw image-column image-column --conditioning-image picture.png --scheduler ddim
  draw image-edges image-edges --conditioning-image picture.png --scheduler ddim
  draw vector vector --vector 0.9,0.2,-0.2
  draw guided-vector vector --vector 0.9,0.2,-0.2 --guidance-scale 3 --scheduler ddim
  draw vector-of vector-simple --vector-of picture.png --scheduler ddim
  draw vector-clip vector-clip --vector-of picture.png --clip clip --scheduler ddim
}

# A case of another command: its name, the runs it needs, the files that it leaves (`-` for none), its words. What it prints counts too.
other() {
  local name=$1 runs=$2 files=$3
  shift 3
  wanted "$name" || return 0
  need ${runs//,/ }
  # shellcheck disable=SC2086 # file names have no spaces
  if langevin "$@"; then row "$name" said ${files#-}; else failed "$name"; fi
}

others() {
  other invert/class class 'class.latents class.grid.png' invert class picture.png mask.png --class 3 --class 4 --steps 5 \
    --output class.latents --grid class.grid.png
  other invert/prompt text text.latents invert text picture.png --prompt 'red heart' --steps 5 --guidance-scale 2 --output text.latents
  other edit/picture class edit-picture.png edit class picture.png --source-class 3 --class 5 --steps 6 --start-step 1 \
    --guidance-scale 3 --output edit-picture.png
  other edit/prompt text edit-prompt.png edit text picture.png --source-prompt 'red heart' --prompt 'blue heart' --steps 6 \
    --guidance-scale 3 --output edit-prompt.png
  if wanted edit/latents; then
    need class
    langevin invert class picture.png mask.png --class 3 --steps 5 --output edit.latents
  fi
  other edit/latents class edit-latents.png edit class edit.latents --class 5 --start-step 2 --output edit-latents.png
  other interpolate/seeds class between-seeds.png interpolate class 1 2 --class 3 --frames 3 --steps 4 --guidance-scale 2 \
    --output between-seeds.png
  other interpolate/picture text between.gif interpolate text picture.png 7 --prompt 'red heart' --frames 4 --steps 3 --output between.gif
  other evaluate/none none near.png evaluate none --steps 2 --samples 20 --real-pictures 200 --seed 4 --neighbours near.png
  other evaluate/class class - evaluate class --steps 2 --samples-per-class 3 --real-pictures 200 --guidance-scale 2 --scheduler unipc
  other animate none 'film.png film.gif' sample none --count 2 --steps 4 --output film.png --animate film.gif
  local stored=$clone/crates/langevin/tests
  if wanted convert; then cp -r "$stored/checkpoints/early" "$stored/reference/pipelines/ddim" . ; fi
  other convert/early - 'early-today/model_index.json early-today/unet/config.json early-today/scheduler/scheduler_config.json
    early-today/unet/diffusion_pytorch_model.safetensors' convert early early-today
  other convert/ddim - 'ddpm-today/model_index.json ddpm-today/scheduler/scheduler_config.json
    ddpm-today/unet/diffusion_pytorch_model.safetensors' convert ddim ddpm-today --scheduler ddpm
  other convert/text text 'text-today/model_index.json text-today/unet/config.json text-today/text_encoder/config.json
    text-today/text_encoder/model.safetensors text-today/unet/diffusion_pytorch_model.safetensors' convert text text-today
  if wanted convert/early; then draw early early-today --steps 3; fi
}

# Starts a server on a free port, unless there is one, and waits for its address.
serve() {
  [[ -n $server ]] && return
  need class text velocity vector image-grey
  "$program" serve class text velocity vector image-grey --clip clip --cuts 2 --port 0 </dev/null >address 2>complaint &
  server=$!
  until grep -qs '^open http' address; do
    kill -0 "$server" 2>/dev/null || return
    sleep 0.1
  done
  port=$(sed -n 's|^open http://127.0.0.1:\([0-9]*\).*|\1|p' address)
}

# A case of the API: its name, the form of the answer and the body of the request. The hash is that of the answer; of one in JSON, of
# pictures, seeds and classes.
ask() {
  local name=api/$1 form=$2 body=$3 connection
  wanted "$name" || return 0
  serve
  : >answer
  if exec {connection}<>"/dev/tcp/127.0.0.1/$port"; then
    printf 'POST /api/generate HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: %s\r\n%s\r\n\r\n%s' \
      "$form" "Content-Length: ${#body}" "$body" >&"$connection"
    cat <&"$connection" >answer
    exec {connection}>&-
  fi
  sed '1,/^\r$/d' answer >complaint
  if head -n 1 answer | grep -q ' 200 '; then
    [[ $form != application/json ]] || grep -oE '"(png|seed|class)":("[^"]*"|[0-9]+)' complaint >answer
    [[ $form == application/json ]] || mv complaint answer
    row "$name" answer
  else
    failed "$name"
  fi
}

answers() {
  local json=application/json picture
  picture=$(base64 -w 0 picture.png)
  ask class $json '{"model":"class","class":"3","sampler":"ddim","steps":4,"seed":7,"count":2,"guidance_scale":2.5,"negative_class":"5"}'
  ask turns $json '{"model":"class","sampler":"euler-a","steps":4,"seed":7,"count":3}'
  ask own-sampler $json '{"model":"velocity","steps":4,"count":2,"seed":18446744073709551615}'
  ask init-image $json '{"model":"velocity","sampler":"ddim","eta":0.3,"steps":6,"count":2,"seed":7,"strength":0.5,"init_image":"'"$picture"'"}'
  ask prompt $json '{"model":"text","prompt":"red heart","negative_prompt":"blue","guidance_scale":3,"guidance_rescale":0.5,"steps":4,"count":2}'
  ask vector $json '{"model":"vector","vector":[0.9,0.2,-0.2],"guidance_scale":2,"sampler":"unipc","steps":4,"count":2}'
  ask guide $json '{"model":"velocity","guide":["colour:#1AE680@100","symmetry"],"guide_through":"model","sampler":"ddim","steps":4,"count":2}'
  ask clip $json '{"model":"velocity","guide":["clip:a red heart"],"guide_schedule":"constant","sampler":"ddim","steps":4,"count":2}'
  ask png image/png '{"model":"class","class":"4","sampler":"ddim","eta":0.5,"steps":4,"seed":7,"count":3,"guide":["symmetry@3"]}'
  ask gif image/gif '{"model":"class","class":"4","sampler":"heun","steps":4,"seed":7,"count":2}'
  ask image $json '{"model":"image-grey","sampler":"ddim","steps":4,"count":2,"conditioning_image":"data:image/png;base64,'"$picture"'"}'
}

# What every case finds in its folder: models of a few thousand parameters, pictures and a mask of 8x8 pixels, data and a small CLIP.
prepare() {
  local channels name
  for channels in 1 3; do
    [[ $channels == 1 ]] && name=grey || name=colour
    cat >"$name.json" <<END
{"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": $channels, "out_channels": $channels, "dropout": 0.1,
 "block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8,
 "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
END
  done
  base64 -d >picture.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAApklEQVR42g3KEYJDQQwG4NEO9ByBXmJktP7LSqTyJPKkElkJP45ElsuR3qASGS73CN2Pv9YJRJgEJijB
CUlYhNYHaPzMwTxuOjYfkmNf49468L8nNsauUIcljgVvXUBym7Kz/KocLpHyWPJs3UC2TVO2Q+3PLdNey96tByhkhnGERnpUxmfFqfUE5T7z4Hxovjw/meeVl9YLVPdZ
zvXUenudsi6rrl/JuVxxu/6mCQAAAABJRU5ErkJggg==
END
  base64 -d >mask.png <<'END'
iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEklEQVR42mNgwAf+AwEhBgQAAK6nD/F8vhhLAAAAAElFTkSuQmCC
END
  mkdir pairs
  for name in 1 2 3 4; do
    cp picture.png "pairs/$name.png"
    cp mask.png "pairs/m$name.png"
    echo "{\"file_name\": \"$name.png\", \"mirrored_file_name\": \"m$name.png\"}"
  done >pairs/metadata.jsonl
  ln -s "$clone/datasets/emoji" emoji
  cp -r "$clone/crates/langevin/tests/reference/conditional/clip" clip
  cp "$clone/crates/langevin/tests/reference/conditional/clip_tokenizer"/* clip
}

# All cases whose names match a pattern, by some kernels: those that the machine has, or those that LANGEVIN_ISA names.
cases() {
  kernels=$1 selection=$2
  mkdir -p "$work/cases/$kernels" && cd "$work/cases/$kernels" || exit
  flags_of=() needs_of=() trained=() server='' port=''
  prepare
  runs
  show_runs
  drawings
  others
  answers
  [[ -z $server ]] || { kill "$server" && wait "$server"; } 2>/dev/null
  server=''
}

cases '' ''
few='^(train/(digits|digits-bf16|text|whole|resumed)$|sample/(own|guided-class|guided-prompt|guided-colour|image-mask|vector)$|sampler/none-dpm|invert/class|api/class)'
LANGEVIN_ISA=avx2 cases avx2/ "$few"
LANGEVIN_ISA=portable cases portable/ "$few"
exit $failures
