#!/usr/bin/env bash
# Nano from an empty machine to an evaluated model: corpus, stages, release, scoreboard. Every step resumes.
# Debian or Ubuntu; `apt-get install mma fluidsynth fluid-soundfont-gm` for the rendered part.
# Usage: recipes/nano.sh [DIRECTORY], with corpus/ and runs/ in it; QUICK=1: seven packages and ten steps of each stage,
# a rehearsal of ten minutes to half an hour whose weights mean nothing.
set -euo pipefail
repository=$(realpath "$(dirname "$0")/..")
make -C "$repository" .venv/dev
cd "$(mkdir -p "${1:-$repository}" && realpath "${1:-$repository}")"
longplay() { OMP_NUM_THREADS=1 nice "$repository/.venv/bin/longplay" "$@"; }

hours=${RENDERED_HOURS:-10} corpus=() steps=() at_once=() plain=() scored=()
if [ -n "${QUICK:-}" ]; then
  hours=0 corpus=(--quick) steps=(--set loop.steps=10 --set loop.log_every=5) scored=(--clips 8)
  at_once=(--set quantize_from_step=0) plain=(--set plain_steps=3)
fi
stage() {  # stage NAME DATA OPTION...: one run of a preset, on one core: two processes are faster than two threads
  longplay train run "nano-$1" --run "runs/nano-$1" --data "$2" --threads 1 "${steps[@]}" "${@:3}"
}

longplay data corpus corpus --rendered-hours "$hours" "${corpus[@]}"
music=corpus/manifest.jsonl

stage tokenizer $music "${at_once[@]}" & tokenizer=$!
stage codec $music
wait $tokenizer
longplay train tokens $music runs/tokens --model runs/nano-tokenizer/model --varispeed=-3,-1,1,2  # each piece slower and faster, too
{ stage lm runs/tokens && stage lm-heeding runs/tokens "${plain[@]}"; } & lm=$!
stage flow runs/tokens --set music=$music
for model in codec tokenizer; do stage $model-decoder $music; done
wait $lm

longplay train release runs/nano --name nano --licence CC-BY-SA-4.0 \
  --provenance "trained by the Longplay project on the works in ATTRIBUTION.md" \
  --tokenizer runs/nano-tokenizer-decoder/model --codec runs/nano-codec-decoder/model \
  --lm runs/nano-lm-heeding/model --lm-precision int8 --flow runs/nano-flow/model --overwrite
longplay evaluate runs/nano --manifest $music --out runs/evaluation "${scored[@]}"
