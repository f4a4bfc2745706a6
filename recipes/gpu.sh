#!/usr/bin/env bash
# Nano on a machine with one GPU that reaches nothing else, in calls of under 10 minutes.
#
#   recipes/gpu.sh pack [STAGE...]             here: .gpu/ (ignored by git; under 64 MiB with the working tree), with the models of
#                                              stages that are to go on, and those of tokenizer and codec
#   recipes/gpu.sh train [STAGE...] [--seconds N]   there: stages (tokenizer codec lm lm-heeding flow codec-decoder tokenizer-decoder codec-gan tokenizer-gan) for N seconds in all
#   recipes/gpu.sh check                       there: the tests marked gpu, and every benchmark of nano and of the published sizes, into $OUT
#   recipes/gpu.sh                             there: train all stages but those of a gan for 480 seconds
#   recipes/gpu.sh unpack FOLDER               here: what came back in FOLDER, into runs/
#
# A checkpoint of the lm alone is larger than what may travel, so a call is a whole run: it starts from the averaged weights of the
# last one, in half precision and with music drawn anew, and the rate rises, stays and falls within its time. $OUT gets pieces
# of at most 15 MiB: of each stage nano-STAGE/model, and nano-STAGE/call-N with config, metrics and curves.
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${PACK:-.gpu}
runs=${RUNS:-runs}
here=${PYTHON:-.venv/bin/python}
there=${PYTHON:-python3}
back=$((60 * 1048576))
probe=${PROBE:-30}  # seconds in which a stage's speed is measured

# what the machine's image lacks; the rest (torch, accelerate, pyarrow, ...) is there
wheels="pydantic pydantic_core annotated_types typing_inspection soundfile soxr cffi pycparser mutagen beartype wadler_lindig"

halve() {  # PYTHON STAGE RUN OUT: the model of a run in half precision, and how many calls it took
  local part=${2%%-*}
  mkdir -p "$4"
  PYTHONPATH=${PYTHONPATH:-src} "$1" -m longplay train release "$4/model" "--$part" "$3/model" --overwrite \
    --name "$2" --licence "not stated" --provenance "on the way to or from a GPU"
  cp "$3/calls" "$4/calls" 2>/dev/null || echo 0 >"$4/calls"
}

