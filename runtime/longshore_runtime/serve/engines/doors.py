"""Which paths of the engines behind the relay anybody may ask for. What is not named here is the operator's.

The patterns are strict about the letters of a path, so that no spelling of another one passes.
"""

from __future__ import annotations

import re

from longshore_runtime.serve.engines.vllm_gate import NOTHING, Doors

ENGINE_DOORS = {
    # tools/server/README.md of llama.cpp, September 2026. Hidden: /slots (prompts of others), /props, /lora-adapters (what the
    # engine does for everybody), /tools, the web UI; and below /v1 what reaches into the streams of others.
    "llamacpp": Doors(
        public=re.compile(
            r"/(v1/)?(health|models|completions|chat/completions|responses|messages|embeddings|rerank|reranking)/?"
            r"|/v1/audio/transcriptions|/(v1/)?(chat/completions|responses)/input_tokens|/v1/messages/count_tokens"
            r"|/(metrics|completion|infill|embedding|tokenize|detokenize|apply-template)/?"
        ),
        private=NOTHING,
        uncounted=re.compile(r"/((v1/)?health|metrics)/?"),
        idle=re.compile(r"/(tokenize|detokenize|apply-template)|.*/(input_tokens|count_tokens)|/(v1/)?models/?"),
    ),
    # entrypoints/http_server.py of SGLang 0.5.23. Hidden: what changes or stops the engine for everybody (weights, adapters,
    # caches, profiles, pauses, aborts), what tells of its configuration and load, and the answers that it keeps of others.
    "sglang": Doors(
        public=re.compile(
            r"/v1/(models|completions|chat/completions|responses|messages|embeddings|classify|score|rerank|tokenize|detokenize)"
            r"|/v1/models/[\w.:/-]+|/v1/audio/transcriptions|/v1/messages/count_tokens"
            r"|/(health|metrics|ping|generate|encode|classify|tokenize|detokenize)"
        ),
        private=NOTHING,
        uncounted=re.compile(r"/(health|metrics|ping)"),
        idle=re.compile(r"(/v1)?/(de)?tokenize|/v1/messages/count_tokens|/v1/models(/.*)?"),
    ),
    # router/src/server.rs of text-generation-inference 3.3.5. Hidden: /info, the documents, what clouds ask of their own.
    "tgi": Doors(
        public=re.compile(
            r"/|/v1/(chat/completions|completions|models)|/(health|ping|metrics|generate|generate_stream|tokenize|chat_tokenize)"
        ),
        private=NOTHING,
        uncounted=re.compile(r"/(health|ping|metrics)"),
        idle=re.compile(r"/(chat_)?tokenize|/v1/models"),
    ),
    # serve/openai_server.py of TensorRT-LLM 1.3.0rc3. Hidden: what changes the engine for everybody (weights, memory), what who
    # asks first takes from others (iterations, events), /server_info, the answers that it keeps. /metrics waits two seconds for
    # an iteration, and two more for another (executor/proxy.py, executor/result.py).
    "trtllm": Doors(
        public=re.compile(r"/v1/(models|completions|chat/completions|responses)|/(health|version|prometheus/metrics/?)"),
        private=NOTHING,
        uncounted=re.compile(r"/(health|version|metrics|prometheus/metrics/?)"),
        idle=re.compile(r"/v1/models"),
        slow=re.compile(r"/metrics"),
    ),
}
"""By the engine's name."""
