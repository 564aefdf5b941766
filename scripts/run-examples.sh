#!/usr/bin/env bash
# Run every example of data/examples with a model and print what comes out.
#
# usage: scripts/run-examples.sh MODEL [BINARY]      default binary: target/release/prompt-tuning
#
# Functions that the model writes are run by this machine's python3 (see scripts/check_code_answers.py) if CHECK_CODE=1.
# STEPS=N trains the soft prompts for N steps instead of 40.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model=${1:?usage: scripts/run-examples.sh MODEL [BINARY]}
binary=${2:-target/release/prompt-tuning}
examples=data/examples
reviews=data/reviews
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

run() {
    printf '\n$ prompt-tuning'
    printf ' %q' "$@"
    printf '\n'
    "$binary" "$@" 2>"$out/err" || { cat "$out/err" >&2; exit 1; }
}

# what the model writes or chooses, with 0 and 4 demonstrations
for name in sentiment-zh words entities en-fr code; do
    run eval --model "$model" --task $examples/$name/task.toml --data $examples/$name/test.jsonl \
        --train $examples/$name/train.jsonl --shots 0,4 --policy drop-farthest
done
run eval --model "$model" --task $examples/sentiment-zh/task.toml --data $examples/sentiment-zh/test.jsonl \
    --train $examples/sentiment-zh/train.jsonl --shots 0,4 --calibration contextual --policy drop-farthest
run predict --model "$model" --task $examples/words/task.toml stellar dreadful
run predict --model "$model" --task $examples/en-fr/task.toml Hello

if [ "${CHECK_CODE:-0}" = 1 ]; then
    for shots in 0 4; do
        run predict --model "$model" --task $examples/code/task.toml --data $examples/code/test.jsonl \
            --train $examples/code/train.jsonl --shots $shots --json | grep '^{' >"$out/code"
        echo "-- $shots demonstrations"
        scripts/check_code_answers.py $examples/code/test.jsonl <"$out/code"
    done
fi

# one task by hard prompt, zero- and few-shot, by a soft prompt in front, and by words and virtual tokens together
run eval --model "$model" --task $reviews/hard.toml --data $reviews/test.jsonl --train $reviews/train.jsonl --shots 0,4 \
    --policy drop-farthest
for task in $reviews/task.toml $examples/mixed/task.toml; do
    name=$(basename "$(dirname $task)")
    run train --model "$model" --task "$task" --train $reviews/train.jsonl --steps "${STEPS:-40}" --batch 16 --lr 0.005 \
        --schedule linear --clip 1 --out "$out/$name"
    run eval --model "$model" --task "$task" --data $reviews/test.jsonl --prompt "$out/$name"
done

# translation with virtual tokens in the place of the instruction
run train --model "$model" --task $examples/en-fr/soft.toml --train $examples/en-fr/train.jsonl --steps "${STEPS:-40}" \
    --batch 8 --lr 0.005 --schedule linear --clip 1 --out "$out/en-fr"
run eval --model "$model" --task $examples/en-fr/soft.toml --data $examples/en-fr/test.jsonl --prompt "$out/en-fr"
