#!/usr/bin/env bash
# tests/on_a_gpu.sh FOLDER [PHOTOS]: what can only be found out on a machine with an NVIDIA GPU, in half an hour.
#
# First it proves (the tests, CPU against GPU losses, memory), then it measures (bench, layers, PyTorch where it
# is installed, compute-sanitizer where it is), then it trains a style with the paper's settings for as long as is
# left, on PHOTOS (default: the photos that ship). FOLDER gets the log of each step, summary.txt and the run.
# The status is 1 if a step of the first two parts failed.
#
# TRY=1 takes small sizes, and the CPU with DEVICE=cpu: to try the script itself.
set -uo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) && photos=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.." || exit 2
device=${DEVICE:-cuda} minutes=30 failed=0
large=(2048) train_size=(256 4) stylize=(512 1024) steps=40000 rounds=5 tests=(tests -m gpu)
if [ -n "${TRY:-}" ]; then
  minutes=1 large=(64) train_size=(48 1) stylize=(48 64) steps=2 rounds=1 tests=(tests/test_device.py)
fi

# step NAME SECONDS COMMAND...: run it with a time limit; its output goes to FOLDER/NAME.txt
step() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  timeout --signal TERM --kill-after 60 "$limit" "$@" > "$out/$name.txt" 2>&1
  status=$?
  case $status in
    0) status=ok ;;
    124) status="TIME IS UP" failed=1 ;;
    *) status="FAILED ($status)" failed=1 ;;
  esac
  printf '%-22s %-13s %5d s   %s\n' "$name" "$status" $((SECONDS - begin)) "$(tail -n 1 "$out/$name.txt" | cut -c 1-90)" |
    tee -a "$out/summary.txt"
}
tinynst() { local module=$1; shift; step "$@" python -m "tinynst.$module" "${with[@]}"; }
bench() { with=(--device "$device" --rounds "$rounds" "${@:3}"); tinynst bench "$1" "$2"; }

echo "$(date -u '+%F %T') $(git rev-parse --short HEAD 2> /dev/null) device $device" | tee "$out/summary.txt"
{ nvidia-smi; python -c "import cupy; cupy.show_config()"; } > "$out/machine.txt" 2>&1
head -n 15 "$out/machine.txt"

# --- proofs ---
step tests 480 python -m pytest -q "${tests[@]}"
for each in cpu gpu; do # the same random net and photos; sums in another order make later losses drift apart
  with=(--device cpu --init none --iterations 4 --batch 1 --image-size 64 --out "$out/losses_$each")
  [ $each = cpu ] || with[1]=$device
  tinynst train "losses_$each" 120
done
step same_losses 20 python - "$out/losses_cpu/losses.csv" "$out/losses_gpu/losses.csv" << 'END'
import csv, sys

cpu, gpu = ([list(map(float, row)) for row in list(csv.reader(open(path)))[1:]] for path in sys.argv[1:])
worst = [max(abs(a - b) / max(abs(a), 1e-30) for a, b in zip(*rows)) for rows in zip(cpu, gpu, strict=True)]
print("relative differences of the losses by iteration:", *(f"{value:.1e}" for value in worst))
sys.exit(not worst or worst[0] > 1e-4 or max(worst) > 1e-2)
END
export CUPY_GPU_MEMORY_LIMIT=4000000000
bench memory_stylize_4GB 120 --work stylize --sizes "${large[@]}"
export CUPY_GPU_MEMORY_LIMIT=3000000000
bench memory_train_3GB 120 --work train --sizes "${train_size[0]}" --batches "${train_size[1]}"
unset CUPY_GPU_MEMORY_LIMIT

# --- measurements ---
bench layers 120 --layers --sizes "${train_size[0]}" --batches "${train_size[1]}" --json "$out/layers.json"
peer=()
if python -c "import torch" 2> /dev/null; then peer=(--peer torch); else echo "no PyTorch: no comparison"; fi
export NVIDIA_TF32_OVERRIDE=0
bench train 180 --work train --sizes "${train_size[0]}" --batches "${train_size[1]}" "${peer[@]}" --json "$out/train.json"
bench stylize 180 --work stylize --sizes "${stylize[@]}" "${peer[@]}" --json "$out/stylize.json"
unset NVIDIA_TF32_OVERRIDE
if [ ${#peer[@]} -gt 0 ]; then # PyTorch with the tensor cores' shorter numbers; ours stay as they are
  export TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
  bench train_tf32 180 --work train --sizes "${train_size[0]}" --batches "${train_size[1]}" "${peer[@]}" --json "$out/tf32.json"
  unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
fi
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2> /dev/null | tail -n 1)
if [ -n "$sanitizer" ] && [ "$device" = cuda ]; then
  for tool in memcheck racecheck; do
    step "$tool" 150 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      python -m pytest -q -m gpu tests/test_cuda_ops.py -k "agrees or losses or adam"
  done
else
  echo "no compute-sanitizer: pip install nvidia-cuda-sanitizer-api-cu12"
fi

# --- a style with the paper's settings ---
left=$((60 * minutes - SECONDS))
[ $left -gt 60 ] || left=60
proofs=$failed
with=(--device "$device" --init none --iterations "$steps" --image-size "${train_size[0]}" --batch "${train_size[1]}")
with+=(--out "$out/run" ${photos:+--content "$photos"})
tinynst train training "$left" # at the limit it completes a step and saves, as after Ctrl-C
[ -f "$out/run/weights.h5" ] || proofs=1
with=(tinynst/samples/photos/chelsea.jpg --style "$out/run/weights.h5" --device "$device" -o "$out/pictures")
tinynst stylize pictures 120
echo "results in $out"
exit $proofs
