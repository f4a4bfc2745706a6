#!/usr/bin/env bash
# Every stage for a few steps, in a minute or two on a CPU: corpus, tokenizer, codec, tokens, lm, flow, release, generate.
# It proves that the parts fit together; the weights mean nothing. Usage: recipes/smoke.sh [DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-runs/smoke}")
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1
longplay() { "$python" -m longplay "$@"; }
stage() {  # stage NAME DATA OVERRIDE...: three steps of a preset
  local name=$1 data=$2 set=()
  shift 2
  for override in batch_size=2 loop.steps=3 loop.log_every=1 loop.device=cpu "$@"; do set+=(--set "$override"); done
  longplay train run "$name" --run "$out/$name" --data "$data" --threads 1 "${set[@]}"
}

mkdir -p "$out/music"
"$python" - "$out/music" <<'PYTHON'
import json, sys
from pathlib import Path
import numpy as np, soundfile as sf
for index, split in enumerate(("train", "train", "valid")):
    time = np.arange(12 * 48000) / 48000
    chord = sum(np.sin(2 * np.pi * 110 * 1.5**note * (1 + index / 7) * time) for note in range(5))
    path = Path(sys.argv[1]) / f"tone-{index}.wav"
    hiss = np.random.default_rng(index).normal(0, 0.02, len(time))  # the codec learns only from what has highs
    sf.write(path, (0.05 * chord * (1 + np.sin(3 * time)) + hiss).astype(np.float32), 48000)
    about = {"split": split, "captions": [f"slow chord {index}"], "licence": "CC0", "group": str(index)}
    path.with_suffix(".json").write_text(json.dumps(about))
PYTHON
longplay data build "$out/music" "$out/corpus" --no-tags --no-plots --workers 1

manifest=$out/corpus/manifest.jsonl
short=(held_out_crops=2 held_out_seconds=1 counted_crops=4)
stage nano-tokenizer "$manifest" "${short[@]}" quantize_from_step=0
stage nano-codec "$manifest" "${short[@]}"
for model in tokenizer codec; do
  stage nano-$model-decoder "$manifest" "${short[@]}" init="$out/nano-$model/model"
  stage nano-$model-gan "$manifest" "${short[@]}" init="$out/nano-$model-decoder/model" adversarial.discriminators.channels=4
done
longplay train tokens "$manifest" "$out/tokens" --model "$out/nano-tokenizer/model" --codec "$out/nano-codec/model" --threads 1
tiny=(tokenizer="$out/nano-tokenizer-decoder/model" lm.context_frames=128 held_out_windows=2 sample_seconds=1)
stage nano-lm-pretrain "$out/tokens" "${tiny[@]}"
stage nano-lm "$out/tokens" "${tiny[@]}" init="$out/nano-lm-pretrain/model"
"$python" - "$manifest" >"$out/labels.jsonl" <<'PYTHON'  # what `longplay data label` writes
import json, sys
ids = [json.loads(line)["id"] for line in open(sys.argv[1])]
for id, rating in zip(ids, (5, 4, 1)):
    print(json.dumps({"id": id, "rating": rating, "caption": "a slow, low chord"}))
PYTHON
longplay train tokens "$manifest" "$out/rated" --labels "$out/labels.jsonl" --model "$out/nano-tokenizer/model" --threads 1
stage nano-lm-sft "$out/rated" "${tiny[@]}" init="$out/nano-lm/model"
stage nano-lm-heeding "$out/tokens" "${tiny[@]}" init="$out/nano-lm/model" plain_steps=1
stage nano-flow "$out/tokens" codec="$out/nano-codec-decoder/model" tokenizer="$out/nano-tokenizer/model" music="$manifest" crop_seconds=1 held_out_crops=2 flow.noise_reach=40
stage nano-flow-reflow "$out/tokens" codec="$out/nano-codec-decoder/model" init="$out/nano-flow/model" crop_seconds=1 held_out_crops=2 flow.noise_reach=40
longplay train status "$out/nano-lm" "$out/nano-codec-gan"
longplay train release "$out/model" --name smoke --licence CC0-1.0 --provenance "recipes/smoke.sh" --overwrite \
  --tokenizer "$out/nano-tokenizer-gan/model" --codec "$out/nano-codec-gan/model" --lm "$out/nano-lm-heeding/model" --flow "$out/nano-flow/model"
longplay train takes "$manifest" "$out/takes" --model "$out/model" --prompts 4 --each 4 --seconds 4 --no-tags --threads 1
stage nano-lm-preference "$out/tokens" "${tiny[@]}" init="$out/model" preference.takes="$out/takes" preference.least=0.001 preference.pairs=1 loop.precision=float32
longplay generate "slow chord" --model "$out/model" --seconds 2 --seed 1 --output "$out/smoke.wav"
echo "smoke: every stage ran; $out/smoke.wav"