pack() {
  rm -rf "$pack"
  mkdir -p "$pack/tokens" "$pack/wheels"
  if [ "${WHEELS:-1}" = 1 ]; then
    "$here" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
      --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
      -c constraints.txt -d "$pack/wheels" $wheels
  fi
  cp "${TOKENS:-$runs/tokens}"/*.parquet "$pack/tokens/"
  local stage
  for stage in $(printf '%s\n' tokenizer codec "$@" | sort -u); do  # lm and flow stand on the first two
    [ ! -d "$runs/nano-$stage/model" ] || halve "$here" "$stage" "$runs/nano-$stage" "$pack/runs/nano-$stage"
  done
  if [ -e "$runs/nano-lm/text_tokenizer.json" ]; then
    mkdir -p "$pack/runs/nano-lm"
    cp "$runs/nano-lm/text_tokenizer.json" "$pack/runs/nano-lm/"
  fi
  local used room tree
  tree=$(git ls-files -z | du -cb --files0-from=- | tail -1 | cut -f1)  # the working tree travels too
  used=$(du -sb "$pack" | cut -f1)
  room=$((63 - (used + tree) / 1048576))
  if [ "$room" -lt 1 ]; then
    echo "$pack: $used bytes, and $tree of the working tree, leave no room for audio below 64 MiB; name fewer stages or TOKENS" >&2
    exit 1
  fi
  PYTHONPATH=src "$here" recipes/pack.py "${CORPUS:-corpus}/manifest.jsonl" "$pack/corpus" "${MIB:-$room}"
  echo "$pack: $(du -sb "$pack" | cut -f1) bytes"
}

prepare() {
  site=$(realpath -m "${SITE:-/tmp/longplay-site}")
  if [ ! -d "$site" ] && compgen -G "$pack/wheels/*.whl" >/dev/null; then
    "$there" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$pack"/wheels/*.whl
  fi
  export PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
  work=$(realpath -m "${WORK:-/tmp/longplay-runs}")
  mkdir -p "$work"
  if [ -d "$pack/runs" ]; then cp -rn "$pack/runs/." "$work/"; fi
}

# larger batches than on a CPU, and what a stage stands on or starts from; BEFORE is the model of the last call, if there was one
overrides() {  # STAGE BEFORE
  local init=$2
  case $1 in
    tokenizer | codec) echo "batch_size=64" ;;
    *-decoder) echo "batch_size=64"; init=${2:-$work/nano-${1%-decoder}/model} ;;
    *-gan)  # from a decoder that came along or was trained before, else from the bundled one
      local decoder=$work/nano-${1%-gan}-decoder/model
      [ -d "$decoder" ] || decoder=nano
      echo "batch_size=64"
      init=${2:-$decoder}
      ;;
    lm) echo "batch_size=48 tokenizer=$work/nano-tokenizer/model" ;;
    lm-heeding) echo "batch_size=48 tokenizer=$work/nano-tokenizer/model"; init=${2:-$work/nano-lm/model} ;;
    flow) echo "batch_size=64 codec=$work/nano-codec/model tokenizer=$work/nano-tokenizer/model music=$pack/corpus/manifest.jsonl" ;;
    *) echo "$1: no stage; use tokenizer, codec, lm, lm-heeding, flow, codec-decoder, tokenizer-decoder, codec-gan, tokenizer-gan" >&2; exit 2 ;;
  esac
  [ -z "$init" ] || echo "init=$init"
  if [ -n "$2" ]; then
    case $1 in
      tokenizer | codec) echo "quantize_from_step=0" ;;  # its codebooks have started
      lm) echo "text=init" ;;
    esac
  fi
}

# `STEPS DECAY`: how many steps a run has done when so many more seconds are over, and in how many of them the rate falls
length() {  # RUN SECONDS
  "$there" - "$1/metrics.jsonl" "$2" <<'PYTHON'
import json, statistics, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
done, speed = lines[-1]["step"], statistics.median(line["steps_per_second"] for line in lines if "steps_per_second" in line)
steps = done + max(10, int(0.9 * speed * float(sys.argv[2])))
print(steps, int(0.4 * steps))
PYTHON
}

train_stage() {  # STAGE SECONDS
  local stage=$1 run=$work/nano-$1 before="" calls=0 data=$pack/tokens
  if [ -d "$run/model" ]; then  # of the last call: on this machine, or packed
    rm -rf "$work/before/nano-$stage"
    mkdir -p "$work/before"
    mv "$run" "$work/before/nano-$stage"
    before=$work/before/nano-$stage/model
    calls=$(cat "$work/before/nano-$stage/calls" 2>/dev/null || echo 0)
  fi
  case $stage in
    tokenizer* | codec*) data=$pack/corpus/manifest.jsonl ;;
    flow)  # learns from recordings: the codes of what of them came along
      data=$work/tokens-flow
      "$there" -m longplay train tokens "$pack/corpus/manifest.jsonl" "$data" --model "$work/nano-tokenizer/model"
      ;;
  esac
  local set=(--set loop.workers=12 --set loop.evaluate_every=100000 --set loop.save_every=100000 --set loop.log_every=5 --set "loop.seed=$calls")
  local override steps decay
  for override in $(overrides "$stage" "$before") ${OVERRIDES:-}; do set+=(--set "$override"); done
  run() { "$there" -m longplay train run "nano-$stage" --run "$run" --data "$data" "${set[@]}" "$@"; }
  run --budget-seconds "$probe" --set loop.steps=1000000 --set loop.decay_steps=0
  read -r steps decay < <(length "$run" "$(($2 - probe))")
  run --set "loop.steps=$steps" --set "loop.decay_steps=$decay"
  echo $((calls + 1)) >"$run/calls"
}

train() {
  local seconds=480 stages=() stage
  while [ $# -gt 0 ]; do
    case $1 in --seconds) seconds=$2; shift 2 ;; *) stages+=("$1"); shift ;; esac
  done
  [ ${#stages[@]} -gt 0 ] || stages=(tokenizer codec lm lm-heeding flow codec-decoder tokenizer-decoder)
  prepare
  local each=$((seconds / ${#stages[@]})) out=${OUT:-$work/out}
  if [ "$each" -le $((2 * probe)) ]; then
    echo "--seconds $seconds: $each for each stage, of which $probe measure its speed; give more, or fewer stages" >&2
    exit 2
  fi
  for stage in "${stages[@]}"; do train_stage "$stage" "$each"; done
  mkdir -p "$out"
  rm -rf "$work/back"
  for stage in "${stages[@]}"; do
    local run=$work/nano-$stage to=$work/back/nano-$stage file
    halve "$there" "$stage" "$run" "$to"
    mkdir -p "$to/call-$(cat "$run/calls")"
    for file in run.yaml starts.jsonl metrics.jsonl curves.png codes.png; do
      [ ! -e "$run/$file" ] || cp "$run/$file" "$to/call-$(cat "$run/calls")/"
    done
    [ ! -e "$run/text_tokenizer.json" ] || cp "$run/text_tokenizer.json" "$to/"
    if [ "$(du -sb "$work/back" | cut -f1)" -gt "$back" ]; then
      echo "nano-$stage stays behind, in $run: with it more than 60 MiB would come back; train fewer stages in a call" >&2
      rm -rf "$to"
    fi
  done
  tar -C "$work/back" -czf "$work/result.tar.gz" .
  split -b 15M -d "$work/result.tar.gz" "$out/result.tar.gz."
  ls -l "$out"
}

check() {
  prepare
  "$there" -m pytest -m gpu tests
  local out=${OUT:-$work/out} device=${DEVICE:-cuda} model
  mkdir -p "$out"
  bench() { "$there" -m longplay bench "$@" --device "$device" --json "$out/$name.json" | tee "$out/$name.md"; }
  for model in ${MODELS:-nano random:base random:1.5b}; do
    for stage in lm flow codec pipeline serve; do
      name=$stage-${model/:/-}
      case $stage in
        lm) bench lm --model "$model" --seconds "${SECONDS_OF_MUSIC:-30}" --baseline-seconds 2 ;;
        serve) bench serve --model "$model" --pieces 32 --slots 32 --seconds "${SECONDS_OF_MUSIC:-30}" ;;
        *) bench "$stage" --model "$model" --seconds "${SECONDS_OF_MUSIC:-30}" ;;
      esac
    done
  done
}

unpack() {
  mkdir -p "$runs"
  cat "$1"/result.tar.gz.* | tar -xz -C "$runs"
}

case ${1:-train} in
  check) check ;;
  pack) shift; pack "$@" ;;
  train) shift $(($# > 0)); train "$@" ;;
  unpack) unpack "$2" ;;
  *) sed -n '2,14p' "$0" | cut -c3-; exit 2 ;;
esac
