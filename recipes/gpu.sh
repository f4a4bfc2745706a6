#!/usr/bin/env bash
# Nano on a machine with one GPU that reaches nothing else, in calls of under 10 minutes.
#
#   recipes/gpu.sh pack                        here: .gpu/ (ignored by git; under 64 MiB with the working tree)
#   recipes/gpu.sh train [STAGE...] [--seconds N]   there: stages (tokenizer codec lm lm-heeding flow codec-decoder tokenizer-decoder codec-gan tokenizer-gan) for N seconds in all
#   recipes/gpu.sh check                       there: the tests marked gpu, and every benchmark of nano and of the published sizes, into $OUT
#   recipes/gpu.sh                             there: train all stages but those of a gan for 480 seconds
#   recipes/gpu.sh unpack FOLDER               here: what came back in FOLDER, into runs/
#
# Results lie in $OUT as pieces of at most 15 MiB: model, metrics, curves, and the checkpoints if all together stay below 60 MiB
# (nano's do not: a run goes on only while the machine is held).
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${PACK:-.gpu}
runs=${RUNS:-runs}
here=${PYTHON:-.venv/bin/python}
there=${PYTHON:-python3}
back=$((60 * 1048576))

# what the machine's image lacks; the rest (torch, accelerate, pyarrow, ...) is there
wheels="pydantic pydantic_core annotated_types typing_inspection soundfile soxr cffi pycparser mutagen beartype wadler_lindig"

pack() {
  rm -rf "$pack"
  mkdir -p "$pack/tokens" "$pack/wheels"
  if [ "${WHEELS:-1}" = 1 ]; then
    "$here" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
      --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
      -c constraints.txt -d "$pack/wheels" $wheels
  fi
  cp "${TOKENS:-$runs/tokens}"/*.parquet "$pack/tokens/"
  for stage in tokenizer codec; do  # lm and flow stand on them; in half precision
    if [ -d "$runs/nano-$stage/model" ]; then
      PYTHONPATH=src "$here" -m longplay train release "$pack/runs/nano-$stage/model" "--$stage" "$runs/nano-$stage/model" \
        --name "$stage" --licence "not stated" --provenance "packed for a GPU"
    fi
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
    echo "$pack: $used bytes, and $tree of the working tree, leave no room for audio below 64 MiB; name fewer TOKENS" >&2
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

# larger batches than on a CPU, batches made ahead by threads; OVERRIDES (key=value ...) come last
overrides() {
  case $1 in
    tokenizer) echo "batch_size=64 loop.steps=40000" ;;
    *-decoder) echo "batch_size=64 loop.steps=20000 init=$work/nano-${1%-decoder}/model" ;;
    *-gan)  # from a decoder that came along or was trained before, else from the bundled one
      local decoder=$work/nano-${1%-gan}-decoder/model
      [ -d "$decoder" ] || decoder=nano
      echo "batch_size=64 loop.steps=20000 init=$decoder"
      ;;
    codec) echo "batch_size=64 loop.steps=40000" ;;
    lm) echo "batch_size=48 loop.steps=12000 tokenizer=$work/nano-tokenizer/model" ;;
    lm-heeding) echo "batch_size=48 loop.steps=3000 plain_steps=800 tokenizer=$work/nano-tokenizer/model init=$work/nano-lm/model" ;;
    flow) echo "batch_size=64 loop.steps=30000 codec=$work/nano-codec/model tokenizer=$work/nano-tokenizer/model music=$pack/corpus/manifest.jsonl" ;;
    *) echo "$1: no stage; use tokenizer, codec, lm, lm-heeding, flow, codec-decoder, tokenizer-decoder, codec-gan, tokenizer-gan" >&2; exit 2 ;;
  esac
}

train() {
  local seconds=480 stages=()
  while [ $# -gt 0 ]; do
    case $1 in --seconds) seconds=$2; shift 2 ;; *) stages+=("$1"); shift ;; esac
  done
  [ ${#stages[@]} -gt 0 ] || stages=(tokenizer codec lm lm-heeding flow codec-decoder tokenizer-decoder)
  prepare
  local each=$((seconds / ${#stages[@]})) out=${OUT:-$work/out} given data
  for stage in "${stages[@]}"; do
    given=$(overrides "$stage")
    data=$pack/tokens
    case $stage in
      tokenizer* | codec*) data=$pack/corpus/manifest.jsonl ;;
      flow)  # learns from recordings: the codes of what of them came along
        data=$work/tokens-flow
        "$there" -m longplay train tokens "$pack/corpus/manifest.jsonl" "$data" --model "$work/nano-tokenizer/model"
        ;;
    esac
    local set=(--set loop.workers=12 --set loop.evaluate_every=100000 --set loop.save_every=2000)
    for override in $given ${OVERRIDES:-}; do set+=(--set "$override"); done
    "$there" -m longplay train run "nano-$stage" --run "$work/nano-$stage" --data "$data" --budget-seconds "$each" "${set[@]}"
  done
  mkdir -p "$out"
  local small=() all=()
  for stage in "${stages[@]}"; do
    for file in model run.yaml starts.jsonl metrics.jsonl curves.png codes.png text_tokenizer.json; do
      [ ! -e "$work/nano-$stage/$file" ] || small+=("nano-$stage/$file")
    done
    all+=("nano-$stage/checkpoint.pt")
  done
  tar -C "$work" -czf "$work/result.tar.gz" "${small[@]}" "${all[@]}"
  if [ "$(stat -c %s "$work/result.tar.gz")" -gt "$back" ]; then
    echo "the checkpoints are too large to come back; the models come alone" >&2
    tar -C "$work" -czf "$work/result.tar.gz" "${small[@]}"
  fi
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
  pack | check) "$1" ;;
  train) shift $(($# > 0)); train "$@" ;;
  unpack) unpack "$2" ;;
  *) sed -n '2,11p' "$0" | cut -c3-; exit 2 ;;
esac
