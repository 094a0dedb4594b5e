#!/usr/bin/env bash
# What `make demo` shows: the commands that a user types, on a real model with a real engine.
set -euo pipefail

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() {
  local word line='$'
  for word in "$@"; do [[ $word == *[!-a-zA-Z0-9_./:@]* ]] && line+=" \"$word\"" || line+=" $word"; done
  printf '\033[1m%s\033[0m\n' "$line"
  "$@"
}

say "A real small model, as a hub would have it: SmolLM2-135M-Instruct in safetensors shards"
model=$(python "$(dirname "$0")/smollm2.py")
echo "$model"

say "Push it once: a version that never changes, and an alias that moves"
show longshore push "$model" smollm2:1 --alias prod

say "What the registry knows about it"
show longshore show smollm2@prod

say "Serve it here the way a pod would: pulled, verified, answered by vLLM"
show longshore run smollm2@prod --prompt "What is the capital of France?"

say "What KServe would be given"
show longshore render smollm2@prod
