#!/usr/bin/env bash
# Trains the public Large, and from it Medium, Small and four small encoders before its decoder, on a CUDA GPU, in pieces
# that end by themselves:
#
#   bash benchmarks/gpu/train_full.sh large  DATA/train_small OUT 9    # at most 9 minutes of this call
#   bash benchmarks/gpu/train_full.sh small  DATA/train_small OUT 9    # starts from OUT/large-float.safetensors
#   bash benchmarks/gpu/train_full.sh scalable-sl DATA/train_small OUT 9
#   bash benchmarks/gpu/train_full.sh pieces DATA/train_small OUT      # OUT/pieces/: at most 16 MiB each, to carry home
#
# A call that is cut short goes on in the next one: the trainer writes a checkpoint and resumes it. MINUTES (15) is what
# a network gets in all, FAMILY=narrow- trains the narrow ones, DECAY_SHARE=0.5 lets a student's masks decay in half of
# its time (they are cut at once otherwise). `cat OUT/pieces/NAME.* > NAME` puts a file together again.
set -euo pipefail
what=$1 data=$2 out=$3 call=${4:-9}
minutes=${MINUTES:-15}
mkdir -p "$out"

run() { # NAME options: train until done or until this call's minutes are over
    local target=$out/$1.safetensors
    shift
    if [ -e "$target" ]; then echo "$target is there"; return; fi
    local resume=()
    [ -d "$target.checkpoint" ] && resume=(--resume)
    timeout --preserve-status "$((call * 60))" python -m maskdecay._cli evc train "$data" -o "$target" \
        --device cuda --precision bfloat16 --minutes "$minutes" --half --checkpoint-every 2 "${resume[@]}" "$@" || status=$?
    [ "${status:-0}" -eq 0 ] || [ "${status:-0}" -eq 143 ]
}

family=${FAMILY:-}
# On the narrow network, encoder and decoder bear 1.5e-4 with Muon from the start, and not 6e-4; those of students do.
recipe=(--optimizer muon --lr 1e-3 --trunk-share 0.15 --batch 16 --crop 256 --ema 0.999)
case $what in
large) run large-float --preset "${family}large" "${recipe[@]}" --no-exact ;;
large-exact) run large --start "$out/large-float.safetensors" "${recipe[@]}" --lr 5e-4 ;;
medium | small | scalable-sl) run "$what" --start "$out/large-float.safetensors" --student "$family$what" "${recipe[@]}" \
    --trunk-share 0.4 --decay-share "${DECAY_SHARE:-0}" ;;
pieces)
    mkdir -p "$out/pieces"
    for file in "$out"/*.safetensors; do split -b 16M -d "$file" "$out/pieces/$(basename "$file")."; done
    ls -l "$out/pieces"
    ;;
*) echo "train_full.sh: '$what' is none of large, large-exact, medium, small, scalable-sl, pieces" >&2 && exit 2 ;;
esac
