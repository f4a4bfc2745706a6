#!/usr/bin/env bash
# Nano from an empty machine to an evaluated model: corpus, four stages, release, scoreboard.
# Debian or Ubuntu; `apt-get install mma fluidsynth fluid-soundfont-gm` for the rendered part. Every step resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
make .venv/dev
longplay() { OMP_NUM_THREADS=1 nice .venv/bin/longplay "$@"; }

hours=${RENDERED_HOURS:-10}
longplay data corpus corpus --rendered-hours "$hours"

# one core each: two processes are faster than one with two threads
longplay train run nano-tokenizer --run runs/nano-tokenizer --data corpus/manifest.jsonl --threads 1 &
longplay train run nano-codec --run runs/nano-codec --data corpus/manifest.jsonl --threads 1 &
wait

longplay train tokens corpus/manifest.jsonl runs/tokens --model runs/nano-tokenizer/model --codec runs/nano-codec/model
longplay train run nano-lm --run runs/nano-lm --data runs/tokens --threads 1 &
longplay train run nano-flow --run runs/nano-flow --data runs/tokens --threads 1
for model in codec tokenizer; do
  longplay train run nano-$model-decoder --run runs/nano-$model-decoder --data corpus/manifest.jsonl --threads 1
done
wait

longplay train release runs/nano --name nano --licence CC-BY-SA-4.0 \
  --provenance "trained by the Longplay project on the works in ATTRIBUTION.md" \
  --tokenizer runs/nano-tokenizer-decoder/model --codec runs/nano-codec-decoder/model \
  --lm runs/nano-lm/model --lm-precision int8 --flow runs/nano-flow/model --overwrite
longplay evaluate runs/nano --manifest corpus/manifest.jsonl --out runs/evaluation
